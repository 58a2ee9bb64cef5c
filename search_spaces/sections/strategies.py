"""Samplers and schedulers: registries of kinds that declare their settings and their needs.

The kinds are in ``metaloom.orchestrator``, above this folder, and in installed packages. They are loaded as plugins, so
that an experiment is checked against all of them.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from metaloom.learners import plugins
from metaloom.learners.errors import shown
from metaloom.learners.modes import LEARN, SEARCH
from metaloom.learners.plugins import load_plugins
from metaloom.learners.registry import Registry
from metaloom.search_spaces.knobs.components import Catalogue, parse_component
from metaloom.search_spaces.knobs.sampling import resolve_node
from metaloom.search_spaces.reading.nodes import Place, Section

KIND, NONE = "kind", "none"


class SamplerKind:
    """Base of all samplers: a frozen dataclass of its settings, which declares what it needs.

    Class attributes:
        one_objective: Whether it takes one objective only.
        needs_number: Whether at least one searched knob must be a number.
        needs_knobs: Whether there must be something to search.
        finite: Whether every searched knob must have finitely many values, all of which are tried.
        keeps_attributes: Whether it keeps what it has sampled in attributes of the study, so that a resumed search
            must ask it again.
    """

    one_objective: ClassVar[bool] = False
    needs_number: ClassVar[bool] = False
    needs_knobs: ClassVar[bool] = False
    finite: ClassVar[bool] = False
    keeps_attributes: ClassVar[bool] = False


class SchedulerKind:
    """Base of all schedulers: a frozen dataclass of its settings, which declares what it needs.

    Class attributes:
        one_objective: Whether it ranks trials by one objective only.
        least_trials: How many trials a search with it needs.
        copies_state: Whether it copies one trial's state into another and perturbs its numbers.
        compares_episodes: Whether it compares trials on the same episodes, so that their tasks must be the same.
    """

    one_objective: ClassVar[bool] = True
    least_trials: ClassVar[int] = 1
    copies_state: ClassVar[bool] = False
    compares_episodes: ClassVar[bool] = False


SAMPLERS: Registry[type[SamplerKind]] = Registry("sampler")
SCHEDULERS: Registry[type[SchedulerKind]] = Registry("scheduler")


def samplers() -> Mapping[str, type[SamplerKind]]:
    """Return the samplers by name, those of installed packages included."""
    load_plugins(plugins.SAMPLERS)
    return SAMPLERS


def schedulers() -> Mapping[str, type[SchedulerKind]]:
    """Return the schedulers by name, those of installed packages included."""
    load_plugins(plugins.SCHEDULERS)
    return SCHEDULERS


def takes_one_objective(sampler: str) -> str:
    """Return the error of a sampler that takes one objective, with those that take several."""
    several = [kind for kind, one in samplers().items() if not (one.one_objective or one.finite)]
    return f"{sampler} takes one objective; use {', '.join(several[:-1])} or {several[-1]} for several, or keep one"


def sampler_catalogue() -> Catalogue:
    """Return what may propose trials."""
    return Catalogue("sampler", samplers(), fixed="tpe")


def scheduler_catalogue() -> Catalogue:
    """Return what may stop trials early."""
    return Catalogue("scheduler", schedulers(), fixed=NONE)


def parse_strategy(catalogue: Catalogue, raw: Any, place: Place) -> dict[str, Any]:
    """Parse a sampler or scheduler: a kind's name, or a mapping with its settings, none of which can be searched.

    Args:
        raw: As given; null is the kind ``none``.

    Returns:
        The kind and all its settings; the default kind alone if problems were noted.
    """
    raw, before = NONE if raw is None else raw, len(place.problems)
    for name, value in raw.items() if isinstance(raw, Mapping) else [("", raw)]:
        modes = {value} if isinstance(value, str) else set(value) if isinstance(value, Mapping) else {name}
        if modes & {SEARCH, LEARN}:
            message = f"got {shown(value)}; give a value: how a search is done is not searched or learned"
            place.wrong(message, *filter(None, [name]))
    if isinstance(raw, Mapping) and KIND not in raw:
        allowed = ", ".join(catalogue.configs)
        place.wrong(f"not given; name the {catalogue.noun} (allowed: {allowed})", KIND)
    if len(place.problems) > before:
        return {KIND: catalogue.fixed}
    node = parse_component(catalogue, raw, place)
    return resolve_node(node, None, {}) if isinstance(node, Section) else {KIND: catalogue.fixed}
