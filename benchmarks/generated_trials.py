"""Trials whose losses and accuracies come from a formula, recorded by the code that records real ones.

A generated trial is the package's own ``Trial`` without the arithmetic of an outer step and of a validation: its
episodes are those of the source, and its reports, checkpoints, episode parts and descriptions are written as ever.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaloom.learners.base import EpisodeOutcome, Learner, MetaStep
from metaloom.learners.outer import OuterConfig
from metaloom.learners.solvers.base import TRANSDUCTIVE
from metaloom.workers.assembly import Assembly, learner_of
from metaloom.workers.data.base import Source
from metaloom.workers.device import prepare_device
from metaloom.workers.failures import check_finite
from metaloom.workers.progress import Tally
from metaloom.workers.records import names
from metaloom.workers.records.episode_files import EpisodeBatch, EpisodeFacts
from metaloom.workers.records.results import InductiveScore, mean_interval
from metaloom.workers.records.trial import Report, TrialConfig
from metaloom.workers.scoring import Evaluation, compared, summarize_episodes
from metaloom.workers.trial.runner import Trial
from metaloom.workers.ways import describe

Numbers = NDArray[np.float64]
CHANCE, QUERIES = 0.2, 25  # of 5-way episodes with 5 queries a class
METHODS = {"prototypical": 0.78, "maml": 0.72, "anil": 0.69, "fine_tuning": 0.52}
FAILING = 0.03  # of the trials diverge
SECONDS_OF_AN_EPISODE = {"prototypical": 0.02, "maml": 0.05, "anil": 0.03}
SHARES = {names.SAMPLING_SECONDS: 0.04, names.INNER_SECONDS: 0.72, names.OUTER_SECONDS: 0.22}  # of an outer step


@dataclass
class Episodes:
    """The episodes of a source, described once for all trials, each with its difficulty."""

    source: Source
    _facts: dict[str, list[EpisodeFacts]] = field(default_factory=dict)
    _difficulty: dict[str, Numbers] = field(default_factory=dict)

    def of(self, split: str, count: int, learner: Learner) -> tuple[Sequence[EpisodeFacts], Numbers]:
        """Return the first episodes of a split, and by how much each lowers the accuracy."""
        known = self._facts.setdefault(split, [])
        if len(known) < count:
            numbers = range(len(known), max(count, 2 * len(known)))
            known += [describe(self.source.episode(split, n), n, learner) for n in numbers]
            by_class = np.random.default_rng(7).normal(0.0, 0.12, self.source.shape.classes + 1000)
            self._difficulty[split] = np.array([by_class[list(one.class_ids)].mean() for one in known])
        return known, self._difficulty[split]


def worth(config: TrialConfig) -> float:
    """Return the accuracy that a configuration approaches: smooth in its knobs, best at rates that papers use."""
    method = str(config.learner["method"])
    value = METHODS.get(method, 0.6)
    update = config.learner.get("update") or {}
    if isinstance(rate := update.get("rate"), float):
        value -= 0.08 * math.log10(rate / 0.3) ** 2
    value += 0.02 * min(int(update.get("steps", 1)), 4)
    value -= 0.09 * math.log10(float(config.outer["rate"]) / 0.004) ** 2
    value -= 0.01 * abs(math.log10(float(config.outer["clip"] or 100.0) / 8.0))
    prediction = config.learner.get("prediction") or {}
    value -= 0.05 * (prediction.get("metric") == "cosine")
    own = np.random.default_rng(_seed(config.learner, config.outer)).normal(0.0, 0.012)
    return float(min(max(value + own, CHANCE), 0.97))


def outcomes(chances: Numbers, steps: int, draws: np.random.Generator, *, curve: bool) -> list[EpisodeOutcome]:
    """Return how episodes of such chances of a right answer went; with ``curve`` also after each inner step."""
    noisy = np.clip(chances + draws.normal(0.0, 0.09, len(chances)), 0.02, 1.0)
    right = np.rint(noisy * QUERIES) / QUERIES
    losses = 0.15 - 1.05 * np.log(noisy) + draws.gamma(2.0, 0.03, len(chances))
    if not curve:
        unknown = (math.nan,) * steps  # as in training, where the last step alone is measured
        pairs = zip(losses.tolist(), right.tolist(), strict=True)
        return [EpisodeOutcome((*unknown, loss), (*unknown, one)) for loss, one in pairs]
    far = 1.0 - np.exp(-1.6 * np.arange(steps + 1))
    far = far / far[-1] if steps else np.ones(1)
    rising = CHANCE + np.outer(right - CHANCE, far)
    falling = np.log(5.0) + np.outer(losses - np.log(5.0), far)
    correct = np.rint(rising * QUERIES) / QUERIES
    both = zip(falling.tolist(), correct.tolist(), strict=True)
    return [EpisodeOutcome(tuple(one), tuple(other)) for one, other in both]


def _seed(*parts: Any) -> int:
    text = json.dumps(parts, sort_keys=True, default=str)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def inner_steps(config: Mapping[str, Any]) -> int:
    """Return the inner steps of training."""
    return int((config.get("update") or {}).get("steps", 0))


class GeneratedTrial(Trial):
    """A trial by formula; see the module."""

    def __init__(self, config: TrialConfig, directory: Path, *, episodes: Episodes, cache: Path) -> None:
        self.episodes, self._draws = episodes, np.random.default_rng()
        outer = OuterConfig.of(config.outer)
        learner = learner_of(config, episodes.source.shape)
        device = prepare_device(config.resources, outer.precision)
        parts = Assembly(episodes.source, learner, device, outer)
        self.origin = parts.origin(config)
        super().__init__(config, directory, cache=cache, assembly=parts)
        self.worth, self.steps = worth(config), inner_steps(config.learner)
        fate = np.random.default_rng(_seed(config.seed, config.trial, "fate"))
        share = fate.uniform(0.05, 0.6)
        self.fails_at = int(share * self.outer.steps) if config.trial >= 0 and fate.random() < FAILING else -1
        usual = SECONDS_OF_AN_EPISODE.get(str(config.learner["method"]), 0.01) * (1 + 0.6 * max(self.steps - 1, 0))
        self.seconds_of_an_episode = usual * float(fate.lognormal(0.0, 0.15))

    @property
    def next_seconds(self) -> float:
        """The time to the next report."""
        every = self.outer.validate_every * self.outer.meta_batch + self.outer.validation_episodes
        return every * self.seconds_of_an_episode

    def tested(self, episodes: int) -> Evaluation:
        """Return a test of what the trial has learned."""
        found = self._evaluated(names.TEST, episodes)
        if found.setting != TRANSDUCTIVE:
            return found
        alone = [max(score - 0.04, 0.0) for score in found.scores]
        (mean, *ends), (better, *between) = (
            mean_interval(alone, metric=found.metric),
            compared(alone, found.scores, found.metric),
        )
        return replace(found, inductive=InductiveScore(mean, (ends[0], ends[1]), better, (between[0], between[1])))

    def _chance(self, step: int) -> float:
        """Return the mean accuracy after some outer steps."""
        if not self.outer.steps or self._last_step() == 0:
            return self.worth
        return CHANCE + (self.worth - CHANCE) * (1.0 - math.exp(-5.0 * step / self.outer.steps))

    def _train(self, end: int) -> Tally:
        tally, batch, start = Tally(), self.outer.meta_batch, self.step
        self._draws = np.random.default_rng(_seed(self.config.seed, self.config.trial, start))
        count = (end - start) * batch
        if not count:
            return tally
        if start <= self.fails_at < end:
            check_finite(MetaStep(math.nan, {}, ()), math.nan, self.config, self.fails_at)
        facts, difficulty = self.episodes.of(names.TRAIN, end * batch, self.learner)
        chances = self._chance(start) + difficulty[start * batch : end * batch]
        played = outcomes(chances, self.steps, self._draws, curve=False)
        norms = self._draws.lognormal(0.5 - 1.5 * start / self.outer.steps, 0.3, end - start).tolist()
        for index, norm in enumerate(norms):
            first = index * batch
            mine = slice((start + index) * batch, (start + index + 1) * batch)
            taken = EpisodeBatch(
                names.TRAIN,
                start + index,
                facts[mine],
                played[first : first + batch],
                self.seconds_of_an_episode,
                norm,
            )
            self._recorder.add(taken)
        self._progress.step = end
        self._progress.episodes += count
        for part, share in SHARES.items():
            self._add_cost(part, share * count * self.seconds_of_an_episode)
        tally.values = {
            names.TRAIN_LOSS: [one.losses[-1] for one in played],
            names.TRAIN_ACCURACY: [one.accuracies[-1] for one in played],
            names.HYPERGRADIENT_NORM: norms,
        }
        return tally

    def _validate(self) -> Evaluation:
        found = self._evaluated(names.VALIDATION, self.outer.validation_episodes)
        batch = EpisodeBatch(names.VALIDATION, self.step, found.facts, found.outcomes, found.seconds)
        self._recorder.add(batch)
        self._progress.episodes += found.episodes
        self._add_cost(names.VALIDATING_SECONDS, found.episodes * self.seconds_of_an_episode)
        return found

    def _evaluated(self, split: str, count: int) -> Evaluation:
        facts, difficulty = self.episodes.of(split, count, self.learner)
        chances = self._chance(self.step) + difficulty[:count]
        played = outcomes(chances, self.learner.evaluation_steps, self._draws, curve=True)
        return summarize_episodes(self.learner, split, facts[:count], played, self.seconds_of_an_episode)

    def _add_cost(self, part: str, seconds: float) -> None:
        self._progress.costs[part] = self._progress.costs.get(part, 0.0) + seconds

    def _report(self, tally: Tally, evaluation: Evaluation, seconds: float) -> Report:
        return super()._report(tally, evaluation, self.next_seconds if self.step else seconds)
