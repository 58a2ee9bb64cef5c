"""The Director sends a worker an assignment; the worker answers with messages. Both travel as JSON."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"config": self.config.to_json(), "directory": str(self.directory), "known_step": self.known_step}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Assignment":
        """Read what ``to_json`` wrote."""
        config = TrialConfig.from_json(document["config"])
        return cls(config, Path(document["directory"]), int(document["known_step"]))


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

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**self.__dict__, "report": None if self.report is None else self.report.to_json()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Message":
        """Read what ``to_json`` wrote."""
        report = document["report"]
        return cls(**{**document, "report": None if report is None else Report.from_json(report)})
