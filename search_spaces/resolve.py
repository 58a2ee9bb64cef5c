"""From an experiment and a suggestion for each searched knob to the plain settings of one trial."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from metaloom.learners import METHODS, SLOTS
from metaloom.learners.modes import LEARN
from metaloom.learners.outer import under_new_names
from metaloom.search_spaces.errors import ExperimentError, Problems
from metaloom.search_spaces.experiment import Experiment
from metaloom.search_spaces.knobs.sampling import Domain, Given, Suggest, Value, domains, resolve_node
from metaloom.search_spaces.reading.nodes import Alternatives, Place, Section, walk_nodes
from metaloom.search_spaces.sections.loops import parse_inner, parse_outer, task_kind, under_searched_names
from metaloom.search_spaces.sections.settings import Baseline
from metaloom.search_spaces.sections.space import METHOD, OWN, Space, parse_learner
from metaloom.search_spaces.sections.stages import NAME, SECTIONS

__all__ = [
    "Given",
    "Resolved",
    "Suggest",
    "baseline",
    "baseline_name",
    "defaults",
    "resolve",
    "searched_knobs",
    "staged",
]


@dataclass(frozen=True)
class Resolved:
    """One trial's settings: complete, with nothing left to search. All values are JSON's.

    Attributes:
        tasks: ``source`` and its settings.
        learner: ``method`` and its slots; a learned knob is ``{"learn": {"start": ..., "per": ...}}``.
        outer: The outer section; ``hypergradient`` is ``{"kind": ..., ...}``.
        knobs: What was chosen for each searched knob that exists under the choices made, by its name.
        stage: The name of its stage; empty where there are none.
        stages: The stages before it, each its name and its four sections.
    """

    tasks: dict[str, Any]
    learner: dict[str, Any]
    inner: dict[str, Any]
    outer: dict[str, Any]
    resources: dict[str, Any]
    knobs: dict[str, Value]
    stage: str = ""
    stages: list[dict[str, Any]] = field(default_factory=list)


def staged(resolved: Resolved, stage: Mapping[str, Any]) -> Resolved:
    """Return the settings of one of the stages before a trial's own, as those of a trial."""
    own = {name: stage[name] for name in SECTIONS}
    return replace(resolved, **own, knobs={}, stage=str(stage[NAME]), stages=[])


def defaults(experiment: Experiment) -> Suggest:
    """Return what suggests every knob's default, as ``metaloom train`` does."""
    found: dict[str, Value] = {}
    for root in experiment.space.roots():
        resolve_node(root, None, found)
        for node in walk_nodes(root):
            for option in node.options.values() if isinstance(node, Alternatives) else ():
                resolve_node(option, None, found)  # the members that are not the default have knobs too
    return Given(found)


def resolve(experiment: Experiment, suggest: Suggest) -> Resolved:
    """Choose a value for every searched knob that is active under the choices made so far.

    ``suggest`` is asked once per knob, in the file's order: tasks, learner, inner, outer; earlier stages first.
    """
    space, knobs = experiment.space, dict[str, Value]()
    stages = [{NAME: one.name, **_sections(one, suggest, knobs)} for one in space.earlier]
    resources = experiment.resources.model_dump(mode="json")
    main = _sections(space, suggest, knobs)
    return Resolved(**main, resources=resources, knobs=knobs, stage=space.name, stages=stages)


def _sections(space: Space, suggest: Suggest, knobs: dict[str, Value]) -> dict[str, Any]:
    """Choose the values of one stage; ``knobs`` receives those of its searched knobs."""
    tasks = resolve_node(space.tasks, suggest, knobs)
    learner = resolve_node(space.learner, suggest, knobs)
    method = learner[METHOD] or OWN
    inner = resolve_node(space.inner[method], suggest, knobs)
    outer = resolve_node(space.outer[method], suggest, knobs)
    return {"tasks": tasks, "learner": learner, "inner": inner, "outer": outer}


def searched_knobs(experiment: Experiment) -> dict[str, Domain]:
    """Return every knob that could be suggested, by its name.

    A knob inside a choice's member, such as ``learner[maml].update.rate``, is asked for only where
    ``learner`` is ``maml``.
    """
    return domains(*experiment.space.roots())


def baseline_name(asked: Baseline) -> str:
    """Return the name of a baseline: its method, with the slots that it fills; or the knobs that it sets."""
    if isinstance(asked, str):
        return asked
    if METHOD in asked:
        kinds = {slot: one.get("kind", one) if isinstance(one, Mapping) else one for slot, one in asked.items()}
        return ", ".join([kinds.pop(METHOD), *(f"{slot}={kind}" for slot, kind in kinds.items())])
    return ", ".join(f"{name}={value}" for name, value in asked.items()) or "defaults"


def baseline(experiment: Experiment, asked: Baseline) -> Resolved:
    """Resolve a baseline: the experiment itself with some knobs given, or another method on the same tasks.

    Args:
        asked: Values of searched knobs, all others taking their defaults; the name of a method; or a learner written
            out, with its method.

    Raises:
        LearnerError: No method has this name.
        ExperimentError: Its recipe does not go with this experiment.
    """
    if isinstance(asked, str):
        return _of_learner(experiment, {METHOD: asked})
    if METHOD in asked:
        return _of_learner(experiment, asked)
    values = under_searched_names(asked, searched_knobs(experiment))
    return resolve(experiment, Given(values, defaults(experiment)))


def _of_learner(experiment: Experiment, given: Mapping[str, Any]) -> Resolved:
    """Resolve a method's recipe, and the slots given, with the experiment's tasks, network, inner and outer.

    What a recipe sets wins over the experiment's outer section, so that a baseline that learns
    nothing (``outer.steps`` 0) is not trained. The experiment's defaults give the architecture and the loss, unless
    they are learned: a baseline that learned with the experiment would measure nothing.
    """
    plain = resolve(experiment, defaults(experiment))
    recipe, problems, kind = METHODS[given[METHOD]], Problems(), task_kind(experiment.space.tasks)
    before, document = [stage.name for stage in experiment.space.earlier], experiment.sections
    alone = parse_learner(given, Place((), "learner"), kind=kind, earlier=before)
    kept = {
        slot: plain.learner[slot]
        for slot in ("architecture", "loss")
        if slot in plain.learner
        and slot not in recipe.learner
        and isinstance(alone, Section)
        and slot in alone.fields
        and not _is_learned(slot, plain.learner[slot])
    }
    reading = replace(experiment.reading, first=False)
    place = Place((), "learner", problems)
    learner = parse_learner({**kept, **given}, place, kind=kind, reading=reading, earlier=before)
    outer_given = {**_renamed(document.get("outer")), **_renamed(recipe.outer)}
    outer_given.pop("hypergradient", None)
    inner_given = {**(document.get("inner") or {}), **copy.deepcopy(dict(recipe.inner))}
    outer = parse_outer(outer_given, recipe.outer, Place((), "outer", problems))
    inner = parse_inner(inner_given, recipe.inner, Place((), "inner", problems))
    if problems.found:
        raise ExperimentError(problems.found)
    parts = {"learner": learner, "inner": inner, "outer": outer}
    return replace(plain, knobs={}, **{name: resolve_node(node, None, {}) for name, node in parts.items()})


def _renamed(section: Mapping[str, Any] | None) -> dict[str, Any]:
    return under_new_names(copy.deepcopy(dict(section or {})))


def _is_learned(slot: str, settings: Any) -> bool:
    """Return whether anything of what fills a slot has a hypergradient, from its resolved settings."""
    components = settings if isinstance(settings, list) else [settings]
    return any(
        SLOTS[slot].registry[one["kind"]].learns or any(isinstance(v, dict) and LEARN in v for v in one.values())
        for one in components
    )
