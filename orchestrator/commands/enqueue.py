"""``metaloom enqueue``: a configuration that a search, running or not, tries next."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from metaloom.learners.errors import BadInput
from metaloom.orchestrator.command_line.answers import JsonOption, NameArgument, StoreOption, answering
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.store import DEFAULT_STORE

with deferred():
    from metaloom.dashboards import text
    from metaloom.orchestrator import enqueuing
    from metaloom.orchestrator.command_line import tables
    from metaloom.search_spaces.reading import document


def enqueue(
    name: NameArgument,
    given: Annotated[
        list[str],
        typer.Option("--set", metavar="KNOB=VALUE", help="The value of a searched knob. Repeatable."),
    ] = [],  # noqa: B006  (typer copies it)
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Enqueue a configuration in a search, running or not: it is tried next.

    The sampler draws the knobs that are left out. Without --set, show the knobs that can be set, each with the values
    that it is searched in, and its value in the best trial.
    """
    with answering(as_json) as answer:
        if not given:
            knobs = enqueuing.settable_knobs(name, store=store)
            found = {"name": name, "knobs": [asdict(one) for one in knobs]}
            answer.give(found, lambda screen: screen.print(_table(knobs)))
            return
        done = enqueuing.enqueue(name, values_of(given), store=store)
        told = f"enqueued in {name}: {text.knobs_text(done.params)}; {done.note}"
        answer.give({"name": name, **asdict(done)}, lambda screen: screen.print(told, markup=False))


def values_of(given: list[str]) -> dict[str, Any]:
    """Read ``KNOB=VALUE`` each; raises BadInput for one without a value, and for a knob that is given twice."""
    values: dict[str, Any] = {}
    for one in given:
        knob, sign, value = one.partition("=")
        if not sign or not knob:
            raise BadInput(f"--set {one}: expected KNOB=VALUE, such as learner.update.rate=0.1")
        if knob in values:
            raise BadInput(f"--set {one}: {knob} is given twice")
        values[knob] = document.read_value(value)
    return values


def _table(knobs: "list[enqueuing.SettableKnob]") -> Any:
    shown = tables.table("knob", "searched in", "of the best trial")
    for one in knobs:
        value = text.number(one.value) if isinstance(one.value, float) else str(one.value)
        shown.add_row(*tables.row(one.name, one.range, value))
    return shown


COMMAND = Command(enqueue, examples=("metaloom enqueue first", "metaloom enqueue first --set learner.update.rate=0.05"))
