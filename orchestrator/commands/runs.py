"""``metaloom runs``: the searches of a store."""

from metaloom.orchestrator.command_line.answers import JsonOption, StoreOption, answering
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.store import DEFAULT_STORE

with deferred():
    from metaloom.dashboards import queries
    from metaloom.orchestrator.command_line import tables


def runs(store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> None:
    """List the searches of a store."""
    with answering(as_json) as answer:
        rows = queries.list_searches(store)
        answer.give({"searches": rows}, lambda screen: tables.show_searches(screen, rows, store))


COMMAND = Command(runs, examples=("metaloom runs",))
