"""Scores a learner: mean and 95% interval over episodes, after each inner step; and compares two trials.

Two means whose intervals overlap may still differ clearly. Most of the width of each interval comes from the different
difficulty of the episodes, which is the same for both trials and cancels in the differences, episode by episode.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import count, islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

from metaloom.learners.base import EpisodeOutcome, Learner
from metaloom.learners.episode import TaskShape
from metaloom.learners.solvers.base import TRANSDUCTIVE
from metaloom.learners.state import LearnerState
from metaloom.learners.tensors import Tensors
from metaloom.search_spaces.sections.few_shot import changed_sizes, with_evaluation
from metaloom.workers.assembly import assemble
from metaloom.workers.bundle_reading import check_targets, parameters_of, read_task
from metaloom.workers.checkpoint import load_knowledge
from metaloom.workers.data.base import SampledEpisode, TaskSource
from metaloom.workers.device import CPU, Device
from metaloom.workers.errors import BundleError
from metaloom.workers.records.episode_files import EpisodeBatch, EpisodeFacts, rows_of_test, write_part
from metaloom.workers.records.names import SEEDS_VERSION, TASK_FILE, TEST, part_of_test
from metaloom.workers.records.results import (
    ACCURACY,
    INNER_STEPS,
    PRESENTATIONS,
    EvaluationSummary,
    InductiveScore,
    StepScore,
    in_units,
    mean_interval,
    paired_interval,
)
from metaloom.workers.records.tested import test_scores
from metaloom.workers.records.trial import Plain, plain, read_config
from metaloom.workers.seeds import derive_generator
from metaloom.workers.ways import at_ways, build_of, describe, ways_of_split

_LOG = logging.getLogger("metaloom.scoring")
UNSAID = (("inductive", None), ("generalized", None), ("curve", INNER_STEPS))  # in the JSON of an evaluation


@dataclass(frozen=True)
class Evaluation(EvaluationSummary):
    """An evaluation with the facts that identify each episode, and its losses and accuracies after each inner step.

    ``losses`` are those after the last inner step.
    """

    losses: tuple[float, ...] = ()
    facts: tuple[EpisodeFacts, ...] = ()
    outcomes: tuple[EpisodeOutcome, ...] = ()

    def __repr__(self) -> str:
        low, high = self.interval
        score = f"{self.split} {self.metric} {self.mean:.4f} [{low:.4f}, {high:.4f}]"
        return f"<{score} over {self.episodes} episodes, {self.setting}>"

    def to_json(self) -> dict[str, Any]:
        """Return the summary as JSON values; the episodes have their own records."""
        values = {field.name: plain(getattr(self, field.name)) for field in fields(EvaluationSummary)}
        return {name: value for name, value in values.items() if (name, value) not in UNSAID}


def evaluate_learner(
    learner: Learner,
    phi: Tensors,
    state: LearnerState,
    source: TaskSource,
    split: str,
    episodes: int,
    *,
    device: Device = CPU,
    seeds: int = SEEDS_VERSION,
    done: Callable[[], None] = lambda: None,
    both: bool = False,
) -> Evaluation:
    """Adapt to the first ``episodes`` episodes of a split (fewer if it has fewer) and score their query sets.

    ``phi`` and ``state`` are on ``device``; ``seeds`` is the trial's derivation of generators; ``done`` is called after
    each episode; ``both`` also scores a transductive learner as an inductive one. Random draws in an episode come from
    the episode's own seed: the numbers do not depend on the trial, on the step, or on earlier evaluations.
    """
    facts: list[EpisodeFacts] = []
    outcomes: list[EpisodeOutcome] = []
    constants: list[float | None] = []
    inductive: list[EpisodeOutcome] = []
    both, busy = both and learner.inductive() is not None, 0.0
    for index, sampled in enumerate(islice(_episodes(source, split), episodes)):
        episode = sampled.episode.to(device.torch, device.dtype)
        device.wait()
        started = time.perf_counter()
        generator = derive_generator(sampled.seed, "evaluate", version=seeds)
        with device.precision():
            if both:
                outcome, alone = learner.evaluate_both(phi, state, episode, generator)
                inductive.append(alone)
            else:
                outcome = learner.evaluate(phi, state, episode, generator)
        outcomes.append(outcome)
        busy += time.perf_counter() - started
        facts.append(describe(sampled, index, learner))
        constants.append(learner.task.task_kind.constant_loss(episode.support_y, episode.query_y))
        done()
    summary = summarize_episodes(learner, split, facts, outcomes, busy / max(len(outcomes), 1))
    evaluation = _beside_constant(summary, learner.task, [one for one in constants if one is not None])
    return replace(evaluation, inductive=_inductive(evaluation, inductive)) if both else evaluation


def _inductive(evaluation: Evaluation, outcomes: Sequence[EpisodeOutcome]) -> InductiveScore:
    """Summarize the inductive outcomes of the episodes of a transductive evaluation."""
    metric = evaluation.metric
    scores = [(one.accuracies if metric == ACCURACY else one.losses)[-1] for one in outcomes]
    mean, *interval = mean_interval(scores, metric=metric)
    better, *between = compared(scores, evaluation.scores, metric)
    return InductiveScore(mean, (interval[0], interval[1]), better, (between[0], between[1]))


def compared(scores: Sequence[float], others: Sequence[float], metric: str) -> tuple[float, float, float]:
    """Return by how much scores are better than others of the same episodes, with the 95% interval of this mean."""
    sign = 1 if metric == ACCURACY else -1
    return paired_interval(scores, others, sign=sign)


def evaluate_trial(
    directory: Path,
    *,
    cache: Path,
    split: str = TEST,
    episodes: int = 600,
    seed: int | None = None,
    record: bool = True,
    sizes: Mapping[str, int] = MappingProxyType({}),
    trust_code: bool = False,
    inductive: bool = False,
) -> Evaluation:
    """Score what the trial in ``directory``, finished or not, has learned, on a split that did not choose it.

    Args:
        directory: The trial's.
        cache: Where task sources keep their prepared data.
        split: ``train``, ``validation`` or ``test``.
        episodes: How many.
        seed: Seed of the episodes; None takes the search's.
        record: Make test episodes rows of the trial's records; of the tests of one seed the longest is kept.
        sizes: The ``ways``, ``shots`` and ``queries`` of the episodes, where they are not the experiment's.
        trust_code: Whether a class that ``architecture.of`` names may be imported.
        inductive: Score it by the support set's statistics alone, as ``served`` has it; nothing is recorded then.

    Raises:
        BundleError: It is asked for as inductive, and is so already or cannot be.
        CheckpointError: The trial has left nothing to evaluate.
        LearnerError: The source's episodes have no such sizes, or the learner takes fewer classes.
        StorageError: The rows cannot be written.
    """
    config, knowledge = read_config(directory), load_knowledge(directory)
    changed = changed_sizes(config.tasks, sizes)
    config = replace(config, tasks=with_evaluation(config.tasks, changed))
    for note in knowledge.notes:
        _LOG.warning("%s", note)
    parts = assemble(config, cache=cache, seed=seed, start=parameters_of(knowledge), trust_code=trust_code)
    check_targets(read_task(directory / TASK_FILE), parts.source.shape, directory)
    device, seeds = parts.device, config.seeds
    at = at_ways(parts.learner, ways_of_split(parts.source, split), build_of(config))
    learner = served(at.learner, inductive=inductive)
    phi, state = device.place(knowledge.phi), at.state(knowledge.state.mapped(device.move), device)
    evaluation = evaluate_learner(
        learner, phi, state, parts.source, split, episodes, device=device, seeds=seeds, both=split == TEST
    )
    if record and split == TEST and not inductive:
        part = part_of_test(directory, config.seed if seed is None else seed, changed)
        if rows_of_test(part, knowledge.step) < len(evaluation.facts):
            batch = EpisodeBatch(TEST, knowledge.step, evaluation.facts, evaluation.outcomes, evaluation.seconds)
            write_part(part, parts.origin(config), [batch])
    return evaluation


def served(learner: Learner, *, inductive: bool) -> Learner:
    """Return the learner as a bundle serves it; raises BundleError if it cannot be made inductive."""
    if not inductive:
        return learner
    if (other := learner.inductive()) is not None:
        return other
    if learner.setting != TRANSDUCTIVE:
        raise BundleError(f"--inductive: this learner is {learner.setting} already; leave it out")
    raise BundleError(
        "--inductive: its prediction compares the queries with one another, so that none can be predicted on its own"
    )


def summarize_episodes(
    learner: Learner, split: str, facts: Sequence[EpisodeFacts], outcomes: Sequence[EpisodeOutcome], seconds: float
) -> Evaluation:
    """Summarize how a learner's episodes went; ``seconds`` is the time of one."""
    metric = learner.task.task_kind.metric
    curves = [one.accuracies if metric == "accuracy" else one.losses for one in outcomes]
    scores = tuple(curve[-1] for curve in curves)
    mean, low, high = mean_interval(scores, metric=metric)
    return Evaluation(
        metric=metric,
        mean=mean,
        interval=(low, high),
        episodes=len(scores),
        per_step=tuple(
            StepScore(step, *mean_interval(at, metric=metric)) for step, at in enumerate(zip(*curves, strict=True))
        ),
        setting=learner.setting,
        batch_norm=learner.batch_norm,
        split=split,
        scores=scores,
        seconds=seconds,
        losses=tuple(one.losses[-1] for one in outcomes),
        facts=tuple(facts),
        outcomes=tuple(outcomes),
        curve=PRESENTATIONS if learner.task.task_kind.in_order else INNER_STEPS,
    )


def _beside_constant(evaluation: Evaluation, task: TaskShape, constants: Sequence[float]) -> Evaluation:
    """Add the loss of predicting a constant, and the score in the units of a standardized target."""
    constant = mean_interval(constants)[0] if constants else None
    units = None
    if len(task.target_deviation) == 1 and evaluation.metric == "loss" and math.isfinite(evaluation.mean):
        units = in_units(evaluation.mean, evaluation.interval, constant, task.target_deviation[0])
    return replace(evaluation, constant=constant, units=units)


def _episodes(source: TaskSource, split: str) -> Iterator[SampledEpisode]:
    available = source.available(split)
    return (source.episode(split, index) for index in (count() if available is None else range(available)))


@dataclass(frozen=True)
class PairedDifference(Plain):
    """The mean difference on ``episodes`` pairs, of accuracy or of minus the loss, with its 95% interval."""

    mean: float
    interval: tuple[float, float]
    episodes: int


def paired_difference(directory: Path, other: Path) -> PairedDifference | None:
    """Return by how much the trial in ``directory`` is better than ``other`` (above 0) on the same test episodes.

    None if their test episodes are not the same ones, or fewer than two.
    """
    ours, theirs = test_scores(directory), test_scores(other)
    if ours.keys() != theirs.keys() or len(ours) < 2:
        return None
    mean, low, high = paired_interval(list(ours.values()), [theirs[episode] for episode in ours])
    return PairedDifference(mean, (low, high), len(ours))
