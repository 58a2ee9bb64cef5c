"""What a trial is given (``TrialConfig``), what it reports (``Report``), and what drives it (``TrialRunner``)."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

from metaloom.learners.errors import BadInput
from metaloom.workers.records.names import (
    CONFIG_FILE,
    FIRST_SEEDS_VERSION,
    SEEDS_VERSION,
    VALIDATION_ACCURACY,
    VALIDATION_LOSS,
)


@dataclass(frozen=True)
class TrialConfig:
    """Everything that determines a trial: no knob is left to search.

    Attributes:
        search: Name of the search it belongs to.
        trial: Its number in the search, from 0.
        seed: The search's seed; the trial's own draws derive from (seed, trial, step, purpose).
        tasks: Resolved section of the task source.
        learner: Resolved slots.
        inner: Resolved inner section.
        outer: Resolved outer section.
        resources: Device, threads and what the cluster is asked for.
        seeds: Which derivation its generators have (``workers/seeds.py``); the first where a record names none.
    """

    search: str
    trial: int
    seed: int
    tasks: Mapping[str, Any]
    learner: Mapping[str, Any]
    inner: Mapping[str, Any] = field(default_factory=dict)
    outer: Mapping[str, Any] = field(default_factory=dict)
    resources: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = SEEDS_VERSION

    @property
    def retrain_steps(self) -> int:
        """Steps after the outer ones: what is learned is an architecture, made discrete and trained from scratch."""
        steps = int(self.outer.get("retrain_steps", 0))
        if not steps:
            return 0
        from metaloom.learners.build import is_relaxed  # torch: only where a search retrains

        return steps if is_relaxed(self.learner) else 0

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary of JSON values."""
        return {one.name: _plain(getattr(self, one.name)) for one in fields(self)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "TrialConfig":
        """Read what ``to_json`` wrote; raises TypeError if a field is missing or unknown."""
        return cls(**{"seeds": FIRST_SEEDS_VERSION, **document})


@dataclass(frozen=True)
class Report:
    """What a trial says each time it has validated.

    Attributes:
        step: Outer steps done.
        metrics: Metric name (spelt in this module) to value.
        interval: 95% interval of the first validation metric (accuracy, or loss in regression).
        scores: That metric per validation episode; all trials of a search see the same episodes.
        episodes: Episodes seen so far, of training and validation.
        seconds: Time spent so far, all attempts of the trial together.
        finished: True if the trial has nothing left to do.
        notes: What a reader should know, such as that it stopped early.
        hypergradient: The estimator in use, and why where ``auto`` chose it.
        warnings: What the user is told at once: a checkpoint that was found damaged, and from where it went on.
    """

    step: int
    metrics: Mapping[str, float]
    interval: tuple[float, float]
    scores: tuple[float, ...]
    episodes: int
    seconds: float
    finished: bool
    notes: tuple[str, ...] = ()
    hypergradient: str = ""
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary of JSON values."""
        return {one.name: _plain(getattr(self, one.name)) for one in fields(self)}

    @property
    def scored(self) -> str:
        """The metric that ``scores`` and ``interval`` are of: the accuracy where there is one, else the loss."""
        return VALIDATION_ACCURACY if VALIDATION_ACCURACY in self.metrics else VALIDATION_LOSS

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Report":
        """Read what ``to_json`` wrote; raises TypeError if a field is missing or unknown."""
        values = dict(document)
        low, high = values["interval"]
        values["interval"] = (float(low), float(high))
        values["scores"] = tuple(float(score) for score in values["scores"])
        for name in ("notes", "warnings"):
            values[name] = tuple(values.get(name, ()))
        return cls(**values)


class TrialRunner(Protocol):
    """What an executor drives: a trial that goes on by one report at a time."""

    @property
    def step(self) -> int:
        """Outer steps done."""
        ...

    @property
    def finished(self) -> bool:
        """True if there is nothing left to do; ``advance`` must then not be called."""
        ...

    @property
    def last_report(self) -> Report | None:
        """The report of the checkpoint it stands at (None before the first), as ``advance`` returned it.

        A driver killed between checkpoint and journal learns from here what the journal has not seen.
        """
        ...

    def advance(self) -> Report:
        """Train to the next validation, validate, record, checkpoint, report."""
        ...

    def close(self) -> None:
        """Let go of files and memory."""
        ...


def read_config(directory: Path) -> TrialConfig:
    """Read the configuration of the trial in ``directory``; raises BadInput if there is none."""
    try:
        document = json.loads((directory / CONFIG_FILE).read_text())
        return TrialConfig.from_json(document)
    except (OSError, ValueError, TypeError) as problem:
        raise BadInput(f"{directory}: no trial is here ({problem})") from problem


def _plain(value: Any) -> Any:
    """Turn mappings and tuples into dictionaries and lists, all the way down."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        return _plain(asdict(value))
    return value
