"""The learner section: a method's recipe under the user's values, slot by slot; methods may be searched."""

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from metaloom.learners import METHODS, SLOTS, Recipe
from metaloom.learners.errors import shown, unknown
from metaloom.learners.fields import MISSING
from metaloom.learners.plugins import unknown_or_absent
from metaloom.learners.solvers.base import DEFAULT_SOLVER, SOLVERS
from metaloom.learners.solvers.rules import not_read
from metaloom.learners.task_kinds import CLASSIFICATION, TaskKind
from metaloom.search_spaces.errors import Path, Problems
from metaloom.search_spaces.knobs.components import Catalogue, expand, parse_component
from metaloom.search_spaces.reading.nodes import Alternatives, Fixed, Node, Place, Section, Several
from metaloom.search_spaces.sections.recipes import faults

METHOD = "method"
OWN = ""  # the kind of a learner whose slots are all filled by hand
UPDATE, PREDICTION = "update", "prediction"


def slot_catalogues(task_kind: TaskKind = CLASSIFICATION) -> dict[str, Catalogue]:
    """Return what may fill each slot.

    Args:
        task_kind: Has a default loss.
    """
    catalogues = {
        name: Catalogue(
            noun=f"{name} component" if name in ("data", "loss") else name,
            configs={kind: component.Config for kind, component in slot.registry.items()},
            fixed=slot.fixed,
            learned=slot.learned,
            combined=slot.combined is not None,
        )
        for name, slot in SLOTS.items()
    }
    catalogues["loss"] = replace(catalogues["loss"], fixed=task_kind.default_loss)
    return catalogues


def parse_learner(
    raw: Any, place: Place, problems: Problems, *, kind: TaskKind = CLASSIFICATION, stored: bool = False
) -> Node:
    """Parse the learner section: a method's name, a mapping of slots, or ``{search: [...]}`` over several.

    Args:
        raw: As given.
        place: Where it stands.
        problems: Collects what is wrong.
        kind: The kind of task.
        stored: Whether it is read as version 0.1 did: by its recipes, and with the slots that the solver does not use.
    """
    alternatives = expand(
        raw,
        METHOD,
        place,
        problems,
        lambda member, at: parse_learner(member, at, problems, kind=kind, stored=stored),
    )
    if alternatives is not None:
        return alternatives
    if isinstance(raw, str):
        raw = {METHOD: raw}
    if not isinstance(raw, Mapping):
        problems.add(place.path, f"got {shown(raw)}; give a method's name or a mapping of slots")
        return Fixed(None)
    method = raw.get(METHOD)
    if method is not None and (not isinstance(method, str) or method not in METHODS):
        problems.add((*place.path, METHOD), unknown_or_absent("method", method, METHODS))
        # the rest is checked too, as what was most likely meant
        method = next(iter(difflib.get_close_matches(str(method), METHODS, n=1)), None)
    catalogues = slot_catalogues(kind)
    recipe = _recipe(method, catalogues, (*place.path, METHOD), problems, stored=stored)
    for name in raw:
        if name != METHOD and name not in catalogues:
            problems.add((*place.path, name), unknown("slot", name, [METHOD, *catalogues]))
    nodes: dict[str, Node] = {METHOD: Fixed(method)}
    for name, catalogue in catalogues.items():
        with_recipe = replace(catalogue, recipe=recipe.learner.get(name, {}))
        nodes[name] = parse_component(with_recipe, raw.get(name, MISSING), place.at(name), problems)
    unread = set(catalogues) - slots_read(nodes[PREDICTION])
    _drop_unread(nodes, unread & {UPDATE} if stored else unread, raw, place, problems)
    return Section(place, method or OWN, nodes)


def _recipe(
    method: str | None, catalogues: Mapping[str, Catalogue], path: Path, problems: Problems, *, stored: bool
) -> Recipe:
    """Return a method's recipe; an empty one where there is no method, or its recipe is at fault, which is noted."""
    empty = Recipe(summary="", paper="")
    if method is None:
        return empty
    recipe = METHODS[method].of_version(stored=stored)
    wrong = faults(recipe, catalogues)
    for fault in wrong:
        problems.add(path, f"the recipe of '{method}' is wrong: {fault}")
    return empty if wrong else recipe


def _drop_unread(
    nodes: dict[str, Node], unread: set[str], raw: Mapping[str, Any], place: Place, problems: Problems
) -> None:
    """Take out the slots that the solver does not use; each that was given is a problem."""
    kinds = " or ".join(kind for kind, _ in _kinds(nodes[PREDICTION]))
    reads = slots_read(nodes[PREDICTION]) - {PREDICTION}
    for name in sorted(unread):
        del nodes[name]
        if name in raw:
            problems.add((*place.path, name), not_read(name, kinds, reads, raw.get(METHOD)))


def _kinds(node: Node) -> Iterator[tuple[str, Section]]:
    """Yield each component that may come to stand in a slot, with its kind."""
    if isinstance(node, Section):
        yield node.kind, node
    elif isinstance(node, Alternatives):
        for option in node.options.values():
            yield from _kinds(option)
    elif isinstance(node, Several):
        for member in node.members:
            yield from _kinds(member)


def slots_read(prediction: Node) -> frozenset[str]:
    """Return the slots that any solver uses which may come to stand in ``prediction``, and that slot itself."""
    solvers = [SOLVERS[kind] for kind, _ in _kinds(prediction)] or [SOLVERS[DEFAULT_SOLVER]]
    return frozenset({PREDICTION}).union(*(solver.reads for solver in solvers))


def sections(node: Node) -> list[Section]:
    """Return every section that may come to stand where ``node`` is: each member of a choice, or the one there is."""
    return [section for _, section in _kinds(node)]


def methods(learner: Node) -> list[str]:
    """Return the methods that may be chosen, each once; the empty name stands for a learner of one's own."""
    return list(dict.fromkeys(section.kind for section in sections(learner)))


def per_method(learner: Node, parse: Callable[[str, Recipe], Node], *, stored: bool = False) -> dict[str, Node]:
    """Parse a section once for each method that may be chosen, under its recipe's defaults.

    A learner that could not be read counts as one without a method, so that the section is still checked.
    """
    own = Recipe(summary="", paper="")
    recipes = {
        method: METHODS[method].of_version(stored=stored) if method else own for method in methods(learner) or (OWN,)
    }
    return {method: parse(method, recipe) for method, recipe in recipes.items()}


def takes_estimator(learner: Node, method: str, estimator: str | Mapping[str, Any]) -> bool:
    """Whether a solver that may be chosen with a method takes an estimator."""
    named = [section for section in sections(learner) if section.kind == method and PREDICTION in section.fields]
    kinds = [kind for section in named for kind, _ in _kinds(section.fields[PREDICTION])]
    return any(SOLVERS[kind].takes(estimator) for kind in kinds) or not kinds
