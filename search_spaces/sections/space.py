"""What an experiment's sections mean together: trees of knobs, with each method's defaults filled in."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from metaloom.learners import Recipe
from metaloom.learners.outer import HYPERGRADIENT, OLD_NAMES
from metaloom.search_spaces.errors import Problems
from metaloom.search_spaces.reading.nodes import (
    Alternatives,
    Fixed,
    LearnedKnob,
    Node,
    Place,
    Searched,
    Section,
    Several,
    Spelling,
)
from metaloom.search_spaces.sections.learner_space import methods, parse_learner, per_method, takes_estimator
from metaloom.search_spaces.sections.loops import parse_inner, parse_outer, parse_tasks, task_kind


@dataclass(frozen=True)
class Space:
    """The trees of knobs of the four sections.

    Attributes:
        tasks: The task source and its settings.
        learner: The method's slots, or a choice among methods.
        inner: For each method that may be chosen, the inner section over its recipe's defaults.
        outer: The same for the outer section.
    """

    tasks: Node
    learner: Node
    inner: Mapping[str, Node]
    outer: Mapping[str, Node]

    def roots(self) -> tuple[Node, ...]:
        """Return every tree."""
        return (self.tasks, self.learner, *self.inner.values(), *self.outer.values())


def parse_space(document: Mapping[str, Any], problems: Problems, *, stored: bool = False) -> Space:
    """Parse the four sections; where problems are noted, stand-ins are in the trees.

    Args:
        document: The raw experiment; a section that is absent is taken as empty.
        problems: Collects what is wrong.
        stored: See ``parse_learner``.
    """
    places = {name: Place((name,), name, problems) for name in ("tasks", "learner", "inner", "outer")}
    tasks: Node = Fixed(None)
    learner: Node = Fixed(None)
    if "tasks" in document:
        tasks = parse_tasks(document["tasks"], places["tasks"])
    if "learner" in document:
        kind = task_kind(tasks)
        learner = parse_learner(document["learner"], places["learner"], kind=kind, stored=stored)
    inner, outer = ({} if (given := document.get(name)) is None else given for name in ("inner", "outer"))
    outer_of = dict.fromkeys(methods(learner), outer) if stored else _outer_by_method(learner, outer)

    def inner_of(_: str, recipe: Recipe) -> Node:
        return parse_inner(inner, recipe.inner, places["inner"])

    def outer_under(method: str, recipe: Recipe) -> Node:
        return parse_outer(outer_of[method], recipe.outer, places["outer"])

    by_method = (per_method(learner, parse, stored=stored) for parse in (inner_of, outer_under))
    return Space(tasks, learner, *by_method)


def _outer_by_method(learner: Node, outer: Any) -> dict[str, Any]:
    """Give each method the outer section; without an estimator that its solver does not take and another's does.

    So one search compares methods with an estimator of their own and methods without. Where no method takes the
    estimator, each keeps it and is refused.
    """
    names = methods(learner)
    estimator = outer.get(HYPERGRADIENT) if isinstance(outer, Mapping) else None
    fixed = estimator.get("kind") if isinstance(estimator, Mapping) else estimator
    able = [name for name in names if not isinstance(fixed, str) or takes_estimator(learner, name, fixed)] or names
    plain = {name: value for name, value in outer.items() if name != HYPERGRADIENT} if len(able) < len(names) else outer
    return {name: outer if name in able else plain for name in names}


def describe(space: Space) -> Any:
    """Write the trees as JSON values, for a digest: what they mean, not where it was written."""
    return {
        "tasks": _described(space.tasks),
        "learner": _described(space.learner),
        "inner": {method: _described(node) for method, node in space.inner.items()},
        "outer": {method: _under_old_names(_described(node)) for method, node in space.outer.items()},
    }


def _under_old_names(outer: Any) -> Any:
    """Return an outer section as version 0.1 wrote it, so that a stored search has the digest that it began with."""
    old = {new: old for old, new in OLD_NAMES.items()}
    return {old.get(name, name): value for name, value in outer.items()} if isinstance(outer, dict) else outer


def _described(node: Node) -> Any:
    match node:
        case Fixed():
            return node.value
        case Searched():
            kind = type(node.domain).__name__
            return {"searched": node.name, kind: dataclasses.asdict(node.domain), "default": node.default}
        case Alternatives():
            options = {label: _described(option) for label, option in node.options.items()}
            return {"choice": node.name, "options": options, "default": node.default}
        case Spelling():
            return {"spelt": [_described(part) for part in node.parts], "separator": node.separator}
        case LearnedKnob():
            return {"learned": [_described(node.start), _described(node.per)]}
        case Section():
            return {name: _described(child) for name, child in node.fields.items()}
        case Several():
            return [_described(member) for member in node.members]
