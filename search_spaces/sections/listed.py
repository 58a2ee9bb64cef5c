"""Tasks sections within a tasks section: what a list of them stands for. Workers read this, without the schema."""

from collections.abc import Mapping
from typing import Any

from metaloom.learners.fields import Field, fields_of
from metaloom.search_spaces.sections.tasks import EPISODES, settings_of

SOURCE = "source"


def entries(raw: Any) -> list[Any]:
    """Return the entries of a list of tasks sections; one section alone is a list of one."""
    return list(raw) if isinstance(raw, list | tuple) else [raw]


def sources_in(tasks: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the source of a resolved tasks section, and of those that it is made of."""
    name = str(tasks.get(SOURCE, ""))
    lists = (tasks.get(one) or () for one in getattr(settings_of(name), "members", ()))
    return tuple(dict.fromkeys((name, *(str(one.get(SOURCE)) for given in lists for one in given))))


def several_of(entry: Mapping[str, Any]) -> str | None:
    """Return the text setting of which an entry gives a list, one for each data set that it stands for; None if none.

    Raises ValueError if there are two.
    """
    config = settings_of(str(entry.get(SOURCE)), entry.get(EPISODES))
    declared = {} if config is None else fields_of(config)
    found = [
        name
        for name, value in entry.items()
        if isinstance(value, list | tuple) and name in declared and _takes_one_text(declared[name])
    ]
    if len(found) > 1:
        raise ValueError(f"both {found[0]} and {found[1]} are lists; an entry stands for the data sets of one list")
    return found[0] if found else None


def _takes_one_text(field: Field) -> bool:
    return str in field.types and field.items is None


def expanded(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the sections that an entry stands for; raises ValueError for two lists or an empty one."""
    name = several_of(entry)
    if name is None:
        return [dict(entry)]
    if not entry[name]:
        raise ValueError(f"{name} is an empty list; name at least one data set")
    return [{**entry, name: value} for value in entry[name]]
