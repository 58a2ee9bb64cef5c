"""The reports of a trial as its worker made them, one line each: what the journal may lack after damage.

A line holds the digest of the trial's configuration, so that reports of other knobs are not taken for the trial's, and
begins with its own digest. Lines are not waited for: after a power failure the last may be missing.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metaloom.workers.durable import canonical, digest, is_signed
from metaloom.workers.records.names import CHECKPOINTS_FOLDER, REPORTS_FILE
from metaloom.workers.records.trial import Report, TrialConfig


@dataclass(frozen=True)
class _Line:
    """One line; ``report`` is None in the first of a configuration, ``number`` counts the reports."""

    config: str
    number: int
    report: dict[str, Any] | None


class ReportLog:
    """The log in a trial's directory, for a worker that runs the trial by ``config``."""

    def __init__(self, directory: Path, config: TrialConfig) -> None:
        self._path = directory / REPORTS_FILE
        self._config = digest(canonical(config.to_json()))
        self._lines = list(_lines(self._path))
        self._number = max((line.number for line in self._lines), default=0)

    @property
    def is_of_another(self) -> bool:
        """Whether the directory was begun by another configuration of the trial."""
        return bool(self._lines) and self._lines[0].config != self._config

    def begin(self) -> None:
        """Note the configuration before anything is computed by it."""
        if all(line.config != self._config for line in self._lines):
            self._append(_Line(self._config, self._number, None))

    def add(self, report: Report) -> None:
        """Append a report whose checkpoint is written."""
        self._number += 1
        self._append(_Line(self._config, self._number, report.to_json()))

    def between(self, step: int, last: Report) -> list[Report]:
        """Return the reports after ``step`` up to ``last``, the newest checkpoint's, which is added if it is missing.

        A population's trial may have gone on with other knobs since: then ``last`` is not of this configuration.
        Reports that damage has taken out are counted in a warning of the next one.
        """
        reports: list[Report] = []
        number, gap = 0, 0
        for line in self._lines:
            if line.config != self._config or line.report is None:
                continue
            report = Report.from_json(line.report)
            gap += max(0, line.number - number - 1) if report.step > step else 0
            number = line.number
            if (reports[-1].step if reports else step) < report.step <= last.step:
                lost = (f"{gap} reports before step {report.step} are lost: their records are damaged",) if gap else ()
                reports.append(replace(report, warnings=(*report.warnings, *lost)))
                gap = 0
        is_ours = not self._lines or self._lines[-1].config == self._config
        if is_ours and (reports[-1].step if reports else step) < last.step:
            self.add(last)
            reports.append(last)
        return reports

    def _append(self, line: _Line) -> None:
        content = canonical(vars(line))
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            # a newline first ends what a killed process has left of a line
            os.write(descriptor, b"\n" + digest(content).encode() + b" " + content + b"\n")
        finally:
            os.close(descriptor)
        self._lines.append(line)


def proven_step(directory: Path) -> int:
    """Return the last step that a trial's own files prove: its log of reports, or a checkpoint's manifest."""
    steps = [int(line.report["step"]) for line in _lines(directory / REPORTS_FILE) if line.report]
    for path in (directory / CHECKPOINTS_FOLDER).glob("checkpoint-*.json"):
        try:
            manifest = json.loads(path.read_bytes())
            steps += [int(manifest["facts"]["step"])] if is_signed(manifest) else []
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a damaged checkpoint proves nothing; the trial itself tells of it
    return max(steps, default=0)


def _lines(path: Path) -> Iterator[_Line]:
    """Yield the undamaged lines."""
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        stored, _, content = line.partition(b" ")
        if content and digest(content).encode() == stored:
            yield _Line(**json.loads(content))
