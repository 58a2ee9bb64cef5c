"""``metaloom check``: validates an experiment, and checks each learned knob's hypergradient."""

import math
from collections.abc import Mapping
from typing import Any

from metaloom.learners.errors import BadInput
from metaloom.orchestrator.command_line import answers
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.store import DEFAULT_STORE
from metaloom.workers.records.names import DIAGNOSTIC

with deferred():
    from metaloom.orchestrator import hypergradient_check
    from metaloom.orchestrator.command_line import tables
    from metaloom.workers import progress as solutions

COMPARED_KNOBS = 5  # with more knobs the columns are too narrow, and only the worst knob is shown


def check(
    experiment: answers.ExperimentArgument,
    changes: answers.SetOption = [],  # noqa: B006  (typer copies it)
    trust_code: answers.TrustOption = False,
    store: answers.StoreOption = DEFAULT_STORE,
    as_json: answers.JsonOption = False,
) -> int:
    """Validate an experiment and its hypergradients.

    Compares each learned knob's hypergradient with central differences in float64, for each member of each choice.
    Exits with code 2 if the estimator reports that its result is not reliable here.
    """
    with answers.answering(as_json) as answer:
        document = hypergradient_check.check_experiment(experiment, changes, store=store, trust_code=trust_code)
        answer.give(document, lambda screen: _show_check(screen, document))
        return BadInput.exit_code if document["flagged"] else 0


def _show_check(screen: answers.Screen, document: Mapping[str, Any]) -> None:
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
    columns = ["learned knob", "relative error", "numbers", "norm", "estimator"]
    columns = columns if len(estimators) > 1 else columns[:-1]
    shown = tables.table(*columns)
    for knob, error in document["knobs"].items():
        detail = document["details"][knob]
        error_text = "no slope" if error is None else f"{error:.2e}"
        cells = (knob, error_text, f"{detail['numbers']:,}", f"{detail['norm']:.3g}", detail["estimator"])
        shown.add_row(*tables.row(*cells[: len(columns)]))
    screen.print(shown)
    for member in document["members"]:  # an implicit gradient is only as accurate as its inner solution
        diagnostics = member["diagnostics"].items()
        metrics = {f"{DIAGNOSTIC}{name}": value for name, value in diagnostics if value is not None}
        solution = solutions.solution_warning(metrics) or solutions.solution_text(metrics)
        if solution:
            screen.print(f"{member['estimator']}: {solution}", markup=False)
    screen.print(document["verdict"], markup=False)
    _show_estimators(screen, document)


def _show_estimators(screen: answers.Screen, document: Mapping[str, Any]) -> None:
    """Show every estimator's error per knob and its cost; then the refused estimators with the reasons."""
    slopes, compared = document["members"][0]["knobs"], document["estimators"]
    used = {kind: comparison for kind, comparison in compared.items() if not comparison["refused"]}
    if not used:
        return
    many = len(slopes) > COMPARED_KNOBS
    each = "its largest relative error over the learned knobs" if many else "relative error of each learned knob"
    screen.print(f"\nEvery estimator here: {each}, and the cost of one hypergradient.")
    heads = ["largest error", "of"] if many else [knob.removeprefix("learner.") for knob in slopes]
    shown = tables.table("estimator", *heads, "seconds", "peak MB")
    sloped = [knob for knob in slopes if slopes[knob] is not None] or list(slopes)
    for kind, comparison in sorted(used.items(), key=lambda item: max(map(_size, item[1]["errors"].values()))):
        name, errors = f"{'*' if kind == document['estimator'] else ' '}{kind}", comparison["errors"]
        texts = {knob: _error_text(error, slopes[knob]) for knob, error in errors.items()}
        if many:
            worst = max(sloped, key=lambda knob: _size(errors[knob]))
            texts = {"error": texts[worst], "of": worst.removeprefix("learner.")}
        cost = f"{comparison['seconds']:.3g}", f"{comparison['peak_bytes'] / 2**20:.3g}"
        shown.add_row(*tables.row(name, *texts.values(), *cost))
    screen.print(shown)
    for kind, comparison in compared.items():
        if comparison["refused"]:
            screen.print(f"refused: {kind}: {comparison['refused'].split('; ')[0]}", markup=False, style="dim")


def _error_text(error: float | None, slope: float | None) -> str:
    """Return an estimator's error as text; ``slope`` is the checked error, None if the objective has no slope."""
    if error is None:
        return "no slope" if slope is None else "diverged"
    return f"{error:.1e}"


def _size(error: float | None) -> float:
    return math.inf if error is None else error


COMMAND = Command(check, examples=("metaloom check sinusoid-meta-sgd",))
