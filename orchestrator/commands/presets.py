"""``metaloom presets``: lists the shipped experiments."""

from dataclasses import asdict

from metaloom.orchestrator.command_line.answers import JsonOption, StoreOption, answering
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.store import DEFAULT_STORE

with deferred():
    from metaloom.orchestrator.command_line import tables
    from metaloom.search_spaces import loading


def presets(store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> None:
    """List the shipped experiments, with their purpose and their minutes on 2 cores."""
    with answering(as_json) as answer:
        shown = tables.table("preset", "minutes", "title", "shows")
        for preset in loading.presets():
            shown.add_row(preset.name, f"{preset.minutes:g}", preset.title, preset.shows)
        answer.give({"presets": list(map(asdict, loading.presets()))}, lambda screen: screen.print(shown))


COMMAND = Command(presets, examples=("metaloom presets",))
