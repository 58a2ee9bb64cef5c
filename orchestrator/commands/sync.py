"""``metaloom sync``: sends MLflow and Optuna's database whatever they lack of a search."""

import sys

from metaloom.orchestrator.command_line.answers import JsonOption, NameArgument, StoreOption, answering
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.store import DEFAULT_STORE

with deferred():
    from metaloom.orchestrator.command_line import tables
    from metaloom.orchestrator.proposing import mirror, search_report
    from metaloom.orchestrator.tracking import outbox, outboxes


def sync(name: NameArgument, store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> int:
    """Send MLflow and Optuna's database what they lack of a search. Exits with code 1 if some is left."""
    with answering(as_json) as answer:
        screen = tables.console(sys.stderr)

        def warn(line: str) -> None:
            screen.print(line, markup=False)

        left, rebuilt = outboxes.synchronize(
            store, name, warn=warn, others=mirror.projections, html=search_report.html_of
        )
        document = {"name": name, "left": {one.name: one.events for one in left}, "rebuilt": rebuilt}
        text = "; ".join(f"{_left(one)}: {one.reason}" for one in left)
        answer.give(document, lambda screen: screen.print(text or f"{name}: everything is sent", markup=False))
        return int(bool(left))


def _left(backlog: "outbox.Backlog") -> str:
    if backlog.events:
        return f"{backlog.events} events are left for {backlog.name}"
    return f"what {backlog.name} has could not be compared"


COMMAND = Command(sync, examples=("metaloom sync first",))
