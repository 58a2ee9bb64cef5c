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
    from metaloom.orchestrator import data_cache, stage_folders
    from metaloom.orchestrator.command_line import tables


def cache(
    clean: Annotated[bool, typer.Option("--clean", help="Remove all of it; it is prepared again when needed.")] = False,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """List the prepared data and downloads of a store, or remove them.

    They are made again from your files, or downloaded, when a search needs them. While a search of the store runs,
    nothing is removed. The stages of searches are listed too; --clean removes those that no search uses, or
    needs to go on.
    """
    with answering(as_json) as answer:
        found = data_cache.clean(store) if clean else data_cache.contents(store)
        unused = stage_folders.unused(store) if clean else []
        stages = stage_folders.remove(store, unused) if clean else stage_folders.contents(store)
        total = sum(one.bytes for one in found)
        shown = tables.table("file", "size")
        for one in found:
            shown.add_row(*tables.row(one.name, size(one.bytes)))
        verb = "removed: " if clean else ""
        lines = [f"{verb}{counted(len(found), 'file')}, {size(total)} in {store / data_cache.CACHE_FOLDER}"]
        lines += [f"{verb}{_told(stage)}" for stage in stages]
        lines += [f"left: {_told(one)}" for one in stage_folders.contents(store) if one.needed_by] if clean else []
        document = {"cleaned": clean, "bytes": total, "files": list(map(asdict, found))}
        document |= {"stages": list(map(asdict, stages))} if stages else {}
        answer.give(document, lambda screen: screen.print(*([shown] if found else []), "\n".join(lines), markup=False))


def _told(stage: "stage_folders.StageFolder") -> str:
    """Describe a stage, the searches that use it, and those that are not finished and need it."""
    named = " ".join(filter(None, [stage.name, "" if stage.finished else "(not finished)"]))
    waiting = [name for name in stage.needed_by if name not in stage.searches]
    needed = f"needed by {', '.join(waiting)} to go on" if waiting else ""
    users = "; ".join(filter(None, [", ".join(stage.searches), needed])) or "no search uses it"
    return f"stage {named} {stage.digest}: {size(stage.bytes)}, {users}"


COMMAND = Command(cache, examples=("metaloom cache", "metaloom cache --clean"))
