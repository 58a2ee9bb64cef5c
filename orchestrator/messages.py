"""The Director sends a worker an assignment; the worker answers with messages. Both travel as JSON."""

import json
from dataclasses import dataclass
from pathlib import Path

from metaloom.workers.records.trial import Report, TrialConfig


@dataclass(frozen=True)
class Assignment:
    """A trial for a worker.

    Attributes:
        config: The trial's configuration.
        directory: The trial's directory.
        known_step: Step of its last journalled report; -1 if there is none.
    """

    config: TrialConfig
    directory: Path
    known_step: int = -1

    def to_json(self) -> str:
        """Return JSON text."""
        return json.dumps([self.config.to_json(), str(self.directory), self.known_step])

    @classmethod
    def from_json(cls, text: str) -> "Assignment":
        """Read what ``to_json`` wrote."""
        config, directory, known_step = json.loads(text)
        return cls(TrialConfig.from_json(config), Path(directory), known_step)


@dataclass(frozen=True)
class Message:
    """A worker's report of its trial, or the reason why the trial cannot go on.

    Attributes:
        worker: Host and process.
        report: None if the trial has failed.
        problem: Why it has failed; else empty.
        traceback: Of the error.
        environment: The machine is at fault (full disk, no such device), so every other trial would fail too.
    """

    trial: int
    worker: str
    report: Report | None = None
    problem: str = ""
    traceback: str = ""
    environment: bool = False

    def to_json(self) -> str:
        """Return JSON text."""
        return json.dumps({**vars(self), "report": self.report and self.report.to_json()})

    @classmethod
    def from_json(cls, text: str) -> "Message":
        """Read what ``to_json`` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "report": fields["report"] and Report.from_json(fields["report"])})
