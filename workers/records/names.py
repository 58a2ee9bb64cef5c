"""What a trial is given and what it hands back; every stored name, spelt once.

Trackers write these names, dashboards read them. Nothing here imports torch, so
that reading records costs no more than the standard library.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

from metaloom.learners.errors import BadInput

# The journal: one SQLite database per search.
JOURNAL_FILE = "journal.db"
EVENTS_TABLE = "events"  # id, time, trial, kind, payload
MARKS_TABLE = "marks"  # name, event, state

# Kinds of event.
SEARCH_CREATED = "search_created"
SEARCH_STARTED = "search_started"
SEARCH_ENDED = "search_ended"
TRIAL_SUGGESTED = "trial_suggested"
TRIAL_STARTED = "trial_started"
TRIAL_REPORTED = "trial_reported"
TRIAL_STOPPED = "trial_stopped"
TRIAL_FINISHED = "trial_finished"
TRIAL_FAILED = "trial_failed"
TRIAL_INTERRUPTED = "trial_interrupted"
TRIAL_EXPLOITED = "trial_exploited"
TRIAL_WARNED = "trial_warned"
BASELINE = "baseline"
BEST_TESTED = "best_tested"
EVENT_KINDS = (
    SEARCH_CREATED,
    SEARCH_STARTED,
    SEARCH_ENDED,
    TRIAL_SUGGESTED,
    TRIAL_STARTED,
    TRIAL_REPORTED,
    TRIAL_STOPPED,
    TRIAL_FINISHED,
    TRIAL_FAILED,
    TRIAL_INTERRUPTED,
    TRIAL_EXPLOITED,
    TRIAL_WARNED,
    BASELINE,
    BEST_TESTED,
)

# Projections of the journal, each with a high-water mark.
MLFLOW_MARK = "mlflow"
OPTUNA_MARK = "optuna"

# States of a trial.
FINISHED = "finished"
STOPPED = "stopped"
FAILED = "failed"
RUNNING = "running"
WAITING = "waiting"
TRIAL_STATES = (FINISHED, STOPPED, FAILED, RUNNING, WAITING)

# Metrics of a report.
VALIDATION_ACCURACY = "validation_accuracy"
VALIDATION_LOSS = "validation_loss"
TRAIN_LOSS = "train_loss"
TRAIN_ACCURACY = "train_accuracy"
HYPERGRADIENT_NORM = "hypergradient_norm"
DIAGNOSTIC = "hypergradient_"  # before the name of what an estimator says of itself
INNER_GRADIENT_NORM = f"{DIAGNOSTIC}inner_gradient_norm"
RESIDUAL = f"{DIAGNOSTIC}residual"  # of an implicit gradient's linear system, relative to its right side
SECONDS = "seconds"
ADAPT_SECONDS = "adapt_seconds"  # per validation episode, adaptation and prediction
PARAMETERS = "parameters"  # numbers held by phi and by the inner state
RECORDING_SECONDS = "recording_seconds"
METRICS = (
    VALIDATION_ACCURACY,
    VALIDATION_LOSS,
    TRAIN_LOSS,
    TRAIN_ACCURACY,
    HYPERGRADIENT_NORM,
    SECONDS,
    ADAPT_SECONDS,
    PARAMETERS,
    RECORDING_SECONDS,
)
TIMINGS = frozenset({SECONDS, ADAPT_SECONDS, RECORDING_SECONDS})  # all others repeat bit for bit on a resume
MAXIMIZED = frozenset({VALIDATION_ACCURACY, TRAIN_ACCURACY})

# Splits of a task source, which are also the phases of an episode row.
TRAIN = "train"
VALIDATION = "validation"
TEST = "test"
PHASES = (TRAIN, VALIDATION, TEST)

# Inside a trial's directory.
CONFIG_FILE = "config.json"
TASK_FILE = "task.json"  # the shape of its tasks, for which the source itself would have to be opened
CHECKPOINTS_FOLDER = "checkpoints"
EPISODES_FOLDER = "episodes"
FIGURES_FOLDER = "figures"
LEARNED_FILE = "learned.json"  # among the figures: the name and the caption of each that shows what was learned
FIRST_SEEDS_VERSION = 1  # what a record without a number was made with
SEEDS_VERSION = 2  # the derivation of generators (workers/seeds.py) of all that begins now
META_KNOWLEDGE_FILE = "meta_knowledge.safetensors"


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


@dataclass(frozen=True)
class TrialResult:
    """What a finished trial is worth.

    Attributes:
        metric: Name of the metric ``value`` is of.
        value: Its mean over the episodes.
        interval: 95% interval of the mean.
        episodes: Number of episodes the mean is over.
    """

    metric: str
    value: float
    interval: tuple[float, float]
    episodes: int

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary of JSON values."""
        return {one.name: _plain(getattr(self, one.name)) for one in fields(self)}


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


@dataclass(frozen=True)
class EpisodeRecord:
    """One episode as it is stored: one row of the Parquet parts, one field a column.

    Attributes:
        search: Name of the search.
        trial: Number of the trial.
        phase: ``train``, ``validation`` or ``test``.
        step: Outer steps done when the episode was seen.
        episode: Number of the episode in its split.
        seed: Seed it was drawn with.
        source: Name of the task source.
        class_ids: Ids of its classes; empty in regression.
        sample_ids: Ids of its samples, support first.
        ways: Number of classes, or 0 in regression.
        shots: Support samples per class (all of them in regression).
        queries: Query samples per class (all of them in regression).
        losses: Query loss before adaptation and after each inner step; None where it was not measured
            (in training, all but the last).
        accuracies: Query accuracy likewise; empty in regression.
        loss_before: First of ``losses``.
        loss_after: Last of ``losses``.
        accuracy_before: First of ``accuracies``; None in regression.
        accuracy_after: Last of ``accuracies``; None in regression.
        setting: ``inductive`` or ``transductive``.
        batch_norm: Batch-norm mode, or ``none``.
        hypergradient_norm: Norm of the outer step's hypergradient before clipping; None if not training.
        seconds: Time for the episode: its share of a batch of episodes.
    """

    search: str
    trial: int
    phase: str
    step: int
    episode: int
    seed: int
    source: str
    class_ids: tuple[int, ...]
    sample_ids: tuple[int, ...]
    ways: int
    shots: int
    queries: int
    losses: tuple[float | None, ...]
    accuracies: tuple[float | None, ...]
    loss_before: float | None
    loss_after: float
    accuracy_before: float | None
    accuracy_after: float | None
    setting: str
    batch_norm: str
    hypergradient_norm: float | None
    seconds: float


EPISODE_COLUMNS = tuple(one.name for one in fields(EpisodeRecord))


def read_config(directory: Path) -> TrialConfig:
    """Read the configuration of the trial in ``directory``; raises BadInput if there is none."""
    try:
        document = json.loads((directory / CONFIG_FILE).read_text())
        return TrialConfig.from_json(document)
    except (OSError, ValueError, TypeError) as problem:
        raise BadInput(f"{directory}: no trial is here ({problem})") from problem


def is_better(metric: str, candidate: float, incumbent: float | None) -> bool:
    """Say whether ``candidate`` improves on ``incumbent`` (None: nothing seen yet); NaN never does."""
    if math.isnan(candidate):
        return False
    if incumbent is None:
        return True
    return candidate > incumbent if metric in MAXIMIZED else candidate < incumbent


def _plain(value: Any) -> Any:
    """Turn mappings and tuples into dictionaries and lists, all the way down."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        return _plain(asdict(value))
    return value
