"""Writes the tables of docs/json.md from the typed rows: ``python -m metaloom.dashboards.json_page docs/json.md``.

A table stands between ``<!-- keys: SearchRow -->`` and ``<!-- end -->``; the rest is written by hand.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from metaloom.dashboards.rows import ListedSearch, SearchRow
from metaloom.workers.records.episode import COLUMNS

BLOCK = re.compile(r"(<!-- keys: (\w+) -->\n).*?(<!-- end -->)", flags=re.S)
ROWS = {"SearchRow": (SearchRow, ""), "ListedSearch": (ListedSearch, "searches[].")}


@dataclass(frozen=True)
class Key:
    """One key of a document, such as ``trials[].id``; ``.*`` stands for keys that are documented elsewhere."""

    path: str
    doc: str


def keys(row: type[Any], prefix: str = "") -> Iterator[Key]:
    """Yield the keys of a row's document, including nested rows."""
    hints = get_type_hints(row, include_extras=True)
    for field in fields(row):
        kind, doc = _documented(hints[field.name])
        item, path = _item(kind), f"{prefix}{field.name}"
        if doc:
            yield Key(f"{path}.*" if is_dataclass(item) or get_origin(item) is Mapping else path, doc)
        elif isinstance(item, type) and is_dataclass(item):
            yield from keys(item, f"{path}[]." if _is_many(kind) else f"{path}.")
        else:
            raise TypeError(f"{row.__name__}.{field.name} has no documentation")


def table(name: str) -> str:
    """Return the table of a row's keys; the keys of episodes are the columns of the Parquet parts."""
    if name == "episodes":
        listed = [Key(f"rows[].{column.name}", column.doc) for column in COLUMNS]
    else:
        listed = list(keys(*ROWS[name]))
    return "\n".join(["| key | value |", "|---|---|", *(f"| `{key.path}` | {key.doc} |" for key in listed), ""])


def regenerated(page: str) -> str:
    """Return the page with its tables written again."""
    return BLOCK.sub(lambda block: f"{block[1]}{table(block[2])}{block[3]}", page)


def _documented(hint: Any) -> tuple[Any, str]:
    if get_origin(hint) is Annotated:
        kind, doc = get_args(hint)
        return kind, str(doc)
    return hint, ""


def _item(kind: Any) -> Any:
    """Return the type of a field, or of its items, without None."""
    kind = _without_none(kind)
    return get_args(kind)[0] if get_origin(kind) is tuple else kind


def _is_many(kind: Any) -> bool:
    return get_origin(_without_none(kind)) is tuple


def _without_none(kind: Any) -> Any:
    if isinstance(kind, UnionType):
        (kind,) = (member for member in get_args(kind) if member is not type(None))
    return kind


if __name__ == "__main__":
    for file in map(Path, sys.argv[1:]):
        file.write_text(regenerated(file.read_text()))
