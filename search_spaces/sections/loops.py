"""The tasks, inner and outer sections: plain settings, any of which may be searched."""

import logging
from collections.abc import Container, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

from metaloom.learners import ESTIMATORS, InnerConfig, plugins
from metaloom.learners.errors import LearnerError, shown, unknown
from metaloom.learners.fields import MISSING, fields_of
from metaloom.learners.hypergradients.auto import AutoConfig
from metaloom.learners.outer import HYPERGRADIENT, OLD_NAMES, OuterConfig, under_new_names
from metaloom.learners.plugins import load_plugins
from metaloom.learners.task_kinds import CLASSIFICATION, TASK_KINDS, TaskKind
from metaloom.search_spaces.knobs.components import Catalogue, parse_component, parse_settings
from metaloom.search_spaces.reading.labels import members
from metaloom.search_spaces.reading.nodes import Fixed, Node, Place, Section, children
from metaloom.search_spaces.sections.listed import SOURCE
from metaloom.search_spaces.sections.members import with_members, with_stand_ins
from metaloom.search_spaces.sections.sequences import SEQUENCES
from metaloom.search_spaces.sections.tasks import (
    EPISODES,
    SINGLE_TASK,
    TASK_SOURCES,
    able,
    episodes_of,
    kinds_of_episodes,
    settings_of,
)

T = TypeVar("T")
AUTO = "auto"


def task_catalogue() -> Catalogue:
    """Return the task sources, those of installed packages included."""
    load_plugins(plugins.TASK_SOURCES)
    return Catalogue("task source", TASK_SOURCES, key=SOURCE)


def task_forms() -> dict[str, type]:
    """Return the settings of every source, and of its other episodes: of a single task, and sequences."""
    load_plugins(plugins.TASK_SOURCES)
    forms: dict[str, type] = {}
    for name, config in TASK_SOURCES.items():
        forms[name] = config
        for episodes in (SINGLE_TASK, SEQUENCES):
            if (other := settings_of(name, episodes)) not in (None, config):
                forms[f"{name}, {EPISODES}: {episodes}"] = other
    return forms


def estimator_catalogue() -> Catalogue:
    """Return the hypergradient estimators, and ``auto``."""
    kinds = {kind: estimator.Config for kind, estimator in ESTIMATORS.items()}
    return Catalogue("hypergradient estimator", {AUTO: AutoConfig, **kinds}, fixed=AUTO)


def parse_tasks(raw: Any, place: Place) -> Node:
    """Parse the tasks section: one source, the same for all trials, whose settings may be searched."""
    named = raw.get(SOURCE) if isinstance(raw, Mapping) else None
    if members(raw) is not None or members(named) is not None:
        return place.wrong("the task source cannot be searched: trials on different tasks cannot be compared")
    if _holds_data(raw):
        return place.wrong(
            f"got {type(raw).__name__}; give the task source's name or a mapping of its settings. Data of Python are "
            "given as tasks= of metaloom.search, train or check"
        )
    catalogue = task_catalogue()
    if not isinstance(named, str) or named not in catalogue.configs:
        return parse_component(catalogue, raw, place)
    episodes = raw.get(EPISODES, episodes_of(catalogue.configs[named]))
    config = settings_of(named, episodes)
    if config is None:
        place.wrong(_no_such_episodes(named, episodes), EPISODES)
        config = catalogue.configs[named]
    misplaced = _of_other_episodes(named, config, raw)
    for name in misplaced:
        advice = f"remove it, or give tasks.episodes: {misplaced[name]}"
        place.wrong(f"a setting of {misplaced[name]} episodes, and these are {episodes_of(config)}; {advice}", name)
    dropped = {*misplaced, *({EPISODES} - set(fields_of(config)))}
    given = {name: value for name, value in raw.items() if name not in dropped}
    own = replace(catalogue, configs={**catalogue.configs, named: config})
    if not getattr(config, "members", ()):
        return parse_component(own, given, place)
    section = parse_component(own, with_stand_ins(config, given), place)
    return with_members(config, section, given, parse_tasks) if isinstance(section, Section) else section


def _holds_data(raw: Any) -> bool:
    """Return whether a tasks section is no value of a file, or a list of such objects."""
    of_files = (str, int, float, Mapping, type(None))
    return not isinstance(raw, of_files) and not (isinstance(raw, list) and all(isinstance(x, of_files) for x in raw))


def _no_such_episodes(source: str, episodes: Any) -> str:
    if episodes in kinds_of_episodes():
        return f"{source} makes no {episodes} episodes; these are made by {', '.join(able(episodes))}"
    return unknown("kind of episodes", episodes, kinds_of_episodes())


def _of_other_episodes(source: str, config: type, given: Mapping[str, Any]) -> dict[str, str]:
    """Return the given settings that only the source's other episodes have, with the name of these."""
    others = [settings_of(source, episodes) for episodes in kinds_of_episodes()]
    return {
        name: episodes_of(other)
        for other in reversed(others)  # of several kinds of episodes that have the setting, the first is named
        if other is not None and other is not config
        for name in given
        if name in fields_of(other) and name not in fields_of(config) and name != EPISODES
    }


def task_kind(tasks: Node) -> TaskKind:
    """Return the kind of the tasks: their own field ``kind``, or the one that their source always makes."""
    if not isinstance(tasks, Section):
        return CLASSIFICATION
    config = TASK_SOURCES.get(tasks.kind)
    for name in getattr(config, "members", ())[:1]:
        found = next(iter(children(tasks.fields[name])), tasks)
        return CLASSIFICATION if found is tasks else task_kind(found)
    kind = tasks.fields.get("kind")
    episodes = tasks.fields.get(EPISODES)
    config = settings_of(tasks.kind, episodes.value if isinstance(episodes, Fixed) else None)
    name = kind.value if isinstance(kind, Fixed) else getattr(config, "task_kind", None)
    return TASK_KINDS.get(str(name), CLASSIFICATION)


def parse_inner(raw: Any, recipe: Mapping[str, Any], place: Place) -> Node:
    """Parse the inner section over a recipe's defaults."""
    if not isinstance(raw, Mapping):
        return place.wrong(f"got {shown(raw)}; give a mapping of settings")
    catalogue = Catalogue("the inner loop", {"": InnerConfig}, key="")
    return parse_settings(catalogue, "", raw, recipe, place)


def parse_outer(raw: Any, recipe: Mapping[str, Any], place: Place) -> Node:
    """Parse the outer section over a recipe's defaults."""
    if not isinstance(raw, Mapping):
        return place.wrong(f"got {shown(raw)}; give a mapping of settings")
    catalogue = Catalogue("the outer loop", {"": OuterConfig}, key="", also=(HYPERGRADIENT,))
    given = {name: value for name, value in raw.items() if name != HYPERGRADIENT}
    try:
        plain = under_new_names(given)
    except LearnerError as error:
        name, _, message = str(error).partition(": ")
        return place.wrong(message, name.removeprefix("outer."))
    old = {new: old for old, new in OLD_NAMES.items() if old in given}
    for new, name in old.items():
        note_old_name(f"outer.{name}", f"outer.{new}")
    section = parse_settings(catalogue, "", plain, under_new_names(recipe), place, old)
    default = recipe.get(HYPERGRADIENT, {})
    estimators = replace(estimator_catalogue(), recipe={"kind": default} if isinstance(default, str) else default)
    estimator = parse_component(estimators, raw.get(HYPERGRADIENT, MISSING), place.at(HYPERGRADIENT))
    return replace(section, fields={**section.fields, HYPERGRADIENT: estimator})


@cache
def note_old_name(old: str, new: str) -> None:
    """Warn, once in a process, that a setting has another name now."""
    logging.getLogger("metaloom").warning("%s is now called %s; the old name goes on being read", old, new)


def under_searched_names(values: Mapping[str, T], knobs: Container[str]) -> dict[str, T]:
    """Return values of knobs; a renamed knob has the one of its two names that is searched."""
    other = {f"outer.{name}": f"outer.{twin}" for pair in OLD_NAMES.items() for name, twin in (pair, pair[::-1])}
    return {
        other[name] if name not in knobs and other.get(name, name) in knobs else name: value
        for name, value in values.items()
    }
