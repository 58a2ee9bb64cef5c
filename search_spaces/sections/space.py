"""The sections of an experiment as trees of knobs: the user's values over the recipes of the methods."""

import dataclasses
import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from metaloom.learners import METHODS, SLOTS, Recipe
from metaloom.learners.errors import shown, unknown
from metaloom.learners.fields import MISSING
from metaloom.learners.outer import HYPERGRADIENT, OLD_NAMES
from metaloom.learners.plugins import unknown_or_absent
from metaloom.learners.solvers.base import DEFAULT_SOLVER, SOLVERS
from metaloom.learners.task_kinds import CLASSIFICATION, TaskKind
from metaloom.search_spaces.errors import Problems, dotted
from metaloom.search_spaces.knobs.components import Catalogue, expand, parse_component
from metaloom.search_spaces.reading import nodes as tree
from metaloom.search_spaces.reading.nodes import Alternatives, Fixed, Node, Place, Section, Several, children
from metaloom.search_spaces.sections.loops import parse_inner, parse_outer, parse_tasks, task_kind
from metaloom.search_spaces.sections.starts import INITIALIZATION, parse_initialization

METHOD = "method"
OWN = ""  # the kind of a learner whose slots are all filled by hand
UPDATE, PREDICTION = "update", "prediction"
TOP = Place((), "")  # of the sections of an experiment without stages
NO_RECIPE = Recipe(summary="", paper="")


@dataclass(frozen=True)
class ReadAs:
    """As which version an experiment is read.

    Attributes:
        first: As version 0.1 did: by its recipes, and with the slots that the solver does not use.
        earlier: As before some settings existed: one that is not given has the value of then (``Component.before``).
    """

    first: bool = False
    earlier: bool = False


AS_NOW = ReadAs()


def slot_catalogues(task_kind: TaskKind = CLASSIFICATION, *, earlier: bool = False) -> dict[str, Catalogue]:
    """Return what may fill each slot; the kind of task has a default loss. For ``earlier`` see ``ReadAs``."""
    return {
        name: Catalogue(
            noun=f"{name} component" if name in ("data", "loss") else name,
            configs={kind: component.Config for kind, component in slot.registry.items()},
            fixed=task_kind.default_loss if name == "loss" else slot.fixed,
            learned=slot.learned,
            combined=slot.combined is not None,
            defaults={kind: component.before for kind, component in slot.registry.items()} if earlier else {},
        )
        for name, slot in SLOTS.items()
    }


def parse_learner(
    raw: Any,
    place: Place,
    *,
    kind: TaskKind = CLASSIFICATION,
    reading: ReadAs = AS_NOW,
    earlier: Sequence[str] = (),
) -> Node:
    """Parse the learner section: a method's name, a mapping of slots, or ``{search: [...]}`` over several.

    ``earlier`` are the stages that it may start from.
    """

    def parse(member: Any, at: Place) -> Node:
        return parse_learner(member, at, kind=kind, reading=reading, earlier=earlier)

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
    catalogues = slot_catalogues(kind, earlier=reading.earlier)
    recipe = NO_RECIPE if method is None else METHODS[method].of_version(stored=reading.first)
    if wrong := faults(recipe, catalogues):
        recipe = NO_RECIPE
    for fault in wrong:
        place.wrong(f"the recipe of '{method}' is wrong: {fault}", METHOD)
    for name in raw:
        if name != METHOD and name not in catalogues:
            place.wrong(unknown("slot", name, [METHOD, *catalogues]), name)
    nodes: dict[str, Node] = {METHOD: Fixed(method)}
    for name, catalogue in catalogues.items():
        with_recipe, given = replace(catalogue, recipe=recipe.learner.get(name, {})), raw.get(name, MISSING)
        if name == INITIALIZATION:
            nodes[name] = parse_initialization(with_recipe, given, place.at(name), earlier)
        else:
            nodes[name] = parse_component(with_recipe, given, place.at(name))
    unread = set(catalogues) - slots_read(nodes[PREDICTION])
    _drop_unread(nodes, unread & {UPDATE} if reading.first else unread, raw, place)
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
    """Return the methods that may be chosen, each once; the empty name is a learner of one's own, or a faulty one."""
    return list(dict.fromkeys(section.kind for section in sections(learner))) or [OWN]


def takes_estimator(learner: Node, method: str, estimator: str | Mapping[str, Any]) -> bool:
    """Return whether a solver that may be chosen with a method takes an estimator."""
    named = [section for section in sections(learner) if section.kind == method and PREDICTION in section.fields]
    kinds = [one.kind for section in named for one in sections(section.fields[PREDICTION])]
    return any(SOLVERS[kind].takes(estimator) for kind in kinds) or not kinds


@dataclass(frozen=True)
class Space:
    """The trees of knobs of the four sections.

    Attributes:
        learner: The method's slots, or a choice among methods.
        inner: For each method that may be chosen, the inner section over its recipe's defaults.
        outer: The same for the outer section.
        name: Of its stage; empty where there are none.
        earlier: The stages before it, in their order.
    """

    tasks: Node
    learner: Node
    inner: Mapping[str, Node]
    outer: Mapping[str, Node]
    name: str = ""
    earlier: tuple["Space", ...] = field(default=(), kw_only=True)

    def roots(self) -> tuple[Node, ...]:
        """Return every tree, those of earlier stages first."""
        return tuple(root for stage in self.earlier for root in stage.own_roots()) + self.own_roots()

    def own_roots(self) -> tuple[Node, ...]:
        """Return the trees of its own four sections."""
        return (self.tasks, self.learner, *self.inner.values(), *self.outer.values())

    def stages(self) -> Iterator["Space"]:
        """Yield every stage, itself last."""
        yield from (*self.earlier, self)


def parse_space(
    document: Mapping[str, Any],
    problems: Problems,
    *,
    reading: ReadAs = AS_NOW,
    at: Place = TOP,
    earlier: Sequence[Space] = (),
) -> Space:
    """Parse the four sections; where problems are noted, stand-ins are in the trees. One that is absent is empty.

    ``at`` is the place of the stage that has them, and ``earlier`` are the stages before it.
    """
    base = Place(at.path, at.name, problems)
    places = {name: base.at(name) for name in ("tasks", "learner", "inner", "outer")}
    tasks: Node = Fixed(None)
    learner: Node = Fixed(None)
    if "tasks" in document:
        tasks = parse_tasks(document["tasks"], places["tasks"])
    if "learner" in document:
        kind = task_kind(tasks)
        names = [one.name for one in earlier]
        learner = parse_learner(document["learner"], places["learner"], kind=kind, reading=reading, earlier=names)
    inner, outer = ({} if (given := document.get(name)) is None else given for name in ("inner", "outer"))
    outer_of = dict.fromkeys(methods(learner), outer) if reading.first else _outer_by_method(learner, outer)
    recipes = {one: METHODS[one].of_version(stored=reading.first) if one else NO_RECIPE for one in methods(learner)}
    return Space(
        tasks,
        learner,
        {one: parse_inner(inner, recipe.inner, places["inner"]) for one, recipe in recipes.items()},
        {one: parse_outer(outer_of[one], recipe.outer, places["outer"]) for one, recipe in recipes.items()},
        at.name.rpartition(".")[2],
        earlier=tuple(earlier),
    )


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
    old = {new: old for old, new in OLD_NAMES.items()}  # as version 0.1 wrote them, so that stored digests stay
    outer = {method: _described(node) for method, node in space.outer.items()}
    described = {
        "tasks": _described(space.tasks),
        "learner": _described(space.learner),
        "inner": {method: _described(node) for method, node in space.inner.items()},
        "outer": {method: {old.get(name, name): one[name] for name in one} for method, one in outer.items()},
    }
    return {**described, "stages": [[one.name, describe(one)] for one in space.earlier]} if space.earlier else described


def _described(node: Node) -> Any:
    match node:
        case Fixed():
            return node.value
        case tree.Searched():
            kind, domain = type(node.domain).__name__, dataclasses.asdict(node.domain)
            if node.domain.step is None:  # which came later: the digests of before stay
                del domain["step"]
            return {"searched": node.name, kind: domain, "default": node.default}
        case Alternatives():
            options = {label: _described(option) for label, option in node.options.items()}
            return {"choice": node.name, "options": options, "default": node.default}
        case tree.Spelling():
            return {"spelt": [_described(part) for part in node.parts], "separator": node.separator}
        case tree.LearnedKnob():
            return {"learned": [_described(node.start), _described(node.per)]}
        case Section():
            return {name: _described(child) for name, child in node.fields.items() if name not in node.unsaid}
        case Several():
            return [_described(member) for member in node.members]
