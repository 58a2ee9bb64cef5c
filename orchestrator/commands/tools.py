"""Commands around a search: check, ui, doctor, presets, schema."""

import math
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metaloom.orchestrator.commands.answers import (
    ExperimentArgument,
    JsonOption,
    SetOption,
    StoreOption,
    answering,
    console,
)
from metaloom.orchestrator.store import DEFAULT_STORE

if TYPE_CHECKING:
    from rich.console import Console

BAD_INPUT = 2
ENVIRONMENT_AT_FAULT = 3
COMPARED_KNOBS = 5  # more columns than that are too narrow to be read: then only the worst knob is shown


def check(
    experiment: ExperimentArgument,
    changes: SetOption = [],  # noqa: B006  (typer copies it)
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> int:
    """Validate an experiment and its hypergradients.

    Each learned knob's hypergradient is compared with central differences in float64, for every member of
    every choice. The exit code is 2 if the estimator does not stand by what it would give.
    """
    with answering(as_json) as answer:
        from metaloom.orchestrator.hypergradient_check import check_experiment

        document = check_experiment(experiment, changes, store=store)
        answer.give(document, lambda screen: _show_check(screen, document))
        return BAD_INPUT if document["flagged"] else 0


def ui(
    port: Annotated[int | None, typer.Option("--port", min=1, max=65535, help="By default a free one.")] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open it in the browser.")] = True,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Open the MLflow UI on a store, on 127.0.0.1; Ctrl-C ends it."""
    with answering(as_json) as answer:
        import webbrowser

        from metaloom.orchestrator.commands import ui as serving

        chosen = serving.free_port(port)
        console(sys.stderr).print(f"starting the MLflow UI on {store} ...", markup=False)
        with serving.served(store, chosen) as process:
            url = f"http://{serving.HOST}:{chosen}"
            told = f"{url} shows {store}; Ctrl-C ends it"
            answer.give({"url": url, "pid": process.pid}, lambda screen: screen.print(told, markup=False))
            if browser:
                webbrowser.open(url)
            serving.serve(process)


def doctor(
    ray: Annotated[bool, typer.Option("--ray/--no-ray", help="Try whether Ray starts (some seconds).")] = True,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> int:
    """Show what this machine has and lacks.

    Versions, devices, Ray, write access and free disk, in one table.
    """
    with answering(as_json) as answer:
        from metaloom.orchestrator.commands.doctor import examine

        findings = [finding.to_json() for finding in examine(store, try_ray=ray)]
        answer.give({"findings": findings}, lambda screen: _show_findings(screen, findings))
        return 0 if all(finding["good"] for finding in findings) else ENVIRONMENT_AT_FAULT


def presets(store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> None:
    """List the experiments that are shipped.

    With what each shows and how many minutes it takes on 2 cores.
    """
    with answering(as_json) as answer:
        from dataclasses import asdict

        from metaloom.search_spaces.reading.presets import presets as shipped

        rows = [asdict(preset) for preset in shipped()]
        answer.give({"presets": rows}, lambda screen: _show_presets(screen, rows))


def schema(store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> None:
    """Print the JSON Schema of experiment files, for editors."""
    with answering(as_json=True) as answer:
        from metaloom.search_spaces.json_schema import json_schema

        answer.give(json_schema(), lambda screen: None)


def _show_check(screen: "Console", document: Mapping[str, Any]) -> None:
    from metaloom.orchestrator.commands.tables import row, table
    from metaloom.workers.progress import solution_text, solution_warning
    from metaloom.workers.records.names import DIAGNOSTIC

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
    shown = table("learned knob", "relative error", "numbers", "norm", *(["estimator"] if several else []))
    for knob, error in document["knobs"].items():
        detail = document["details"][knob]
        told = "no slope" if error is None else f"{error:.2e}"
        cells = [knob, told, f"{detail['numbers']:,}", f"{detail['norm']:.3g}"]
        shown.add_row(*row(*cells, *([detail["estimator"]] if several else [])))
    screen.print(shown)
    for member in document["members"]:  # an implicit gradient is as good as the solution that it is taken at
        known = {name: one for name, one in member["diagnostics"].items() if one is not None}
        metrics = {f"{DIAGNOSTIC}{name}": one for name, one in known.items()}
        solution = solution_warning(metrics) or solution_text(metrics)
        if solution:
            screen.print(f"{member['estimator']}: {solution}", markup=False)
    screen.print(document["verdict"], markup=False)
    _show_estimators(screen, document)


def _show_estimators(screen: "Console", document: Mapping[str, Any]) -> None:
    """Show every estimator's error per knob and its cost; then those that cannot be used here, and why."""
    from metaloom.orchestrator.commands.tables import row, table

    knobs, compared = list(document["members"][0]["knobs"]), document["estimators"]
    used = {kind: one for kind, one in compared.items() if not one["refused"]}
    if not used:
        return
    many = len(knobs) > COMPARED_KNOBS
    each = "its largest relative error over the learned knobs" if many else "relative error of each learned knob"
    screen.print(f"\nEvery estimator here: {each}, and the cost of one hypergradient.")
    heads = ["largest error", "of"] if many else [knob.removeprefix("learner.") for knob in knobs]
    shown = table("estimator", *heads, "seconds", "peak MB")
    flat = document["members"][0]["knobs"]
    sloped = [knob for knob in knobs if flat[knob] is not None] or knobs
    for kind, one in sorted(used.items(), key=lambda item: _worst(item[1]["errors"])):
        name = f"{'*' if kind == document['estimator'] else ' '}{kind}"
        told = {knob: _told(error, flat[knob]) for knob, error in one["errors"].items()}
        if many:
            worst = max(sloped, key=lambda knob: _worst({knob: one["errors"][knob]}))
            told = {"error": told[worst], "of": worst.removeprefix("learner.")}
        shown.add_row(*row(name, *told.values(), f"{one['seconds']:.3g}", f"{one['peak_bytes'] / 2**20:.3g}"))
    screen.print(shown)
    for kind, one in compared.items():
        if one["refused"]:
            screen.print(f"refused: {kind}: {one['refused'].split('; ')[0]}", markup=False, style="dim")


def _told(error: float | None, slope: float | None) -> str:
    """Say an estimator's error of a knob along which the checked one's is ``slope``; None is what has no number."""
    if error is None:
        return "no slope" if slope is None else "diverged"
    return f"{error:.1e}"


def _worst(errors: Mapping[str, float | None]) -> float:
    return max(math.inf if error is None else error for error in errors.values())


def _show_findings(screen: "Console", findings: list[dict[str, Any]]) -> None:
    from metaloom.orchestrator.commands.tables import row, table

    shown = table("", "check", "found")
    for finding in findings:
        mark = "[green]ok[/]" if finding["good"] else "[red]no[/]"
        shown.add_row(mark, *row(finding["check"], finding["found"]))
    screen.print(shown)


def _show_presets(screen: "Console", rows: list[dict[str, Any]]) -> None:
    from metaloom.orchestrator.commands.tables import table

    shown = table("preset", "minutes", "title", "shows")
    for row in rows:
        shown.add_row(row["name"], f"{row['minutes']:g}", row["title"], row["shows"])
    screen.print(shown)
