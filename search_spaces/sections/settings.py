"""The search, resources and tracking sections: how trials are chosen, run and recorded."""

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, field_validator, model_validator

from metaloom.search_spaces.errors import ExperimentError, Problems, validation_problems
from metaloom.search_spaces.metrics import Metric

Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[_A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


class Settings(BaseModel):
    """Base of all: no unknown keys, no silent conversions, no changes afterwards."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Objective(Settings):
    """What a trial is judged by."""

    metric: Metric
    direction: Literal["maximize", "minimize"]

    @model_validator(mode="before")
    @classmethod
    def _direction(cls, raw: Any) -> Any:
        if isinstance(raw, str):
            raw = {"metric": raw}
        if not isinstance(raw, dict):
            return raw
        return {"direction": "maximize" if str(raw.get("metric")).endswith("accuracy") else "minimize", **raw}

    def score(self, metrics: Mapping[str, float]) -> float:
        """Return the metric of a report, signed so that larger is better."""
        return metrics[self.metric] if self.direction == "maximize" else -metrics[self.metric]


class Constraint(Settings):
    """A bound that a trial must keep to be the best."""

    metric: Metric
    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _bounded(self) -> "Constraint":
        if self.min is None and self.max is None:
            raise ValueError("a constraint needs a max or a min")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}; swap them")
        return self

    @property
    def name(self) -> str:
        """How Optuna and readers call it."""
        low = "" if self.min is None else f"{self.min:g}<="
        high = "" if self.max is None else f"<={self.max:g}"
        return f"{low}{self.metric}{high}"

    def violation(self, metrics: Mapping[str, float]) -> float:
        """Return by how much the bound is broken; 0 or less is feasible, an absent or NaN metric breaks it."""
        value = metrics.get(self.metric, math.nan)
        if math.isnan(value):
            return math.inf
        over = -math.inf if self.max is None else value - self.max
        under = -math.inf if self.min is None else self.min - value
        return max(over, under)


class WarmStart(Settings):
    """An earlier search in the same store, whose best trials' knobs are tried first.

    Attributes:
        search: Its name; that alone may stand for the mapping.
        trials: How many of its best trials.
    """

    search: Name
    trials: Count = 3

    @model_validator(mode="before")
    @classmethod
    def _named(cls, raw: Any) -> Any:
        return {"search": raw} if isinstance(raw, str) else raw


def _method_or_knobs(raw: Any) -> Any:
    if isinstance(raw, str | dict):
        return raw
    raise ValueError("give a method's name, a learner with its method, or a mapping of searched knobs to their values")


# a method's name; a learner, with its method; or values of searched knobs by their names, all others at their defaults
Baseline = Annotated[str | dict[str, Any], BeforeValidator(_method_or_knobs)]


class SearchSettings(Settings):
    """How trials are chosen, and how many.

    Attributes:
        trials: How many. `metaloom resume --trials` goes on to more.
        repeats: How often each suggestion is trained, with other initial weights, draws and training episodes each
            time. The mean of the repeats is judged, and is what the sampler sees. `trials` counts the suggestions. A
            scheduler judges the first of each; where it is stopped or fails, no other follows.
        sampler: A kind and all its settings.
        scheduler: A kind and all its settings.
        objectives: Metrics, each with its direction or alone; empty is accuracy, or loss where there is none. The best
            trial and the schedulers go by the first.
        constraints: Metrics with a `min`, a `max` or both, which the best trial must keep.
        warm_start: An earlier search in the same store; its name alone, or the mapping below.
        enqueue: Values of searched knobs by their names, a mapping for each trial, which are tried first; the sampler
            draws the knobs that one leaves out. `metaloom search --enqueue FILE` reads them from a file.
        patience: Trials that may end in a row without a gain (a finished trial that is better than all before, or in
            several objectives is beaten by none of them), after which none is begun; null is no limit.
        time_budget_s: Seconds of trials, over all sessions, after which none is begun. Running ones end at their next
            report, or after 10 s without progress. `metaloom resume --time-budget` extends it.
        trial_timeout_s: Seconds without progress (an outer step, an episode of a validation) after which a trial's
            worker is killed, as one that was lost (see `retries`); null is no limit.
        concurrency: Trials at a time; null is as many as the resources allow.
        baselines: Methods, learners or values of searched knobs, tested beside the best trial.
        retries: How often a trial whose worker was lost, or showed no progress, is resumed.
    """

    trials: Count = 12
    repeats: Annotated[int, Field(ge=1, le=1000)] = 1
    sampler: dict[str, Any] = Field(default_factory=lambda: {"kind": "tpe"})  # from SAMPLERS
    scheduler: dict[str, Any] = Field(default_factory=lambda: {"kind": "none"})  # from SCHEDULERS
    objectives: Annotated[tuple[Objective, ...], Strict(False)] = ()
    constraints: Annotated[tuple[Constraint, ...], Strict(False)] = ()
    warm_start: WarmStart | None = None
    enqueue: Annotated[tuple[dict[str, Any], ...], Strict(False)] = ()
    patience: Count | None = None
    time_budget_s: Annotated[float, Field(gt=0)] | None = None
    trial_timeout_s: Annotated[float, Field(ge=2)] | None = None
    concurrency: Count | None = None
    baselines: Annotated[tuple[Baseline, ...], Strict(False)] = ()
    retries: Annotated[int, Field(ge=0, le=10)] = 2

    @field_validator("objectives")
    @classmethod
    def _once(cls, objectives: tuple[Objective, ...]) -> tuple[Objective, ...]:
        metrics = [objective.metric for objective in objectives]
        twice = sorted({metric for metric in metrics if metrics.count(metric) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} is given twice; remove one")
        return objectives

    @property
    def runs(self) -> int:
        """The number of trials, repeats included."""
        return self.trials * self.repeats

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "SearchSettings":
        """Read what ``to_document`` wrote; settings of other versions are left out. Raises ExperimentError."""
        given = {name: document[name] for name in cls.model_fields if document.get(name) is not None}
        try:
            return cls.model_validate(given)
        except pydantic.ValidationError as error:
            problems = Problems()
            validation_problems(error, given, cls, problems)
            raise ExperimentError(problems.found, "the search section") from error

    def to_document(self) -> dict[str, Any]:
        """Return what decides over the trials as JSON values, for the journal."""
        return self.model_dump(mode="json", exclude={"warm_start", "enqueue", "concurrency", "baselines"})


class Resources(Settings):
    """What each trial gets of the machine or the cluster.

    Attributes:
        device: `auto`, `cpu`, `cuda` or one of several, such as `cuda:1`.
        cpus: Cores of a trial, as Ray counts them.
        gpus: GPUs of a trial, or a fraction of one.
        threads: Of torch, in a trial's process.
        memory: Bytes, or a size such as 2GB.
        perturbation_workers: Processes beside the trial's own, each with the same resources, that share the
            perturbations of evolution strategies.
        snapshots: How many small snapshots of what was learned a trial keeps on its way, at most, for the page of
            meta-knowledge; 0 keeps none.
        env: Names of environment variables that the workers get beside the usual ones (`docs/reliability.md`).
    """

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda|cuda:[0-9]+)$")] = "auto"
    cpus: Annotated[float, Field(gt=0)] = 1.0
    gpus: Annotated[float, Field(ge=0)] = 0.0
    threads: Count = 1
    memory: Count | None = None
    perturbation_workers: Annotated[int, Field(ge=0)] = 0
    snapshots: Annotated[int, Field(ge=0, le=1000)] = 20
    env: Annotated[tuple[str, ...], Strict(False)] = ()

    @field_validator("memory", mode="before")
    @classmethod
    def _bytes(cls, raw: Any) -> Any:
        if not isinstance(raw, str):
            return raw
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)", raw.strip())
        if found is None or found[2].upper() not in UNITS:
            raise ValueError(f"give bytes or a size such as 500MB, 2GB or 2GiB, not '{raw}'")
        return int(float(found[1]) * UNITS[found[2].upper()])

    @field_validator("env")
    @classmethod
    def _names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                begun = name.partition("=")[0]  # a value may be a secret
                raise ValueError(f"give names alone, not '{begun}...': a value is taken from your environment")
        return names

    @model_validator(mode="after")
    def _agree(self) -> "Resources":
        if self.device == "cpu" and self.gpus > 0:
            raise ValueError(f"device cpu with gpus {self.gpus:g}; give gpus: 0, or device: cuda")
        if self.device.startswith("cuda") and self.gpus == 0:
            raise ValueError(f"device {self.device} with gpus 0; give gpus: 1 (or a fraction), or device: auto")
        return self


class Tracking(Settings):
    """Where the records go.

    Attributes:
        uri: Of MLflow; null is SQLite in the store. `${NAME}` stands for an environment variable, which is read when
            MLflow is connected. A password in it is moved to the store's file `credentials`.
        experiment: MLflow's name for it; null is the search's.
        artifacts: Where artifacts go, without a password; null is a folder in the store.
        episodes: Whether the episodes' Parquet parts are logged as artifacts.
    """

    uri: str | None = None
    experiment: str | None = None
    artifacts: str | None = None
    episodes: bool = True
