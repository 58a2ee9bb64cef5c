"""How far a trial has come: all of its state that is not a tensor."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from metaloom.learners.base import EpisodeOutcome, MetaStep
from metaloom.workers.records import HYPERGRADIENT_NORM, TRAIN_ACCURACY, TRAIN_LOSS, Report, is_better


@dataclass
class Progress:
    """What a checkpoint holds beside tensors.

    Attributes:
        step: Outer steps done.
        episodes: Episodes seen, of training and validation.
        seconds: Time spent, all attempts together.
        recording_seconds: Part of it spent on episode records.
        stale: Validations since the best one.
        best: The report of the best validation.
        last: The last report.
        finished: Whether there is nothing left to do.
        retraining: The learner section with its relaxed cells made discrete, once they are retrained.
    """

    step: int = 0
    episodes: int = 0
    seconds: float = 0.0
    recording_seconds: float = 0.0
    stale: int = 0
    best: Report | None = None
    last: Report | None = None
    finished: bool = False
    retraining: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary of JSON values."""
        document: dict[str, Any] = dict(vars(self))
        for name in ("best", "last"):
            report: Report | None = document[name]
            document[name] = report.to_json() if report else None
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Progress":
        """Read what ``to_json`` wrote."""
        values = dict(document)
        for name in ("best", "last"):
            values[name] = Report.from_json(values[name]) if values[name] else None
        return cls(**values)

    def judge(self, metric: str, report: Report) -> bool:
        """Say whether ``report`` is the best so far, and remember it."""
        incumbent = self.best.metrics[metric] if self.best else None
        if is_better(metric, report.metrics[metric], incumbent):
            self.best, self.stale = report, 0
            return True
        self.stale += 1
        return False


@dataclass
class Tally:
    """What training has shown since the last validation."""

    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)

    def add(self, meta: MetaStep, norm: float) -> None:
        """Count one outer step."""
        self.losses.append(meta.loss)
        self.norms.append(norm)
        self.accuracies.extend(_final_accuracies(meta.outcomes))

    def metrics(self) -> dict[str, float]:
        """Return the means of what was counted; a metric that was never seen is left out."""
        seen = {TRAIN_LOSS: self.losses, TRAIN_ACCURACY: self.accuracies, HYPERGRADIENT_NORM: self.norms}
        return {name: math.fsum(values) / len(values) for name, values in seen.items() if values}


def _final_accuracies(outcomes: tuple[EpisodeOutcome, ...]) -> list[float]:
    return [one.accuracies[-1] for one in outcomes if one.accuracies]
