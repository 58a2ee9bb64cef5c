"""Plays recorded episodes again, for pages that show them: the examples, and each inner step's predictions.

An episode is a pure function of its source's seed, its split and its number, so that it is drawn again and not kept. It
is played with what the trial has learned by now. The record says with which samples it was played: whether they are the
same is part of the answer.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metaloom.learners.base import Answers, Learner
from metaloom.learners.errors import BadInput
from metaloom.learners.state import LearnerState
from metaloom.learners.tensors import Tensors
from metaloom.search_spaces.sections.few_shot import changed_sizes, with_evaluation
from metaloom.workers.adapted import in_target_units
from metaloom.workers.assembly import Assembly, assemble
from metaloom.workers.bundle_reading import check_targets, parameters_of, read_task
from metaloom.workers.checkpoint import load_knowledge
from metaloom.workers.data.base import SampledEpisode
from metaloom.workers.example_views import ExampleViews
from metaloom.workers.records import names
from metaloom.workers.records.trial import TrialConfig, read_config
from metaloom.workers.seeds import derive_generator
from metaloom.workers.ways import at_ways, build_of, ways_of

MOST_SHOWN = 100  # examples of the support set, and of the query set
CLOSE = 1e-6  # between a score of the predictions and that of the evaluation
_TEST_PART = re.compile(r"part-test-(\d+)((?:-\d+-[a-z]+)*)\.parquet")


@dataclass(frozen=True)
class RecordedEpisode:
    """What identifies an episode in a record.

    Attributes:
        part: The name of its file, which holds the seed and the sizes of a test.
        phase: Its split.
        episode: Its number.
        seed: The seed it was drawn with.
        class_ids: Its classes.
        sample_ids: Its samples.
    """

    part: str
    phase: str
    episode: int
    seed: int
    class_ids: tuple[int, ...]
    sample_ids: tuple[int, ...]

    def is_of(self, sampled: SampledEpisode) -> bool:
        """Whether it has the seed, the classes and the samples of the record."""
        return (self.seed, self.class_ids, self.sample_ids) == (sampled.seed, sampled.class_ids, sampled.sample_ids)


@dataclass(frozen=True)
class Player:
    """A trial that plays episodes: what it has learned, on the CPU."""

    config: TrialConfig
    parts: Assembly
    phi: Tensors
    state: LearnerState
    step: int

    @classmethod
    def of(cls, directory: Path, *, cache: Path, part: str = "", trust_code: bool = False) -> "Player":
        """Open a trial for the episodes of a part; raises BadInput, or CheckpointError if it has learned nothing."""
        config, knowledge = read_config(directory), load_knowledge(directory)
        seed, sizes = of_part(part)
        changed = changed_sizes(config.tasks, sizes)
        tasks, resources = with_evaluation(config.tasks, changed), {**config.resources, "device": "cpu"}
        config = TrialConfig(**{**vars(config), "tasks": tasks, "resources": resources})
        parts = assemble(config, cache=cache, seed=seed, start=parameters_of(knowledge), trust_code=trust_code)
        check_targets(read_task(directory / names.TASK_FILE), parts.source.shape, directory)
        return cls(config, parts, knowledge.phi, knowledge.state, knowledge.step)

    def draw(self, phase: str, episode: int) -> SampledEpisode:
        """Draw an episode of a split by its recorded number."""
        number = episode + (self.config.first_episode if phase == names.TRAIN else 0)
        available = self.parts.source.available(phase)
        return self.parts.source.episode(phase, number if available is None else number % available)

    def play(self, sampled: SampledEpisode) -> "Played":
        """Adapt to an episode, score it, and predict its queries after each inner step."""
        device, task = self.parts.device, self.parts.learner.task
        at = at_ways(self.parts.learner, ways_of(sampled, task), build_of(self.config, trust_code=False))
        phi, state = device.place(self.phi), at.state(self.state.mapped(device.move), device)
        episode = sampled.episode.to(device.torch, device.dtype)
        learner = at.learner
        with device.precision():
            outcome = learner.evaluate(phi, state, episode, self._generator(sampled))
            shown = _answers_queries(learner)
            answers = learner.predictions(phi, state, episode, self._generator(sampled)) if shown else ()
        own = [_own(one, sampled) for one in answers] if task.task_kind.has_classes else list(answers)
        scores = outcome.accuracies or outcome.losses
        if not _agree(learner, own, sampled, scores):
            own = []
        return Played(outcome.losses, outcome.accuracies, tuple(own), self.step)

    def _generator(self, sampled: SampledEpisode) -> torch.Generator:
        return derive_generator(sampled.seed, "evaluate", version=self.config.seeds)


@dataclass(frozen=True)
class Played:
    """An episode that was played.

    Attributes:
        losses: Before adaptation and after each inner step.
        accuracies: Likewise; empty where there are none.
        predictions: Of the queries, likewise: probabilities of the episode's classes, or targets; empty where the
            learner gives none for single queries.
        step: Outer steps that its knowledge has learned in.
    """

    losses: tuple[float, ...]
    accuracies: tuple[float, ...]
    predictions: Answers
    step: int


def of_part(part: str) -> tuple[int | None, dict[str, int]]:
    """Return the seed and the sizes that the name of a test's part holds; None and nothing for any other part."""
    match = _TEST_PART.fullmatch(part)
    if match is None:
        return None, {}
    pairs = re.findall(r"-(\d+)-([a-z]+)", match[2])
    return int(match[1]), {name: int(number) for number, name in pairs}


def _answers_queries(learner: Learner) -> bool:
    """Whether a learner has predictions for single queries, which do not depend on the labels of earlier ones."""
    kind = learner.task.task_kind
    return kind.labelled and not kind.in_order and not learner.task.problem


def _own(answer: Tensor, sampled: SampledEpisode) -> Tensor:
    """Return the probabilities of the episode's own classes, where the head has others too."""
    ways = len(sampled.class_ids)
    return answer[:, :ways] if ways and ways < answer.shape[1] else answer


def _agree(learner: Learner, answers: list[Tensor], sampled: SampledEpisode, scores: tuple[float, ...]) -> bool:
    """Return whether the predictions have the scores of the evaluation, so that they are what was scored."""
    kind, wanted = learner.task.task_kind, sampled.episode.query_y
    if len(answers) != len(scores):
        return False
    if kind.has_classes:
        own = [float((one.argmax(1).cpu() == wanted).double().mean()) for one in answers]
    else:
        own = [kind.loss_of_answers(one.cpu(), wanted) for one in answers]
    return all(abs(mine - score) <= CLOSE * max(1.0, abs(score)) for mine, score in zip(own, scores, strict=True))


def replayed(request: Mapping[str, Any]) -> dict[str, Any]:
    """Play one episode under some trials, and return what a page shows of it, as JSON values.

    ``request`` has the record (``RecordedEpisode``), the trials' directories, and the folder of prepared data.
    """
    record = recorded(request["record"])
    cache, document = Path(request["cache"]), dict[str, Any]()
    for number, directory in request["trials"].items():
        player = Player.of(Path(directory), cache=cache, part=record.part)
        sampled = player.draw(record.phase, record.episode)
        played = player.play(sampled)
        views = ExampleViews(player.parts.source, player.config.tasks, sampled)
        document.setdefault("episode", {**views.document(MOST_SHOWN), "same": record.is_of(sampled)})
        targets = [in_target_units(one, player.parts.learner.task) for one in played.predictions]
        answers = played.predictions if views.has_classes else targets
        document.setdefault("trials", {})[number] = {
            "losses": played.losses,
            "accuracies": played.accuracies,
            "step": played.step,
            "same": record.is_of(sampled),
            "predictions": [[[round(v, 6) for v in row] for row in one[:MOST_SHOWN].tolist()] for one in answers],
        }
    return document


def recorded(values: Mapping[str, Any]) -> RecordedEpisode:
    """Read a record from JSON values; raises BadInput."""
    try:
        classes, samples = (tuple(map(int, values[name])) for name in ("class_ids", "sample_ids"))
        part, phase = str(values["part"]), str(values["phase"])
        return RecordedEpisode(part, phase, int(values["episode"]), int(values["seed"]), classes, samples)
    except (KeyError, TypeError, ValueError) as problem:
        raise BadInput(f"no record of an episode: {problem!r}") from problem


def confused(request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Play the first episodes of a split, and give after each how far it is, and at the end who is taken for whom."""
    from metaloom.workers.confusions import Confusions

    player = Player.of(Path(request["trial"]), cache=Path(request["cache"]))
    source, phase, count = player.parts.source, str(request["phase"]), int(request["episodes"])
    available = source.available(phase)
    count = count if available is None else min(count, available)
    found = Confusions()
    for number in range(count):
        sampled = player.draw(phase, number)
        played = player.play(sampled)
        if not played.predictions or not player.parts.learner.task.task_kind.has_classes:
            raise BadInput("its episodes have no classes, or its learner gives no predictions for single queries")
        found.add(sampled, played.predictions[-1])
        yield {"done": number + 1, "of": count}
    yield {"result": {**found.document(ExampleViews.namer(source)), "step": player.step}}
