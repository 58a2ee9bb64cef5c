"""Writes the tables of docs/json.md from the typed documents: ``python -m metaloom.dashboards.json_page docs/json.md``.

A table stands between ``<!-- keys: SearchRow -->`` and ``<!-- end -->``; the rest is written by hand.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from metaloom.dashboards import rows
from metaloom.dashboards.data_rows import DataRow
from metaloom.dashboards.simulated_rows import SimulationRow
from metaloom.workers.records.episode import COLUMNS
from metaloom.workers.records.results import EvaluationSummary, Verification

BLOCK = re.compile(r"(<!-- keys: (\w+) -->\n).*?(<!-- end -->)", flags=re.S)
ROWS = {
    row.__name__: row
    for row in (
        rows.SearchRow,
        EvaluationSummary,
        Verification,
        rows.PredictionsRow,
        rows.CheckRow,
        rows.ComparisonRow,
        DataRow,
        SimulationRow,
    )
}
SUFFIXES = {tuple: "[]", Mapping: ".*"}  # of a path, for each item of a list and each value of a mapping


def keys(row: type[Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield path and documentation of the keys of a row's document, including nested rows.

    A path is such as ``trials[].id``; ``.*`` stands for keys that depend on the experiment or are documented elsewhere.
    """
    for name, hint in get_type_hints(row, include_extras=True).items():
        kind, doc = get_args(hint)[:2] if get_origin(hint) is Annotated else (hint, "")
        item, suffix = _item(kind)
        if doc:
            yield f"{prefix}{name}{'.*' if suffix == '.*' or is_dataclass(item) else ''}", doc
        elif isinstance(item, type) and is_dataclass(item):
            yield from keys(item, f"{prefix}{name}{suffix}.")
        else:
            raise TypeError(f"{row.__name__}.{name} has no documentation")


def table(name: str) -> str:
    """Return the table of a document's keys."""
    if name == "episodes":  # the columns of the Parquet parts
        listed = [(f"rows[].{column.name}", column.doc) for column in COLUMNS]
    else:
        listed = list(keys(rows.ListedSearch, "searches[].") if name == "ListedSearch" else keys(ROWS[name]))
    return "\n".join(["| key | value |", "|---|---|", *(f"| `{path}` | {doc} |" for path, doc in listed), ""])


def regenerated(page: str) -> str:
    """Return the page with its tables written again."""
    return BLOCK.sub(lambda block: f"{block[1]}{table(block[2])}{block[3]}", page)


def _item(kind: Any) -> tuple[Any, str]:
    """Return the type of a field without None, or of its items or values, and the suffix of their path."""
    if isinstance(kind, UnionType):
        (kind,) = (member for member in get_args(kind) if member is not type(None))
    suffix = SUFFIXES.get(get_origin(kind) or kind, "")
    return get_args(kind)[1 if suffix == ".*" else 0] if suffix else kind, suffix


if __name__ == "__main__":
    for file in map(Path, sys.argv[1:]):
        file.write_text(regenerated(file.read_text()))
