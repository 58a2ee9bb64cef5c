"""The tables of searches, trials, episodes and scores on the console."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from metaloom.dashboards.queries import how_to_use
from metaloom.dashboards.rows import PlanRow
from metaloom.dashboards.text import (
    beside_constant,
    configuration_cells,
    counted,
    ending_lines,
    in_units,
    knobs_text,
    method_cells,
    number,
    other_setting,
    scored,
    source_cells,
    span,
    stage_cells,
    test_cells,
    without_best,
)
from metaloom.learners.redaction import clean
from metaloom.orchestrator.store import store_option
from metaloom.workers.records import names as records
from metaloom.workers.records.episode import EPISODE_COLUMNS_SHOWN
from metaloom.workers.records.results import INNER_STEPS

STATE_STYLES = {
    records.FINISHED: "green",
    records.STOPPED: "yellow",
    records.FAILED: "red",
    records.RUNNING: "cyan",
    records.WAITING: "dim",
}


class CleanConsole(Console):
    """Prints texts without secrets, and their control characters as escapes."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does."""
        super().print(*(clean(one) if isinstance(one, str) else one for one in objects), **options)


def console(stream: TextIO) -> Console:
    """Return a console: colours and live display on a terminal, plain text elsewhere."""
    # Programs read a file or a pipe line by line, so lines are not wrapped there.
    width = None if stream.isatty() else max(int(os.environ.get("COLUMNS", "0") or 0), 160)
    return CleanConsole(file=stream, highlight=False, soft_wrap=not stream.isatty(), width=width)


def table(*columns: str) -> Table:
    """Return an empty table with a thin rule under its head."""
    return Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")


def row(*cells: str) -> tuple[Text, ...]:
    """Return cells as plain text: square brackets, as in learner[maml].update.rate, are no markup."""
    return tuple(Text(clean(cell)) for cell in cells)


def styled(state: str) -> Text:
    """Colour a state."""
    return Text(state, style=STATE_STYLES.get(state, ""))


def show_searches(console: Console, rows: Sequence[Mapping[str, Any]], store: Path) -> None:
    """Print the searches of a store."""
    if not rows:
        console.print(f"{store} has no search yet. Begin one with: metaloom search default{store_option(store)}")
        return
    shown = table("name", "state", "trials", "best", "value", "objective", "last event")
    for search in rows:
        ended = sum(search["trials"][state] for state in (records.FINISHED, records.STOPPED, records.FAILED))
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(search["updated"])) if search["updated"] else "-"
        shown.add_row(
            search["name"],
            styled(search["state"]),
            f"{ended}/{'-' if search['asked'] is None else search['asked']}",
            "-" if search["best"] is None else str(search["best"]),
            number(search["value"]),
            search["objectives"][0]["metric"] if search["objectives"] else "-",
            when,
        )
    console.print(shown)
    for search in rows:
        show_warnings(console, search)


def show_warnings(console: Console, search: Mapping[str, Any]) -> None:
    """Print what is wrong with a search's records."""
    for line in search["warnings"]:
        console.print(f"{search['name']}: {line}", style="yellow", markup=False)


def show_search(console: Console, summary: Mapping[str, Any], *, notes: bool = False) -> None:
    """Print a search and its trials; with ``notes`` also the notes of single trials."""
    aims = ", ".join(f"{aim['direction']} {aim['metric']}" for aim in summary["objectives"])
    console.print(summary["name"], styled(summary["state"]), aims)
    show_warnings(console, summary)
    for line in summary["notes"]:
        console.print(f"note: {line}", markup=False)
    others, best = [aim["metric"] for aim in summary["objectives"][1:]], summary["best"]
    shown = table("trial", "state", "value [95% interval]", *others, "steps", "time", "knobs")
    for trial in summary["trials"]:
        mark = "*" if best is not None and trial["id"] == best["id"] else " "
        more = (number(trial["values"].get(metric)) for metric in others)
        cells = scored(trial["value"], trial["interval"]), *more, str(trial["steps"]), span(trial["seconds"])
        state = styled(trial["state"])
        if str(trial["id"]) in summary.get("infeasible", {}):
            state.append(", infeasible", style="red")
        shown.add_row(f"{mark}{trial['id']}", state, *row(*cells, knobs_text(trial["knobs"])))
    console.print(shown)
    if best is None and summary.get("infeasible"):
        console.print(without_best(summary), style="red", markup=False)
    for trial in summary["trials"]:
        lines = [(f" failed: {trial['error']}", "red")] if trial["error"] else []
        lines += [(f": {line}", "yellow") for line in trial["warnings"]]
        lines += [(f": {line}", "dim") for line in trial["notes"] if notes]
        for line, style in lines:
            console.print(f"trial {trial['id']}{line}", style=style, markup=False)
    show_cells(console, *configuration_cells(summary))
    show_ending(console, summary)
    if "pareto" in summary:
        console.print(f"Pareto front: trials {', '.join(map(str, summary['pareto'])) or 'none'}")
    show_parts(console, summary)
    show_tests(console, summary)
    show_learned(console, summary)


def show_parts(console: Console, summary: Mapping[str, Any]) -> None:
    """Print the stages, the best trial of each method with its time of an adaptation, and the best on each data set."""
    for cells in (stage_cells, method_cells, source_cells):
        show_cells(console, *cells(summary))


def show_cells(console: Console, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; nothing where it has no rows."""
    if rows:
        shown = table(*heads)
        for cells in rows:
            shown.add_row(*row(*cells))
        console.print(shown)


def show_ending(console: Console, summary: Mapping[str, Any]) -> None:
    """Print what has ended a search before all its trials were tried."""
    for line in ending_lines(summary):
        console.print(line, style="yellow", markup=False)


def show_learned(console: Console, summary: Mapping[str, Any]) -> None:
    """Print what the best trial has learned, with the files of the figures."""
    if summary["learned"]:
        console.print(f"What trial {summary['best']['id']} has learned:", markup=False)
    for learned in summary["learned"]:
        console.print(f"  {learned['name']}: {learned['caption']}", markup=False, highlight=False)
        console.print(f"    {learned['figure']}", style="dim", markup=False, highlight=False, soft_wrap=True)


def show_tests(console: Console, summary: Mapping[str, Any]) -> None:
    """Print the test scores of the best trial and the baselines in one table."""
    show_cells(console, *test_cells(summary))
    tested = [summary["test"], *summary["baselines"]]
    first = next((one for one in tested if one is not None), None)
    if first is not None:
        show_constant(console, first["evaluation"])


def show_constant(console: Console, evaluation: Mapping[str, Any]) -> None:
    """Print a regression's loss beside that of predicting a constant."""
    if line := beside_constant(evaluation):
        worse = evaluation["mean"] > evaluation["constant"]
        console.print(line, style="yellow" if worse else "dim", markup=False)


def show_outcome(console: Console, summary: Mapping[str, Any], store: Path) -> None:
    """Print a search's result and the next commands."""
    show_search(console, summary)
    name, best = summary["name"], summary["best"]
    console.print(f"Records: {store / records.SEARCHES_FOLDER / name}", markup=False)
    places = store_option(store)
    if summary["state"] == records.INTERRUPTED:
        console.print(interrupted_line(summary, store), style="yellow", markup=False)
        return
    if best is None:
        if not summary.get("infeasible"):
            console.print(without_best(summary), style="red", markup=False)
        return
    use = how_to_use(store, name, best["id"])
    console.print("Go on with:")
    console.print(f"  browse:  metaloom ui{places}", markup=False)
    console.print(f"  export:  metaloom export {name} --trial best --out {name}-bundle{places}", markup=False)
    console.print(f"  {use.split()[0]}:  metaloom {use}", markup=False)


def show_plan(console: Console, planned: PlanRow) -> None:
    """Print what a search would do."""
    aims = ", ".join(f"{aim.direction} {aim.metric}" for aim in planned.objectives)
    trials = f"{counted(planned.trials, 'trial')} of {counted(planned.steps, 'outer step')}"
    chosen = f"sampler {planned.sampler}, scheduler {planned.scheduler}, executor {planned.executor}"
    console.print(f"{planned.name}: {trials}, {aims}; {chosen}", markup=False)
    if planned.baselines:
        console.print(f"baselines: {', '.join(planned.baselines)}", markup=False)
    if planned.knobs:
        shown = table("searched knob", "range", "default")
        for name, knob in planned.knobs.items():
            default = "-" if knob["default"] is None else str(knob["default"])
            shown.add_row(*row(name, knob["range"], default))
        console.print(shown)
    for note in planned.notes:
        console.print(note, markup=False)
    console.print("Everything is checked. Nothing was written.")


def interrupted_line(summary: Mapping[str, Any], store: Path) -> str:
    """Return the line that says how to resume an interrupted search."""
    return f"Interrupted. Resume it with: metaloom resume {summary['name']}{store_option(store)}"


def show_episodes(console: Console, rows: Sequence[Mapping[str, Any]], total: int) -> None:
    """Print episode rows."""
    several = len({episode["source"] for episode in rows}) > 1
    columns = ("source", *EPISODE_COLUMNS_SHOWN) if several else EPISODE_COLUMNS_SHOWN
    shown = table(*columns)
    for episode in rows:
        values = (episode[column] for column in columns)
        shown.add_row(*row(*(number(one) if isinstance(one, float | None) else str(one) for one in values)))
    console.print(shown)
    console.print(f"{len(rows)} of {total} episodes (all columns with --json)")


def generalized(both: Mapping[str, Any]) -> str:
    """Write the score of training classes and new ones together in words."""
    named = "training classes {seen:.4f}, new classes {unseen:.4f}, harmonic mean {harmonic:.4f}"
    plain = "{plain_seen:.4f}, {plain_unseen:.4f}, {plain_harmonic:.4f}"
    return f"{named} with the penalty {{penalty:.4g}}, and without it {plain}".format(**both)


def show_evaluation(console: Console, evaluation: Mapping[str, Any]) -> None:
    """Print a score and its value after each inner step, or of a sequence at each presentation of a class."""
    metric = evaluation["metric"]
    console.print(
        f"test {metric} {scored(evaluation['mean'], evaluation['interval'])} over {evaluation['episodes']} episodes"
        f" ({evaluation['setting']}, batch norm: {evaluation['batch_norm']})",
        markup=False,
    )
    if evaluation.get("units"):
        console.print(f"root mean squared error in units of the target: {in_units(evaluation)}", markup=False)
    if (both := evaluation.get("generalized")) is not None:
        console.print(generalized(both), markup=False)
    show_constant(console, evaluation)
    for line in other_setting(evaluation):
        console.print(line, markup=False)
    if len(evaluation["per_step"]) > 1:
        shown = table(evaluation.get("curve", INNER_STEPS), f"{metric} [95% interval]")
        for step in evaluation["per_step"]:
            shown.add_row(str(int(step["step"])), scored(step["mean"], (step["low"], step["high"])))
        console.print(shown)
