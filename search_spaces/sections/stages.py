"""The stages of an experiment: each a learner with tasks of its own, whose network a later one starts from.

The last stage is what the search judges; the stages before it are trained for it. An experiment without stages has one,
which has no name.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from metaloom.learners.errors import shown, unknown
from metaloom.search_spaces.errors import Problems
from metaloom.search_spaces.knobs.sampling import domains
from metaloom.search_spaces.reading.nodes import Place, Section
from metaloom.search_spaces.sections.space import (
    AS_NOW,
    ReadAs,
    Space,
    parse_space,
    sections,
)
from metaloom.search_spaces.sections.starts import INITIALIZATION, stages_in

STAGES, NAME = "stages", "name"
SECTIONS = ("tasks", "learner", "inner", "outer")
NEEDED = ("tasks", "learner")
STAGE_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")


def main_sections(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document with the sections of its last stage on top; as it is where it has no stages."""
    if STAGES not in document:
        return dict(document)
    stages = document[STAGES]
    last = stages[-1] if isinstance(stages, list) and stages and isinstance(stages[-1], Mapping) else {}
    return {**{name: {} for name in NEEDED}, **document, **{name: last[name] for name in SECTIONS if name in last}}


def parse_stages(document: Mapping[str, Any], problems: Problems, *, reading: ReadAs = AS_NOW) -> Space:
    """Parse the sections of an experiment: its own, or those of each of its stages; problems are noted."""
    if STAGES not in document:
        return parse_space(document, problems, reading=reading)
    place = Place((STAGES,), STAGES, problems)
    for name in SECTIONS:
        if name in document:
            problems.add(
                (name,), "given beside stages: each stage has its own; move it into the one that it belongs to"
            )
    stages = document[STAGES]
    if not isinstance(stages, list) or len(stages) < 2:
        place.wrong(f"got {shown(stages)}; give a list of at least two stages, or the sections without stages")
        return parse_space({}, Problems(), reading=reading)
    spaces, before = list[Space](), len(problems)
    for index, stage in enumerate(stages):
        name = _checked(stage, [one.name for one in spaces], place.within(index))
        at = Place((STAGES, index), f"{STAGES}.{name}", problems)
        given = stage if isinstance(stage, Mapping) else {}
        spaces.append(parse_space(given, problems, reading=reading, at=at, earlier=spaces))
    for index, space in enumerate(spaces[:-1]) if len(problems) == before else ():
        if space.name not in {name for later in spaces[index + 1 :] for name in starts_of(later)}:
            advice = f"give learner.initialization: {{from: {space.name}}} in a later one, or remove it"
            place.wrong(f"no later stage starts from {space.name}; {advice}", index)
    return replace(spaces[-1], earlier=tuple(replace(one, earlier=()) for one in spaces[:-1]))


def _checked(stage: Any, before: list[str], place: Place) -> str:
    """Note what is wrong with a stage as a whole; return its name."""
    if not isinstance(stage, Mapping):
        place.wrong(f"got {shown(stage)}; give a mapping: {', '.join((NAME, *SECTIONS))}")
        return str(len(before))
    for key in stage:
        if key not in (NAME, *SECTIONS):
            place.wrong(unknown("part of a stage", key, [NAME, *SECTIONS]), key)
    for key in NEEDED:
        if stage.get(key) is None:
            place.wrong("not given, and has no default", key)
    name = stage.get(NAME)
    if not isinstance(name, str) or not STAGE_NAME.fullmatch(name) or name.isdecimal():
        allowed = "1 to 40 letters, digits, '_' and '-', not only digits"
        place.wrong(
            f"got {shown(name)}; allowed: {allowed}" if NAME in stage else f"not given; allowed: {allowed}", NAME
        )
        return str(len(before))
    if name in before:
        place.wrong(f"'{name}' is the name of stage {before.index(name) + 1} too; give each its own", NAME)
    return name


def starts_of(space: Space) -> set[str]:
    """Return the names of the earlier stages from which a stage may start."""
    slots = [one.fields.get(INITIALIZATION) for one in sections(space.learner)]
    return {name for slot in slots if slot is not None for name in stages_in(slot)}


def searched_in_earlier(space: Space) -> list[str]:
    """Return the names of the knobs that are searched in the stages before the last one."""
    return [name for stage in space.earlier for name in domains(*stage.own_roots())]


def path_of(space: Space) -> tuple[str | int, ...]:
    """Return the path of the stage in the document; empty without stages."""
    return space.tasks.place.path[:-1] if isinstance(space.tasks, Section) else ()
