"""The data sets that the source ``many`` is made of: each opened by its own section, named, and numbered."""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaloom.learners.fields import fields_of
from metaloom.search_spaces.sections.listed import SOURCE, expanded, several_of
from metaloom.search_spaces.sections.tasks import EPISODES, settings_of
from metaloom.workers.data.base import DataError, Source
from metaloom.workers.data.opening import open_source
from metaloom.workers.data.sampler import FewShotSource
from metaloom.workers.data.sequences import SequencesOf

NAMING = ("set", "path")  # settings that tell data sets of one source apart, the first that a section has
UNFIT = re.compile(r"[^\w.\- ]")  # for the name of a metric in MLflow
SETTING = re.compile(r"tasks\.(?P<evaluation>evaluation\.)?(?P<name>\w+)")  # as messages name one
WHOLE = "whole"  # the setting by which one split takes all classes
DIVIDING = ("validation_fraction", "test_fraction")


@dataclass(frozen=True)
class Listed:
    """A data set as the settings list it.

    Attributes:
        section: Its own tasks section.
        entry: The number of its entry in the list.
        place: Where that stands, such as ``tasks.sources[0]``, for messages.
        share: Its share of the entry's weight.
        name: Its source, and what tells it apart: ``ucr:Adiac``.
    """

    section: Mapping[str, Any]
    entry: int
    place: str
    share: float
    name: str

    @property
    def declared(self) -> Mapping[str, Any]:
        """The settings that its source has, by name."""
        form = settings_of(str(self.section.get(SOURCE)), self.section.get(EPISODES))
        return {} if form is None else fields_of(form)

    @property
    def can_be_whole(self) -> bool:
        """Whether it has classes, all of which one split may take."""
        return WHOLE in self.declared


@dataclass(frozen=True)
class Member:
    """A data set that is open.

    Attributes:
        name: In records and tables.
        place: Where the settings list it.
        source: Its own source.
        classes: How many class ids it has, and ``examples`` how many sample ids; None where they have no end.
    """

    name: str
    place: str
    source: Source
    classes: int | None = None
    examples: int | None = None


def listed(given: Sequence[Mapping[str, Any]], place: str) -> list[Listed]:
    """Return the data sets of a list of entries; raises DataError for an entry that names none."""
    found = []
    for number, entry in enumerate(given):
        where = f"{place}[{number}]"
        try:
            sections, naming = expanded(entry), several_of(entry)
        except ValueError as wrong:
            raise DataError(f"{where}: {wrong}") from None
        found += [Listed(one, number, where, 1 / len(sections), _name(one, naming)) for one in sections]
    return found


def distinct(given: Sequence[Listed]) -> list[str]:
    """Return a name of each data set, numbered where several would have the same: ``glyphs``, ``glyphs-2``."""
    seen, names = Counter[str](), []
    for one in given:
        seen[one.name] += 1
        names.append(one.name if seen[one.name] == 1 else f"{one.name}-{seen[one.name]}")
    return names


def _name(section: Mapping[str, Any], naming: str | None) -> str:
    source = str(section.get(SOURCE))
    setting = naming or next((one for one in NAMING if isinstance(section.get(one), str)), None)
    value = "" if setting is None else str(section[setting])
    value = UNFIT.sub("_", Path(value).stem if setting == "path" else value)
    return f"{source}:{value}" if value not in ("", source) else source


def opened(one: Listed, name: str, split: str | None, shared: Mapping[str, Any], *, seed: int, cache: Path) -> Member:
    """Open a data set.

    Args:
        one: Its settings.
        name: Its own name.
        split: The split that all of it belongs to; None: it has splits of its own.
        shared: Settings that all data sets have in common; its own ``evaluation`` stays where they say nothing.
        seed: Of the episodes.
        cache: Where sources keep their prepared data.

    Raises:
        DataError: It cannot be opened, or its episodes are batches of one task. The message begins with its place.
    """
    section, declared = dict(one.section), one.declared
    evaluation = {**(section.get("evaluation") or {}), **(shared.get("evaluation") or {})}
    common = {key: value for key, value in {**shared, "evaluation": evaluation or None}.items() if value is not None}
    section |= {key: value for key, value in common.items() if key in declared}
    if split is not None and one.can_be_whole:
        section[WHOLE] = split
        section |= {key: 0.0 for key in DIVIDING if key in declared and section.get("split") is None}
    given = [key for key, value in shared.items() if value is not None and key in declared]
    try:
        source = open_source(section, seed=seed, cache=cache)
    except DataError as error:
        raise DataError(_placed(str(error), one.place, given, shared.get("evaluation") or ())) from error
    if source.shape.single_task:
        raise DataError(
            f"{one.place}: the episodes of {name} are batches of one task; data sets are mixed whose episodes are "
            "tasks of their own: few-shot classes, or tasks that are drawn"
        )
    return Member(name, one.place, source, *_numbers(source))


def _placed(message: str, place: str, shared: Collection[str], evaluation: Collection[str]) -> str:
    """Name in a message each setting where it was given: with all data sets, or in the section of this one.

    Args:
        message: Of the data set's own source.
        place: Of its section.
        shared: The settings that all data sets have in common, and ``evaluation`` those of validation and test.
    """

    def named(found: re.Match[str]) -> str:
        of_all = found["name"] in (evaluation if found["evaluation"] else shared)
        return found[0] if of_all else found[0].replace("tasks.", f"{place}.", 1)

    told = SETTING.sub(named, message)
    field, _, what = told.partition(": ")
    return told if place in told or not what else f"{field}: in {place}, {what}"


def _numbers(source: Source) -> tuple[int | None, int | None]:
    """Return how many ids of classes and of examples a source has; None where tasks are drawn without end."""
    inner = source.of if isinstance(source, SequencesOf) else source
    if not isinstance(inner, FewShotSource):
        return None, None
    return len(inner.table.names), (1 + int(inner.table.turns.max(initial=0))) * len(inner.stored)
