"""The stock stack (Ray Tune, OptunaSearch, MLflow callback) and Metaloom under the same faults, as one table.

    python -m tests.faults.side_by_side [--out FILE] [--only FAULT]

Each is struck once at the same point of a search of six trials, and resumed as its documentation says. What each has
then is compared with its own undisturbed search.
"""

import argparse
import json
import random
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil

from metaloom.workers.records import names
from metaloom.workers.records.journal_sources import read_journal
from metaloom.workers.records.search import SearchRecord
from tests.faults.driver import Place, family, left_of, wait_until, workers
from tests.faults.faults import FAULTS, cut
from tests.support.processes import Process

STOCK = Path(__file__).with_name("stock_stack.py")
REPORTS = 11  # after which the fault strikes: the second trial has begun
LIMIT_S = 180.0
NOWHERE = "http://127.0.0.1:9"  # no server
STRIKES = {fault.name: fault for fault in FAULTS if "ray" in fault.executors and "group" not in fault.name}
ABSENT, CUT_CHECKPOINT, CUT_STATE = "tracking server absent", "killed, newest checkpoint cut", "killed, state cut"


@dataclass
class Outcome:
    """What a stack had after a fault and its resume.

    Attributes:
        code: Exit code of the session that was struck; None: it did not end within three minutes, and was killed.
        resumed: Exit code of the resume; None if none was needed, or if it did not end.
        trials: Their number, of six.
        differ: Of these, with other knobs or another last value than in the undisturbed search.
        repeated: Reports that were computed more than once.
        runs: MLflow runs of trials.
        running: Of these, left RUNNING.
        left: Processes that lived ten seconds after the struck session's end.
    """

    code: int | None = None
    resumed: int | None = None
    trials: int = 0
    differ: int = 0
    repeated: int = 0
    runs: int = 0
    running: int = 0
    left: int = 0


class Stack(Protocol):
    """A way to run and resume a search of six trials."""

    def begin(self, *, tracking: str | None) -> Process:
        """Start the search."""

    def resume(self) -> Process:
        """Start it again."""

    def reports(self) -> list[tuple[str, int]]:
        """Return every computed report so far: trial and step."""

    def results(self) -> list[tuple[float, float]]:
        """Return each trial's knob and last value, in the order of their beginning."""

    def newest_checkpoint(self) -> Path | None:
        """Return the file that was written last of the newest checkpoint."""

    def state(self) -> Path | None:
        """Return the file that a resume begins with."""

    def statuses(self) -> list[str]:
        """Return the statuses of the trials' MLflow runs."""


class Stock:
    """The stock stack."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True)

    def begin(self, *, tracking: str | None) -> Process:
        """Start the search."""
        options = ["--tracking", tracking] if tracking else []
        return Process(str(STOCK), str(self._folder), *options, new_session=True)

    def resume(self) -> Process:
        """Restore it, as ``Tuner.restore`` documents."""
        return Process(str(STOCK), str(self._folder), "--resume", new_session=True)

    def reports(self) -> list[tuple[str, int]]:
        """Return what the trials have computed."""
        truth = self._folder / "truth.jsonl"
        lines = map(json.loads, truth.read_text().splitlines()) if truth.exists() else ()
        return [(line["trial"], line["step"]) for line in lines]

    def results(self) -> list[tuple[float, float]]:
        """Return the results that the last session returned."""
        found = self._folder / "found.json"
        return [(one["rate"], one.get("loss")) for one in json.loads(found.read_text())] if found.exists() else []

    def newest_checkpoint(self) -> Path | None:
        """Return the state of the newest checkpoint."""
        return _newest(self._folder, "results/stock/*/checkpoint_*/state.json")

    def state(self) -> Path | None:
        """Return the newest snapshot of the experiment."""
        return _newest(self._folder, "results/stock/experiment_state-*.json")

    def statuses(self) -> list[str]:
        """Return the statuses of all runs."""
        return _statuses(self._folder / "mlflow.db", "")


class Ours:
    """Metaloom."""

    def __init__(self, folder: Path) -> None:
        self._place = Place(folder / "store")
        folder.mkdir(parents=True)

    def begin(self, *, tracking: str | None) -> Process:
        """Start the search."""
        return self._place.start("search", *([f"--set=tracking.uri={tracking}"] if tracking else []))

    def resume(self) -> Process:
        """Resume it."""
        return self._place.start("resume")

    def reports(self) -> list[tuple[str, int]]:
        """Return the journal's reports."""
        if not self._place.count():
            return []
        events = read_journal(self._place.folder).events
        reported = [one for one in events if one.kind == names.TRIAL_REPORTED]
        return [(str(one.trial), one.payload["report"]["step"]) for one in reported]

    def results(self) -> list[tuple[float, float]]:
        """Return the trials' records."""
        trials = SearchRecord.replay(read_journal(self._place.folder).events).trials.values()
        return [(one.knobs["learner.update.rate"], next(iter(one.values.values()))) for one in trials if one.values]

    def newest_checkpoint(self) -> Path | None:
        """Return the tensors of the newest checkpoint."""
        return _newest(self._place.folder, f"trials/*/{names.CHECKPOINTS_FOLDER}/*.safetensors")

    def state(self) -> Path | None:
        """Return the journal."""
        return self._place.journal

    def statuses(self) -> list[str]:
        """Return the statuses of the trials' runs."""
        runs = "WHERE run_uuid IN (SELECT run_uuid FROM tags WHERE key = 'metaloom.trial')"
        return _statuses(self._place.store / "mlflow.db", runs)


def _newest(folder: Path, pattern: str) -> Path | None:
    return max(folder.glob(pattern), key=lambda path: path.stat().st_mtime_ns, default=None)


def _statuses(database: Path, where: str) -> list[str]:
    if not database.exists():
        return []
    with closing(sqlite3.connect(database)) as connection:
        return [row[0] for row in connection.execute(f"SELECT status FROM runs {where}")]


def ended(process: Process) -> int | None:
    """Wait for a process; None if it does not end, and is killed."""
    try:
        process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return None
    return process.returncode


def outcome(stack: Stack, fault: str, truth: list[tuple[float, float]]) -> Outcome:
    """Run the search, let the fault happen, resume, and compare."""
    found = Outcome()
    process = stack.begin(tracking=NOWHERE if fault == ABSENT else None)
    if fault == ABSENT:
        found.code = ended(process)
    else:
        wait_until(lambda: len(stack.reports()) >= REPORTS, process)
        relatives = family(process)
        _strike(process, fault)
        found.code = ended(process)
        found.left = len(left_of(relatives))
        path = {CUT_CHECKPOINT: stack.newest_checkpoint, CUT_STATE: stack.state}.get(fault, lambda: None)()
        if path is not None:
            cut(path, random.Random(0))
        _end(relatives)
    if found.code != 0:
        process = stack.resume()
        relatives = family(process)
        found.resumed = ended(process)
        _end(relatives)
    results, reports = stack.results(), stack.reports()
    found.trials, found.repeated = len(results), len(reports) - len(set(reports))
    found.differ = sum(one not in truth for one in results)
    statuses = stack.statuses()
    found.runs, found.running = len(statuses), statuses.count("RUNNING")
    return found


def _strike(process: Process, fault: str) -> None:
    name = fault if fault in STRIKES else "kill -9 of the driver"
    if name == "kill -9 of a worker":
        found = workers(process) or [one for one in family(process) if "ray::ImplicitFunc" in " ".join(_line(one))]
        for worker in found:
            worker.kill()
    else:
        STRIKES[name].strike(process, random.Random(0))


def _line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _end(processes: list[psutil.Process]) -> None:
    for one in processes:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            continue


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="a part of the name of the faults to try")
    parser.add_argument("--out", type=Path, help="also write the table as JSON")
    options = parser.parse_args()
    asked = [name for name in (*STRIKES, ABSENT, CUT_CHECKPOINT, CUT_STATE) if (options.only or "") in name]
    table: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for kind in (Stock, Ours):
            whole = kind(Path(temporary) / kind.__name__ / "whole")
            assert ended(whole.begin(tracking=None)) == 0
            truth = whole.results()
            for index, fault in enumerate(asked):
                found = outcome(kind(Path(temporary) / kind.__name__ / str(index)), fault, truth)
                table.setdefault(fault, {})[kind.__name__.lower()] = asdict(found)
                print(f"{fault:32} {kind.__name__:6} {asdict(found)}", flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps(table, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
