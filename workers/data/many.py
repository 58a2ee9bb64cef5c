"""Many data sets: each is a task or a group of tasks, and every episode is drawn from one of them.

The data set of a training episode is drawn by the weights,

    p_d = w_d n_d^by_size / sum_e w_e n_e^by_size,

with n_d the training examples of data set d. Where the episodes of all data sets have the same shapes, each episode of
an outer step draws its own data set; otherwise an outer step takes all of its episodes from one, so that they can be
computed together. Validation and test go through their data sets in turn: episode i is episode i // n of data set
i mod n, whatever the weights. A solver with parts of its own for each data set, such as a head, reads
``TaskShape.groups`` and an episode's ``class_ids`` (``TaskShape.group_of``).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from metaloom.learners.domains import Bounds, Int, Real
from metaloom.learners.episode import Episode, TaskShape, alike
from metaloom.learners.errors import LearnerError
from metaloom.search_spaces.sections.tasks import Fraction, TaskSettings
from metaloom.workers.data.agreement import Fit, fitting
from metaloom.workers.data.base import SOURCES, SampledEpisode, Source, check_split
from metaloom.workers.data.dividing import Divided, divided
from metaloom.workers.data.members import Member
from metaloom.workers.data.mixing import check_kinds, shape_of, starts_of
from metaloom.workers.data.streams import mixture_generator, outer_step_of
from metaloom.workers.durable import digest

Entries = tuple[Mapping[str, Any], ...]
Weights = tuple[Annotated[float, Real(0.0, 1.0, per=()), Bounds(at_least=0)], ...]
Ways = Annotated[int | tuple[Annotated[int, Bounds(at_least=2)], ...] | None, Int(2, 1000), Bounds(at_least=2)]
Shots = Annotated[int | tuple[Annotated[int, Bounds(at_least=0)], ...] | None, Int(1, 1000), Bounds(at_least=0)]
Queries = Annotated[int | None, Int(1, 1000)]
Side = Annotated[int | None, Int(4, 512, log=True), Bounds(at_least=1, at_most=4096)]


@dataclass(frozen=True)
class ManyTasks(TaskSettings):
    """Several data sets: every episode is drawn from one of them, so that one can meta-learn over data sets.

    Attributes:
        sources: The data sets, each a tasks section. Where a text setting of a section is a list, such as
            `path: [a.npz, b.npz]`, the section stands for one data set for each of its texts.
        validation: The data sets of validation, likewise; null takes the validation classes of `sources`. With `test`
            too, `sources` are trained on as a whole.
        test: The data sets of the test, likewise; null takes the test classes of `sources`.
        weights: How often a training episode is drawn from each section of `sources`, relative to the others; the data
            sets of one section share its weight. Each is a number or a search. Null draws from all data sets equally.
        by_size: The power of its number of training examples that a data set's weight is multiplied by: 0 ignores
            sizes, 1 draws in proportion to them.
        validation_fraction: Instead of `validation`: the fraction of the data sets that validation takes as a whole.
        test_fraction: Instead of `test`, likewise.
        ways: The ways of all data sets; null leaves each its own.
        shots: Likewise.
        queries: Likewise.
        evaluation: Likewise, the sizes of validation and test.
        size: Images of all data sets are resized to size x size; null refuses images of several sizes.
        grey: Images get a single channel.
    """

    sources: Entries
    validation: Entries | None = None
    test: Entries | None = None
    weights: Weights | None = None
    by_size: Annotated[float, Real(0.0, 1.0, per=()), Bounds(at_least=0)] = 0.0
    validation_fraction: Fraction = 0.0
    test_fraction: Fraction = 0.0
    ways: Ways = None
    shots: Shots = None
    queries: Queries = None
    evaluation: Mapping[str, Any] | None = None
    size: Side = None
    grey: bool = False

    members: ClassVar[tuple[str, ...]] = ("sources", "validation", "test")
    weighed: ClassVar[str] = "weights"
    shared: ClassVar[tuple[str, ...]] = ("ways", "shots", "queries", "evaluation")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.members:
            if getattr(self, name) is not None and not getattr(self, name):
                raise LearnerError(f"tasks.{name}: got an empty list; name at least one data set")
        for name in ("validation", "test"):
            if getattr(self, name) is not None and getattr(self, f"{name}_fraction"):
                raise LearnerError(f"tasks.{name}_fraction: tasks.{name} lists its data sets; remove one of both")
        if bool(self.validation_fraction) != bool(self.test_fraction) and self.validation is self.test is None:
            raise LearnerError(
                "tasks.validation_fraction: tasks.test_fraction holds out whole data sets too, or neither does: give "
                "both above 0, or lists"
            )


@SOURCES.register("many")
class Many(Source):
    """Episodes of several data sets.

    Args:
        sets: Which data sets are trained on, and which are held out.
        config: The settings.
        seed: Of the episodes.

    Attributes:
        members: All data sets.
        of_split: For each split, the places in ``members`` of its data sets.
        shares: How often each training data set is drawn, [training data sets].
        mixes: Whether each episode of an outer step draws its own data set.
    """

    name = "many"
    Config = ManyTasks

    def __init__(self, sets: Divided, config: ManyTasks, *, seed: int) -> None:
        self.config, self.seed = config, seed
        self.members: Sequence[Member] = sets.members
        self.of_split: Mapping[str, Sequence[int]] = sets.of_split
        check_kinds(self.members)
        train = self.of_split["train"]
        self.shares: NDArray[np.float64] = sets.shares(config.by_size)
        names, shapes = [one.name for one in self.members], [one.source.shape for one in self.members]
        made = fitting(names, shapes, size=config.size, grey=config.grey)
        self._fits = [made.of(shape) for shape in shapes]
        first = [self.members[place].source.episode("train", 0).episode for place in train]
        varies = any(shapes[place].varying for place in train)
        self.mixes = not varies and alike([_fitted(one, self._fits[at]) for one, at in zip(first, train, strict=True)])
        self.shape, told = shape_of(self.members, self.of_split, made, varying=not self.mixes)
        self._starts = starts_of(self.members, self.of_split)
        own = (f"{one.name}: {note}" for one in self.members for note in one.source.notes)
        self.notes = (*sets.told, *made.told, *told, *own)
        digests = [[one.name, one.source.digest] for one in self.members]
        self.digest = digest(json.dumps(digests).encode())[:16] if any(one for _, one in digests) else ""
        self._meta_batch = 1

    @classmethod
    def open(cls, config: ManyTasks, *, seed: int, cache: Path) -> Self:
        """Open every data set."""
        return cls(divided(config, seed=seed, cache=cache), config, seed=seed)

    @classmethod
    def brightest_of(cls, shape: TaskShape, settings: Mapping[str, Any]) -> float:
        """Return that of its data sets, where it is the same."""
        found = {SOURCES[one["source"]].brightest_of(shape, one) for one in _sections(settings)}
        return found.pop() if len(found) == 1 else 0.0

    @property
    def meta_batch(self) -> int:
        """Training episodes of an outer step, of every data set too."""
        return self._meta_batch

    @meta_batch.setter
    def meta_batch(self, count: int) -> None:
        self._meta_batch = count
        for one in self.members:
            one.source.meta_batch = count

    def place_of(self, split: str, index: int) -> tuple[int, int]:
        """Return which data set an episode is of, by its place in ``members``, and its number there."""
        places = self.of_split[split]
        if split != "train":
            return places[index % len(places)], index // len(places)
        draw = index if self.mixes else outer_step_of(index, self.meta_batch)
        chosen = int(np.searchsorted(np.cumsum(self.shares), mixture_generator(self.seed, split, draw).random()))
        return places[min(chosen, len(places) - 1)], index

    def episode(self, split: str, index: int) -> SampledEpisode:
        """Draw a data set, and an episode of it, whose ids are numbered through all data sets."""
        check_split(split, index)
        place, number = self.place_of(split, index)
        member, starts = self.members[place], self._starts[place]
        drawn = member.source.episode(split, number)
        episode = _fitted(drawn.episode, self._fits[place])
        if episode.class_ids is not None:
            episode = replace(episode, class_ids=episode.class_ids + starts.within[split])
        classes = tuple(starts.classes + starts.stride * one for one in drawn.class_ids)
        return SampledEpisode(
            episode, drawn.seed, classes, tuple(starts.examples + one for one in drawn.sample_ids), member.name
        )

    def as_trained(self, task: TaskShape) -> Source:
        """Return itself: each data set keeps the numbers that its own examples gave."""
        return self


def _sections(settings: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [one for name in ManyTasks.members for one in settings.get(name) or () if one.get("source") in SOURCES]


def _fitted(episode: Episode, fit: Fit | None) -> Episode:
    if fit is None:
        return episode
    support = episode.support
    loose: Tensor | None = None if support.unlabelled is None else fit(support.unlabelled)
    return replace(episode, support=replace(support, x=fit(support.x), unlabelled=loose), query_x=fit(episode.query_x))
