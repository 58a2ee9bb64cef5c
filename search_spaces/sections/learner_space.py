"""The learner section: a method's recipe under the user's values, slot by slot; methods may be searched."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from metaloom.learners import METHODS, SLOTS, Recipe
from metaloom.learners.errors import shown, unknown
from metaloom.learners.fields import MISSING
from metaloom.learners.plugins import unknown_or_absent
from metaloom.learners.solvers.base import DEFAULT_SOLVER, SOLVERS
from metaloom.learners.task_kinds import CLASSIFICATION, TaskKind
from metaloom.search_spaces.errors import dotted
from metaloom.search_spaces.knobs.components import Catalogue, expand, parse_component
from metaloom.search_spaces.reading.nodes import Alternatives, Fixed, Node, Place, Section, Several, children
from metaloom.search_spaces.sections.loops import parse_inner, parse_outer

METHOD = "method"
OWN = ""  # the kind of a learner whose slots are all filled by hand
UPDATE, PREDICTION = "update", "prediction"
NO_RECIPE = Recipe(summary="", paper="")


def slot_catalogues(task_kind: TaskKind = CLASSIFICATION) -> dict[str, Catalogue]:
    """Return what may fill each slot; the kind of task has a default loss."""
    return {
        name: Catalogue(
            noun=f"{name} component" if name in ("data", "loss") else name,
            configs={kind: component.Config for kind, component in slot.registry.items()},
            fixed=task_kind.default_loss if name == "loss" else slot.fixed,
            learned=slot.learned,
            combined=slot.combined is not None,
        )
        for name, slot in SLOTS.items()
    }


def parse_learner(raw: Any, place: Place, *, kind: TaskKind = CLASSIFICATION, stored: bool = False) -> Node:
    """Parse the learner section: a method's name, a mapping of slots, or ``{search: [...]}`` over several.

    Args:
        raw: As given.
        place: Where it stands.
        kind: The kind of task.
        stored: Whether it is read as version 0.1 did: by its recipes, and with the slots that the solver does not use.
    """

    def parse(member: Any, at: Place) -> Node:
        return parse_learner(member, at, kind=kind, stored=stored)

    if (alternatives := expand(raw, METHOD, place, parse)) is not None:
        return alternatives
    if isinstance(raw, str):
        raw = {METHOD: raw}
    if not isinstance(raw, Mapping):
        return place.wrong(f"got {shown(raw)}; give a method's name or a mapping of slots")
    method = raw.get(METHOD)
    if method is not None and (not isinstance(method, str) or method not in METHODS):
        place.wrong(unknown_or_absent("method", method, METHODS), METHOD)
        # the rest is checked too, with the nearest method
        method = next(iter(difflib.get_close_matches(str(method), METHODS, n=1)), None)
    catalogues = slot_catalogues(kind)
    recipe = NO_RECIPE if method is None else METHODS[method].of_version(stored=stored)
    if wrong := faults(recipe, catalogues):
        recipe = NO_RECIPE
    for fault in wrong:
        place.wrong(f"the recipe of '{method}' is wrong: {fault}", METHOD)
    for name in raw:
        if name != METHOD and name not in catalogues:
            place.wrong(unknown("slot", name, [METHOD, *catalogues]), name)
    nodes: dict[str, Node] = {METHOD: Fixed(method)}
    for name, catalogue in catalogues.items():
        with_recipe = replace(catalogue, recipe=recipe.learner.get(name, {}))
        nodes[name] = parse_component(with_recipe, raw.get(name, MISSING), place.at(name))
    unread = set(catalogues) - slots_read(nodes[PREDICTION])
    _drop_unread(nodes, unread & {UPDATE} if stored else unread, raw, place)
    return Section(place, method or OWN, nodes)


def faults(recipe: Recipe, catalogues: Mapping[str, Catalogue]) -> list[str]:
    """Return the faults of a recipe, each with its place: every slot, kind, setting and value must exist.

    Recipe settings are only looked up by name, so a misspelled one would be silently ignored.
    """
    root = Place((), "")
    for name, settings in recipe.learner.items():
        place = root.at("learner").at(name)
        if name not in catalogues:
            place.wrong(unknown("slot", name, catalogues))
        elif not isinstance(settings, Mapping):
            place.wrong(f"got {shown(settings)}; give a mapping, such as {{kind: {settings}}}")
        else:
            parse_component(catalogues[name], settings, place)
    parse_inner(recipe.inner, {}, root.at("inner"))
    parse_outer(recipe.outer, {}, root.at("outer"))
    return [f"{dotted(problem.path)}: {problem.message}" for problem in root.problems.found]


def _drop_unread(nodes: dict[str, Node], unread: set[str], raw: Mapping[str, Any], place: Place) -> None:
    """Take out the slots that the solver does not use; each that was given is a problem."""
    kinds = " or ".join(section.kind for section in sections(nodes[PREDICTION]))
    for name in sorted(unread):
        del nodes[name]
        if name in raw:
            wrong = "takes no inner steps" if name == UPDATE else f"does not use {name}"
            advice = "remove it, or give prediction: linear"
            place.wrong(f"{raw.get(METHOD) or kinds} {wrong} (prediction {kinds}); {advice}", name)


def sections(node: Node) -> list[Section]:
    """Return every section that ``node`` may become: each member of a choice or list, or the one there is."""
    if isinstance(node, Section):
        return [node]
    members = children(node) if isinstance(node, Alternatives | Several) else ()
    return [section for member in members for section in sections(member)]


def slots_read(prediction: Node) -> frozenset[str]:
    """Return the slots that any solver which may fill ``prediction`` uses, and that slot itself."""
    solvers = [SOLVERS[section.kind] for section in sections(prediction)] or [SOLVERS[DEFAULT_SOLVER]]
    return frozenset({PREDICTION}).union(*(solver.reads for solver in solvers))


def methods(learner: Node) -> list[str]:
    """Return the methods that may be chosen, each once; the empty name stands for a learner of one's own."""
    return list(dict.fromkeys(section.kind for section in sections(learner))) or [OWN]


def per_method(learner: Node, parse: Callable[[str, Recipe], Node], *, stored: bool = False) -> dict[str, Node]:
    """Parse a section once for each method that may be chosen, under its recipe's defaults.

    A learner that could not be read counts as one without a method, so that the section is still checked.
    """
    return {
        method: parse(method, METHODS[method].of_version(stored=stored) if method else NO_RECIPE)
        for method in methods(learner)
    }


def takes_estimator(learner: Node, method: str, estimator: str | Mapping[str, Any]) -> bool:
    """Return whether a solver that may be chosen with a method takes an estimator."""
    named = [section for section in sections(learner) if section.kind == method and PREDICTION in section.fields]
    kinds = [one.kind for section in named for one in sections(section.fields[PREDICTION])]
    return any(SOLVERS[kind].takes(estimator) for kind in kinds) or not kinds
