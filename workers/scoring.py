"""What a learner is worth: mean and 95% interval over episodes, after each inner step."""

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

from metaloom.learners.base import EpisodeOutcome, Learner
from metaloom.learners.state import LearnerState
from metaloom.learners.tensors import Tensors
from metaloom.workers.assembly import assemble
from metaloom.workers.checkpoint import load_knowledge
from metaloom.workers.data.base import SampledEpisode, TaskSource
from metaloom.workers.device import CPU, Device
from metaloom.workers.pretrained import parameters_of
from metaloom.workers.records.episode_files import Drawn, Seen, rows_of_test, write_part
from metaloom.workers.records.names import SEEDS_VERSION, TEST, Z_95
from metaloom.workers.records.paths import part_of_test
from metaloom.workers.records.trial import read_config
from metaloom.workers.seeds import derive_generator

_LOG = logging.getLogger("metaloom.scoring")


@dataclass(frozen=True)
class Evaluation:
    """How a learner did on the episodes of a split.

    Attributes:
        metric: ``accuracy`` or ``loss``, as the kind of task is judged: what ``mean`` is of.
        mean: Over the episodes, after the last inner step.
        interval: 95% interval of the mean.
        episodes: Number of episodes.
        per_step: One ``{step, mean, low, high}`` before adaptation and after each inner step.
        setting: ``inductive`` or ``transductive``.
        batch_norm: Batch-norm mode, or ``none``.
        split: ``train``, ``validation`` or ``test``.
        scores: The metric of each episode.
        losses: The loss of each episode, after the last inner step.
        drawn: Which episodes these were.
        seconds: Time per episode.
        outcomes: How each went, step by step.
    """

    metric: str
    mean: float
    interval: tuple[float, float]
    episodes: int
    per_step: tuple[Mapping[str, float], ...]
    setting: str
    batch_norm: str
    split: str
    scores: tuple[float, ...]
    losses: tuple[float, ...]
    drawn: tuple[Drawn, ...]
    seconds: float
    outcomes: tuple[EpisodeOutcome, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the summary and the scores as JSON values; the episodes have their own records."""
        left_out = {"drawn", "outcomes", "losses"}
        document = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in left_out}
        document |= {
            "interval": list(self.interval),
            "per_step": [dict(one) for one in self.per_step],
            "scores": list(self.scores),
        }
        return document


def mean_interval(scores: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean and its 95% interval, 1.96 s / sqrt(n) to either side.

    ``s`` is the sample standard deviation (n - 1). One score has no interval: it is (mean, mean).
    The sums are exact before rounding, so that the order of the episodes does not matter.

    Raises:
        ValueError: There is no score.
    """
    count = len(scores)
    if not count:
        raise ValueError("no scores to take the mean of")
    if not all(map(math.isfinite, scores)):
        return math.nan, math.nan, math.nan
    mean = math.fsum(scores) / count
    if count == 1:
        return mean, mean, mean
    deviation = math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / (count - 1))
    half = Z_95 * deviation / math.sqrt(count)
    return mean, mean - half, mean + half


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
) -> Evaluation:
    """Adapt to the first ``episodes`` episodes of ``split`` and score their query sets.

    What an episode draws at random is drawn from the episode's own seed: the numbers
    do not depend on the trial, on the step, or on what was evaluated before.

    Args:
        learner: The learner.
        phi: Meta-knowledge, on ``device``.
        state: Inner state, on ``device``.
        source: Where episodes come from.
        split: ``train``, ``validation`` or ``test``.
        episodes: How many; fewer if the split has fewer distinct ones.
        device: Where to compute.
        seeds: Which derivation the generators have: the trial's.
    """
    drawn: list[Drawn] = []
    outcomes: list[EpisodeOutcome] = []
    busy = 0.0
    for index, sampled in enumerate(islice(draw(source, split), episodes)):
        episode = sampled.episode.to(device.torch, device.dtype)
        device.wait()
        started = time.perf_counter()
        generator = derive_generator(sampled.seed, "evaluate", version=seeds)
        with device.precision():
            outcomes.append(learner.evaluate(phi, state, episode, generator))
        busy += time.perf_counter() - started
        drawn.append(describe(sampled, index, learner))
    return summarize(learner, split, drawn, outcomes, busy / max(len(outcomes), 1))


def evaluate_trial(
    directory: Path,
    *,
    cache: Path,
    split: str = TEST,
    episodes: int = 600,
    seed: int | None = None,
    record: bool = True,
    trust_code: bool = False,
) -> Evaluation:
    """Score what a trial has learned, on a split it was not chosen by.

    Args:
        directory: The trial's; finished, stopped or still running.
        cache: Where task sources keep what they have made.
        split: ``train``, ``validation`` or ``test``.
        episodes: How many.
        seed: Seed of the episodes; None takes the search's.
        record: Whether test episodes become rows beside the trial's others, those that an earlier test has recorded
            among them: the rows of one seed are those of its longest test.
        trust_code: Whether a class that ``architecture.of`` names may be imported.

    Raises:
        CheckpointError: The trial has left nothing to evaluate.
        StorageError: The rows cannot be written.
    """
    config = read_config(directory)
    knowledge = load_knowledge(directory)
    for note in knowledge.notes:
        _LOG.warning("%s", note)
    parts = assemble(config, cache=cache, seed=seed, start=parameters_of(knowledge), trust_code=trust_code)
    phi, state = parts.device.place(knowledge.phi), knowledge.state.mapped(parts.device.move)
    evaluation = evaluate_learner(
        parts.learner, phi, state, parts.source, split, episodes, device=parts.device, seeds=config.seeds
    )
    if record and split == TEST:
        part = part_of_test(directory, config.seed if seed is None else seed)
        if rows_of_test(part, knowledge.step) < len(evaluation.drawn):
            seen = Seen(TEST, knowledge.step, evaluation.drawn, evaluation.outcomes, evaluation.seconds)
            write_part(part, parts.origin(config), [seen])
    return evaluation


def summarize(
    learner: Learner, split: str, drawn: Sequence[Drawn], outcomes: Sequence[EpisodeOutcome], seconds: float
) -> Evaluation:
    """Put the outcomes of a split's episodes together; raises ValueError if there are none."""
    metric = learner.task.task_kind.metric
    curves = [one.accuracies if metric == "accuracy" else one.losses for one in outcomes]
    steps = [mean_interval(at_step) for at_step in zip(*curves, strict=True)]
    scores = tuple(curve[-1] for curve in curves)
    mean, low, high = mean_interval(scores)
    return Evaluation(
        metric=metric,
        mean=mean,
        interval=(low, high),
        episodes=len(scores),
        per_step=tuple({"step": step, "mean": one[0], "low": one[1], "high": one[2]} for step, one in enumerate(steps)),
        setting=learner.setting,
        batch_norm=learner.batch_norm,
        split=split,
        scores=scores,
        losses=tuple(one.losses[-1] for one in outcomes),
        drawn=tuple(drawn),
        seconds=seconds,
        outcomes=tuple(outcomes),
    )


def draw(source: TaskSource, split: str) -> Iterator[SampledEpisode]:
    """Yield the episodes of a split in order; endless where the split is."""
    available = source.available(split)
    index = 0
    while available is None or index < available:
        yield source.episode(split, index)
        index += 1


def describe(sampled: SampledEpisode, index: int, learner: Learner) -> Drawn:
    """Say which episode it was, for its record."""
    episode = sampled.episode
    support, queries = len(episode.support_y), len(episode.query_y)
    ways = learner.task.outputs if learner.task.task_kind.has_classes else 0
    each = max(ways, 1)
    return Drawn(index, sampled.seed, sampled.class_ids, sampled.sample_ids, ways, support // each, queries // each)
