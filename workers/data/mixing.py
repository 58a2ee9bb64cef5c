"""What the episodes of several data sets look like together, and how their classes and examples are numbered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from metaloom.learners.episode import TaskShape
from metaloom.workers.data.agreement import Fitting
from metaloom.workers.data.base import SPLITS, DataError
from metaloom.workers.data.members import Member

# facts of a task that data sets must share, with what they are called
SHARED = {
    "kind": "kind of task",
    "environment": "environment",
    "problem": "problem",
    "class_features": "description of the classes",
    "columns": "encoding of the columns",
}
# facts that are kept where all data sets have the same ones
KEPT = ("features", "mean", "deviation", "target_mean", "target_deviation")


@dataclass(frozen=True)
class Starts:
    """Where the numbers of a data set begin.

    Attributes:
        classes: Of its class ids among those of all data sets; its ids are ``stride`` apart.
        examples: Of its sample ids, likewise.
        within: Of its classes among those of a split.
    """

    classes: int
    stride: int
    examples: int
    within: Mapping[str, int]


def starts_of(members: Sequence[Member], of_split: Mapping[str, Sequence[int]]) -> list[Starts]:
    """Number the classes and examples of data sets one after another; those without end share the numbers after."""
    endless = [place for place, one in enumerate(members) if one.classes is None]
    classes = examples = 0
    within = dict.fromkeys(SPLITS, 0)
    found = []
    for place, one in enumerate(members):
        found.append(Starts(classes, 1, examples, dict(within)))
        classes, examples = classes + (one.classes or 0), examples + (one.examples or 0)
        for split in SPLITS:
            within[split] += _classes_in(one, split) if place in of_split[split] else 0
    for turn, place in enumerate(endless):
        found[place] = replace(found[place], classes=classes + turn, stride=len(endless))
    return found


def _classes_in(member: Member, split: str) -> int:
    ends = getattr(getattr(member.source, "of", member.source), "table", None)
    if ends is None:
        return 0
    first, end = ends.ends[split]
    return int(end - first)


def check_kinds(members: Sequence[Member]) -> None:
    """Refuse data sets whose tasks differ in more than their examples; raises DataError."""
    shapes = [one.source.shape for one in members]
    for name, noun in SHARED.items():
        _check_same(members, [getattr(one, name) for one in shapes], noun, named=name in ("kind", "environment"))
    if not shapes[0].task_kind.has_classes:
        _check_same(members, [one.outputs for one in shapes], "number of targets", named=True)


def shape_of(
    members: Sequence[Member], of_split: Mapping[str, Sequence[int]], made: Fitting, *, varying: bool
) -> tuple[TaskShape, tuple[str, ...]]:
    """Return the shape of all episodes together, and what to tell; raises DataError where held-out ways differ.

    Args:
        members: All data sets.
        of_split: The places of those of each split.
        made: How their inputs are made to agree.
        varying: Whether the sizes of episodes differ from one outer step to the next.
    """
    shapes, train = [one.source.shape for one in members], of_split["train"]
    kind = shapes[0].task_kind
    for split in ("validation", "test") if kind.has_classes else ():
        _check_ways(members, of_split[split], split)
    classes = [shapes[place].classes for place in train]
    same, told = dict[str, Any](), list[str]()
    for name in KEPT:
        values = {getattr(one, name) for one in shapes}
        same[name] = values.pop() if len(values) == 1 else ()
        if values and name == "mean":
            told.append("each data set is standardized by its own examples; those of a new task are taken as they are")
    shape = TaskShape(
        shapes[0].kind,
        made.inputs,
        max(shapes[place].outputs for place in train),
        sum(classes),
        environment=shapes[0].environment,
        problem=shapes[0].problem,
        columns=shapes[0].columns,
        class_features=shapes[0].class_features,
        varying=varying,
        unlabelled=any(one.unlabelled for one in shapes),
        observed=made.observed,
        groups=_groups(shapes, train) if kind.has_classes else (),
        **same,
    )
    return shape, tuple(told)


def _groups(shapes: Sequence[TaskShape], train: Sequence[int]) -> tuple[int, ...]:
    """Return the training classes of each data set; a source that has several itself brings those of each."""
    return tuple(size for place in train for size in shapes[place].groups or (shapes[place].classes,))


def _check_same(members: Sequence[Member], values: Sequence[Any], noun: str, *, named: bool) -> None:
    for one, value in zip(members, values, strict=True):
        if value != values[0]:
            first, this = (f" ({shown})" if named else "" for shown in (values[0] or "none", value or "none"))
            raise DataError(
                f"{one.place}: {one.name} has another {noun}{this} than {members[0].name}{first}; data sets are mixed "
                "whose tasks are of one kind"
            )


def _check_ways(members: Sequence[Member], places: Sequence[int], split: str) -> None:
    """Refuse held-out episodes of several numbers of ways, which one learner is asked to solve."""
    ways = {place: len(members[place].source.episode(split, 0).class_ids) for place in places}
    least, most = (pick(ways, key=lambda place: ways[place]) for pick in (min, max))
    if ways[least] != ways[most]:
        raise DataError(
            f"tasks.evaluation: {split} episodes of {members[most].name} have {ways[most]} ways and those of "
            f"{members[least].name} {ways[least]}; give all the same: evaluation: {{ways: {ways[least]}}}"
        )
