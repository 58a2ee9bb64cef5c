"""``metaloom presets``: lists the shipped experiments."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from metaloom.orchestrator.command_line.answers import JsonOption, StoreOption, answering
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.store import DEFAULT_STORE

if TYPE_CHECKING:
    from rich.console import Console

with deferred():
    from metaloom.orchestrator.command_line import tables
    from metaloom.search_spaces import loading


def presets(store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> None:
    """List the shipped experiments, with their purpose and their minutes on 2 cores."""
    with answering(as_json) as answer:
        rows = [asdict(preset) for preset in loading.presets()]
        answer.give({"presets": rows}, lambda screen: _show_presets(screen, rows))


def _show_presets(screen: "Console", rows: list[dict[str, Any]]) -> None:
    shown = tables.table("preset", "minutes", "title", "shows")
    for row in rows:
        shown.add_row(row["name"], f"{row['minutes']:g}", row["title"], row["shows"])
    screen.print(shown)


COMMAND = Command(presets, examples=("metaloom presets",))
