"""Train from an experiment, test on fixed episodes, and put seeds together into a row."""

import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from scipy.stats import t as student

from benchmarks.provenance import commit_of_code
from metaloom.learners import build_learner
from metaloom.learners.base import EpisodeOutcome
from metaloom.learners.state import LearnerState
from metaloom.search_spaces.loading import load_experiment
from metaloom.search_spaces.resolve import defaults, resolve
from metaloom.workers.assembly import Assembly, assemble
from metaloom.workers.data.base import TaskSource
from metaloom.workers.records.results import StepScore, mean_interval
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.scoring import Evaluation, evaluate_learner
from metaloom.workers.trial.runner import Trial

ROOT = Path(__file__).resolve().parents[2]
TEST_SEED = 20_000  # the test episodes are the same for every method and every training seed
TEST_EPISODES = 600
Remake = Callable[[Any], TaskSource]


@dataclass(frozen=True)
class Row:
    """One measured line of the table.

    Attributes:
        claim: Its number in the list of protocols, such as ``V2``.
        what: Method, setting and point of measurement.
        values: The number for each training seed.
        interval: 95% interval over all test episodes of all seeds; None where the number is not a mean of episodes.
        gate: What it must reach, in words; empty for a control.
        reached: Whether it does; None for a control.
        setting: Inductive or transductive, and the batch-norm mode.
    """

    claim: str
    what: str
    values: tuple[float, ...]
    interval: tuple[float, float] | None = None
    gate: str = ""
    reached: bool | None = None
    setting: str = ""

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return sum(self.values) / len(self.values)

    @property
    def seeds_interval(self) -> tuple[float, float] | None:
        """Student's 95% interval of the mean over the seeds, n - 1 degrees of freedom; None with a single seed."""
        count = len(self.values)
        if count < 2:
            return None
        if not all(map(math.isfinite, self.values)):
            return math.nan, math.nan
        half = float(student.ppf(0.975, count - 1)) * statistics.stdev(self.values) / math.sqrt(count)
        return self.mean - half, self.mean + half


@dataclass(frozen=True)
class Trained:
    """A finished trial with what it can be tested on."""

    config: TrialConfig
    trial: Trial
    cache: Path
    phi: Mapping[str, torch.Tensor] = field(default_factory=dict)
    state: LearnerState = field(default_factory=LearnerState)
    remake: Remake | None = None

    def test(self, *, episodes: int = TEST_EPISODES, split: str = "test", **changes: Mapping[str, Any]) -> Evaluation:
        """Score a split; ``changes`` replaces settings of the sections named, such as tasks={"ways": 5}."""
        document = self.config.to_json()
        for section, settings in changes.items():
            document[section] = {**document[section], **settings}
        parts = _assemble(TrialConfig.from_json(document), self.cache, self.remake, self.test_seed)
        return evaluate_learner(parts.learner, dict(self.phi), self.state, parts.source, split, episodes)

    @property
    def test_seed(self) -> int:
        """A single task's split and label noise belong to its seed; tasks drawn endlessly are tested on common ones."""
        return self.config.seed if self.source.shape.single_task else TEST_SEED

    @property
    def source(self) -> TaskSource:
        """Where its episodes come from."""
        return self.trial.source


def _assemble(config: TrialConfig, cache: Path, remake: Remake | None, seed: int | None = None) -> Assembly:
    parts = assemble(config, cache=cache, seed=seed)
    if remake is None:
        return parts
    source = remake(parts.source)
    learner = build_learner(learner=config.learner, inner=config.inner, outer=config.outer, task=source.shape)
    return replace(parts, source=source, learner=learner)


def configured(experiment: Mapping[str, Any], seed: int) -> TrialConfig:
    """Return an experiment's only trial, with every searched knob at its default."""
    resolved = resolve(load_experiment(experiment), defaults(load_experiment(experiment)))
    return TrialConfig(
        "reproduction", 0, seed, resolved.tasks, resolved.learner, resolved.inner, resolved.outer, resolved.resources
    )


def opened(experiment: Mapping[str, Any], seed: int, cache: Path) -> TaskSource:
    """Return where the experiment's episodes come from, without training anything."""
    return assemble(configured(experiment, seed), cache=cache).source


def train(
    experiment: Mapping[str, Any],
    *,
    seed: int,
    cache: Path,
    at: Callable[[int, Trained], None] | None = None,
    remake: Remake | None = None,
) -> Trained:
    """Meta-train one trial, with every searched knob at its default.

    Args:
        experiment: The sections of an experiment.
        seed: Training seed.
        cache: Where task sources keep what they have made.
        at: Called with (outer steps, trained so far) after every validation.
        remake: Makes the task source that is learned from out of the experiment's.
    """
    config = configured(experiment, seed)
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(config, Path(folder), cache=cache, assembly=_assemble(config, cache, remake))
        while not trial.finished:
            report = trial.advance()
            if at is not None:
                at(report.step, Trained(config, trial, cache, trial.phi, trial.state, remake))
        return Trained(config, trial, cache, trial.phi, trial.state, remake)


@dataclass(frozen=True)
class Seed:
    """What one training seed came to: its tests by the outer step they were made after, and the seconds in all."""

    tests: Mapping[int, Evaluation]
    seconds: float


def remembered(claim: str, seed: int, cache: Path, measure: Callable[[], Mapping[int, Evaluation]]) -> Seed:
    """Measure a seed, or return what an earlier run of the same commit has measured: the seed may take an hour.

    Args:
        claim: The claim that is measured.
        seed: Its training seed.
        cache: Where measurements are kept, each commit's in a folder of its own; nothing is kept of changed files.
        measure: Trains the seed, and tests it.
    """
    commit = commit_of_code()
    file = cache / "reproductions" / str(commit) / f"{claim}-{seed}.json"
    if commit is not None and file.exists():
        document = json.loads(file.read_text())
        return Seed({int(step): evaluation_of(one) for step, one in document["tests"].items()}, document["seconds"])
    started = time.perf_counter()
    measured = Seed(measure(), time.perf_counter() - started)
    if commit is not None:
        tests = {step: asdict(replace(one, facts=())) for step, one in measured.tests.items()}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"tests": tests, "seconds": measured.seconds}))
    return measured


def kept(cache: Path, name: str, measure: Callable[[], Any]) -> Any:
    """Measure something that JSON can hold, or return what an earlier run of the same commit has measured."""
    commit = commit_of_code()
    file = cache / "reproductions" / str(commit) / f"{name}.json"
    if commit is not None and file.exists():
        return json.loads(file.read_text())
    found = measure()
    if commit is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found))
    return found


def evaluation_of(document: Mapping[str, Any]) -> Evaluation:
    """Return an evaluation from JSON values."""
    outcomes = tuple(EpisodeOutcome(tuple(one["losses"]), tuple(one["accuracies"])) for one in document["outcomes"])
    low, high = document["interval"]
    tuples = {name: tuple(document[name]) for name in ("scores", "losses", "facts")}
    per_step = tuple(StepScore(**one) for one in document["per_step"])
    return Evaluation(**{**document, **tuples, "per_step": per_step, "interval": (low, high), "outcomes": outcomes})


def pooled(evaluations: Sequence[Evaluation], step: int = -1) -> tuple[float, float]:
    """Return the 95% interval over all episodes of all seeds, after inner step ``step``."""
    scores = [scores_at(one, step) for one in evaluations]
    _, low, high = mean_interval([score for one in scores for score in one], metric=evaluations[0].metric)
    return low, high


def scores_at(evaluation: Evaluation, step: int) -> list[float]:
    """Return each episode's score after inner step ``step``."""
    regression = evaluation.metric == "loss"
    return [(one.losses if regression else one.accuracies)[step] for one in evaluation.outcomes]


def mean_at(evaluation: Evaluation, step: int) -> float:
    """Return the mean score after inner step ``step``."""
    return float(evaluation.per_step[step].mean)


def setting_of(evaluation: Evaluation) -> str:
    """Name the setting and the batch-norm mode."""
    return f"{evaluation.setting}, batch norm {evaluation.batch_norm}"


def row(
    claim: str,
    what: str,
    evaluations: Sequence[Evaluation],
    *,
    step: int = -1,
    gate: str = "",
    reached: Callable[[float], bool] | None = None,
) -> Row:
    """Put the seeds of one measurement together; the gate is held to their mean."""
    values = tuple(mean_at(one, step) for one in evaluations)
    mean = sum(values) / len(values)
    verdict = None if reached is None else reached(mean)
    return Row(claim, what, values, pooled(evaluations, step), gate, verdict, setting_of(evaluations[0]))
