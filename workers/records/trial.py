"""A trial's input (``TrialConfig``), its results (``Report``), and the interface that drives it (``TrialRunner``)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, Protocol

from metaloom.learners.errors import BadInput
from metaloom.workers.records import names
from metaloom.workers.records.results import SourceMean


def plain(value: Any) -> Any:
    """Return JSON values: dataclasses and mappings as dictionaries, tuples as lists, all the way down."""
    if is_dataclass(value) and not isinstance(value, type):
        value = vars(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


class Plain:
    """Base of dataclasses that are stored as JSON."""

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary of JSON values."""
        return dict(plain(self))


# Between the training episodes of two repeats; a prime, so that it is no multiple of the number of a few tasks.
REPEAT_EPISODES = 1_000_000_007


@dataclass(frozen=True)
class TrialConfig(Plain):
    """Everything that determines a trial: no knob is left to search.

    Attributes:
        search: Name of the search it belongs to.
        trial: Its number in the search, from 0.
        seed: The search's seed; the trial's own draws derive from (seed, trial, step, purpose).
        tasks: Resolved section of the task source.
        learner: Resolved slots.
        inner: Resolved inner section.
        outer: Resolved outer section.
        resources: Device, threads and the resources asked of the cluster.
        repeat: How many trials of its knobs came before it (``search.repeats``); each has its own training episodes.
        stage: The name of its stage; empty in an experiment without stages.
        stages: The stages before it, each its name and its four sections.
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
    seeds: int = names.SEEDS_VERSION
    repeat: int = 0
    stage: str = ""
    stages: Sequence[Mapping[str, Any]] = ()

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary of JSON values, as earlier versions did where nothing is repeated or staged."""
        document = super().to_json()
        return {name: one for name, one in document.items() if one or name not in ("repeat", "stage", "stages")}

    @property
    def first_episode(self) -> int:
        """The number of its first training episode."""
        return self.repeat * REPEAT_EPISODES

    @property
    def retrain_steps(self) -> int:
        """Outer steps that train the discrete form of a learned architecture from scratch; 0 if none is learned."""
        steps = int(self.outer.get("retrain_steps", 0))
        if not steps:
            return 0
        from metaloom.learners.build import relaxed_network  # torch: only where a search retrains

        return steps if relaxed_network(self.learner) else 0

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "TrialConfig":
        """Read the values of ``to_json``; raises TypeError if a field is missing or unknown."""
        return cls(**{"seeds": names.FIRST_SEEDS_VERSION, **document})


@dataclass(frozen=True)
class Report(Plain):
    """The results of a trial at a validation.

    Attributes:
        step: Outer steps done.
        metrics: Metric name (``records/names.py``) to value.
        interval: 95% interval of the first validation metric (accuracy, or loss in regression).
        scores: That metric per validation episode; all trials of a search see the same episodes.
        episodes: Episodes so far, of training and validation.
        seconds: Time so far, all attempts of the trial together.
        finished: True if the trial has nothing left to do.
        notes: Remarks for the reader, such as that it stopped early.
        hypergradient: The estimator in use, and the reason if ``auto`` chose it.
        warnings: Problems that the user sees at once, such as a damaged checkpoint.
        stages: Of the first report: the stages that the trial starts from, and how each came about. They hold measured
            times too.
        parts: The episode parts since the report before: by file name, its size and digest. They hold measured times,
            so that equal trials have other ones.
        by_source: Where episodes are of several data sets: of each the mean, the ends of its 95% interval and the
            number of its ``scores``.
        device: That it was computed on, as torch calls it.
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
    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, compare=False)
    stages: tuple[Mapping[str, Any], ...] = field(default=(), compare=False)
    by_source: Mapping[str, SourceMean] = field(default_factory=dict)
    device: str = field(default="", compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary of JSON values, as earlier versions did without stages and with one data set."""
        later = {"stages": self.stages, "by_source": self.by_source, "device": self.device}
        return {name: one for name, one in super().to_json().items() if name not in later or later[name]}

    @property
    def scored(self) -> str:
        """The metric of ``scores`` and ``interval``: the accuracy where there is one, else the loss."""
        return names.VALIDATION_ACCURACY if names.VALIDATION_ACCURACY in self.metrics else names.VALIDATION_LOSS

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Report":
        """Read the values of ``to_json``; raises TypeError if a field is missing or unknown."""
        values = dict(document)
        low, high = values["interval"]
        values["interval"] = (float(low), float(high))
        values["scores"] = tuple(map(float, values["scores"]))
        for name in ("notes", "warnings", "stages"):
            values[name] = tuple(values.get(name, ()))
        values["by_source"] = {name: tuple(one) for name, one in values.get("by_source", {}).items()}
        return cls(**values)


class TrialRunner(Protocol):
    """The interface by which an executor drives a trial, one report at a time."""

    @property
    def step(self) -> int:
        """Outer steps done."""

    @property
    def finished(self) -> bool:
        """True if there is nothing left to do; ``advance`` must then not be called."""

    @property
    def last_report(self) -> Report | None:
        """The report of the checkpoint it stands at (None before the first), as ``advance`` returned it.

        If a driver was killed between checkpoint and journal, its successor takes the missing report from here.
        """

    def advance(self) -> Report:
        """Train to the next validation, validate, record, checkpoint, report."""

    def close(self) -> None:
        """Release files and memory."""


def read_config(directory: Path) -> TrialConfig:
    """Read the configuration of the trial in ``directory``; raises BadInput if there is none."""
    try:
        return TrialConfig.from_json(json.loads((directory / names.CONFIG_FILE).read_text()))
    except (OSError, ValueError, TypeError) as problem:
        raise BadInput(f"{directory}: no trial is here ({problem})") from problem
