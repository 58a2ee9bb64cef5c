"""``metaloom check``: is an experiment valid, and is each learned knob's hypergradient right?"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from metaloom.orchestrator.command_line.answers import (
    ExperimentArgument,
    JsonOption,
    SetOption,
    StoreOption,
    TrustOption,
    answering,
)
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.store import DEFAULT_STORE
from metaloom.workers.records.names import DIAGNOSTIC

if TYPE_CHECKING:
    from rich.console import Console

with deferred():
    from metaloom.orchestrator import hypergradient_check
    from metaloom.orchestrator.command_line import tables
    from metaloom.workers import progress as solutions

BAD_INPUT = 2
COMPARED_KNOBS = 5  # more columns than that are too narrow to be read: then only the worst knob is shown


def check(
    experiment: ExperimentArgument,
    changes: SetOption = [],  # noqa: B006  (typer copies it)
    trust_code: TrustOption = False,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> int:
    """Validate an experiment and its hypergradients.

    Each learned knob's hypergradient is compared with central differences in float64, for every member of
    every choice. The exit code is 2 if the estimator does not stand by what it would give.
    """
    with answering(as_json) as answer:
        document = hypergradient_check.check_experiment(experiment, changes, store=store, trust_code=trust_code)
        answer.give(document, lambda screen: _show_check(screen, document))
        return BAD_INPUT if document["flagged"] else 0


def _show_check(screen: "Console", document: Mapping[str, Any]) -> None:
    estimators = dict.fromkeys(member["estimator"] for member in document["members"])
    why = f" (auto: {document['reason']})" if document["reason"] else ""
    screen.print(f"{document['name']}: valid; hypergradient by {', '.join(estimators)}{why}", markup=False)
    if not document["knobs"]:
        screen.print(document["verdict"])
        return
    if document["flagged"]:
        screen.print(document["flagged"], markup=False, style="red")
        _show_estimators(screen, document)
        return
    several = len(estimators) > 1
    shown = tables.table("learned knob", "relative error", "numbers", "norm", *(["estimator"] if several else []))
    for knob, error in document["knobs"].items():
        detail = document["details"][knob]
        error_text = "no slope" if error is None else f"{error:.2e}"
        cells = [knob, error_text, f"{detail['numbers']:,}", f"{detail['norm']:.3g}"]
        shown.add_row(*tables.row(*cells, *([detail["estimator"]] if several else [])))
    screen.print(shown)
    for member in document["members"]:  # an implicit gradient is as good as the solution that it is taken at
        known = {name: one for name, one in member["diagnostics"].items() if one is not None}
        metrics = {f"{DIAGNOSTIC}{name}": one for name, one in known.items()}
        solution = solutions.solution_warning(metrics) or solutions.solution_text(metrics)
        if solution:
            screen.print(f"{member['estimator']}: {solution}", markup=False)
    screen.print(document["verdict"], markup=False)
    _show_estimators(screen, document)


def _show_estimators(screen: "Console", document: Mapping[str, Any]) -> None:
    """Show every estimator's error per knob and its cost; then those that cannot be used here, and why."""
    knobs, compared = list(document["members"][0]["knobs"]), document["estimators"]
    used = {kind: one for kind, one in compared.items() if not one["refused"]}
    if not used:
        return
    many = len(knobs) > COMPARED_KNOBS
    each = "its largest relative error over the learned knobs" if many else "relative error of each learned knob"
    screen.print(f"\nEvery estimator here: {each}, and the cost of one hypergradient.")
    heads = ["largest error", "of"] if many else [knob.removeprefix("learner.") for knob in knobs]
    shown = tables.table("estimator", *heads, "seconds", "peak MB")
    flat = document["members"][0]["knobs"]
    sloped = [knob for knob in knobs if flat[knob] is not None] or knobs
    for kind, one in sorted(used.items(), key=lambda item: _worst(item[1]["errors"])):
        name = f"{'*' if kind == document['estimator'] else ' '}{kind}"
        texts = {knob: _error_text(error, flat[knob]) for knob, error in one["errors"].items()}
        if many:
            worst = max(sloped, key=lambda knob: _worst({knob: one["errors"][knob]}))
            texts = {"error": texts[worst], "of": worst.removeprefix("learner.")}
        shown.add_row(*tables.row(name, *texts.values(), f"{one['seconds']:.3g}", f"{one['peak_bytes'] / 2**20:.3g}"))
    screen.print(shown)
    for kind, one in compared.items():
        if one["refused"]:
            screen.print(f"refused: {kind}: {one['refused'].split('; ')[0]}", markup=False, style="dim")


def _error_text(error: float | None, slope: float | None) -> str:
    """Say an estimator's error of a knob along which the checked one's is ``slope``; None is what has no number."""
    if error is None:
        return "no slope" if slope is None else "diverged"
    return f"{error:.1e}"


def _worst(errors: Mapping[str, float | None]) -> float:
    return max(math.inf if error is None else error for error in errors.values())


COMMAND = Command(check, examples=("metaloom check sinusoid-meta-sgd",))
