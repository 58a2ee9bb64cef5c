"""What the Director and a trial's worker exchange: an assignment one way, messages the other. Both travel as JSON."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaloom.workers.records.trial import Report, TrialConfig


@dataclass(frozen=True)
class Assignment:
    """A trial handed to a worker.

    Attributes:
        config: What it is.
        directory: Where it lives.
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
    """What a worker says of its trial: a report, or why it cannot go on.

    Attributes:
        worker: Host and process.
        report: None if the trial is broken.
        problem: Why it is broken; empty if it is not.
        traceback: Of the error.
        environment: The machine is at fault (full disk, no such device), so every other trial would break too.
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
