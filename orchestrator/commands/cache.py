"""``metaloom cache``: what a store has prepared of the data, and how to free the space."""

from dataclasses import asdict
from typing import Annotated

import typer

from metaloom.dashboards.text import counted, size
from metaloom.orchestrator.command_line.answers import JsonOption, StoreOption, answering
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.store import DEFAULT_STORE

with deferred():
    from metaloom.orchestrator import data_cache
    from metaloom.orchestrator.command_line import tables


def cache(
    clean: Annotated[bool, typer.Option("--clean", help="Remove all of it; it is prepared again when needed.")] = False,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """List the prepared data and downloads of a store, or remove them.

    They are made again from your files, or downloaded, when a search needs them. While a search of the store runs,
    nothing is removed.
    """
    with answering(as_json) as answer:
        found = data_cache.clean(store) if clean else data_cache.contents(store)
        total = sum(one.bytes for one in found)
        shown = tables.table("file", "size")
        for one in found:
            shown.add_row(*tables.row(one.name, size(one.bytes)))
        verb = "removed: " if clean else ""
        line = f"{verb}{counted(len(found), 'file')}, {size(total)} in {store / data_cache.CACHE_FOLDER}"
        document = {"cleaned": clean, "bytes": total, "files": list(map(asdict, found))}
        answer.give(document, lambda screen: screen.print(*([shown] if found else []), line, markup=False))


COMMAND = Command(cache, examples=("metaloom cache", "metaloom cache --clean"))
