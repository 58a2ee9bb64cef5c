"""The report of a search as Markdown: its aim, its best trial, its tests, its trials and what was learned."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from metaloom.dashboards.text import (
    better_by,
    counted,
    knobs_text,
    method_cells,
    number,
    scored,
    source_cells,
    span,
    stage_cells,
    without_best,
)

MOST_TRIALS = 25  # the best ones


def report(summary: Mapping[str, Any]) -> str:
    """Return the report of ``queries.search_summary``'s document."""
    return "\n".join(_lines(summary)) + "\n"


def trial_line(row: Mapping[str, Any], metric: str) -> str:
    """Describe a trial in one line, from its row in the summary."""
    why = f": {row['error']}" if row["error"] else ""
    value = f"; {metric} {scored(row['value'], row['interval'])}" if row["value"] is not None else ""
    return f"{row['state']} after {counted(row['steps'], 'step')}{why}{value}. Knobs: `{knobs_text(row['knobs'])}`"


def _lines(summary: Mapping[str, Any]) -> Iterator[str]:
    aims = summary["objectives"]
    metric = aims[0]["metric"] if aims else "value"
    yield f"# Search {summary['name']}"
    yield ""
    ended = sum(row["state"] in ("finished", "stopped", "failed") for row in summary["trials"])
    told = ", ".join(f"{aim['direction']} {aim['metric']}" for aim in aims)
    asked = counted(summary["asked"] or ended, "trial")
    yield f"{summary['state']}: {ended} of {asked} ended; {told}; seed {summary['seed']}"
    yield from (line for note in summary["notes"] for line in ("", f"> {note}"))
    yield ""
    best = summary["best"]
    yield without_best(summary) if best is None else f"**Best: trial {best['id']}**, {trial_line(best, metric)}"
    yield from _tests(summary)
    yield from _trials(summary)
    titled = {"Methods": method_cells(summary), "Stages": stage_cells(summary)}
    if best is not None:
        titled[f"Data sets of trial {best['id']}"] = source_cells(summary)
    for title, (heads, cells) in titled.items():
        if cells:
            yield from ("", f"## {title}", "", *_table(heads, cells))
    if summary["learned"]:
        yield from ("", f"## What trial {best['id']} has learned", "")
        yield from (f"- {learned['name']}: {learned['caption']}" for learned in summary["learned"])


def _tests(summary: Mapping[str, Any]) -> Iterator[str]:
    tested = summary["test"]
    rows = [] if tested is None else [(f"trial {tested['trial']} (best)", tested["evaluation"], "")]
    rows += [
        (f"baseline {one['method']}", one["evaluation"], better_by(one["best_better_by"]))
        for one in summary["baselines"]
    ]
    if rows:
        metric = rows[0][1].get("metric") or "score"
        yield from ("", "## Test", "")
        heads = ("on the test split", f"{metric} [95% interval]", "the best is better by", "episodes")
        cells = [
            (name, scored(one["mean"], one["interval"]), difference, str(one["episodes"]))
            for name, one, difference in rows
        ]
        yield from _table(heads, cells)


def _trials(summary: Mapping[str, Any]) -> Iterator[str]:
    heads, rows = trial_cells(summary)
    if rows:
        yield from ("", "## Trials" + (f": the best {MOST_TRIALS}" if len(rows) > MOST_TRIALS else ""), "")
        yield from _table(heads, rows[:MOST_TRIALS])


def trial_cells(summary: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the heads and the rows of the table of trials, the best ones first."""
    rows, aims = summary["trials"], summary["objectives"]
    maximize = bool(aims) and aims[0]["direction"] == "maximize"
    ordered = sorted(rows, key=lambda row: (row["value"] is None, _order(row["value"], maximize), row["id"]))
    others = [aim["metric"] for aim in aims[1:]]
    knobs = sorted({knob for row in rows for knob in row["knobs"]})
    metric = aims[0]["metric"] if aims else "value"
    heads = ("trial", "state", f"{metric} [95% interval]", *others, "steps", "time", *knobs)
    return heads, [_cells(row, others, knobs) for row in ordered]


def _cells(row: Mapping[str, Any], others: Sequence[str], knobs: Sequence[str]) -> tuple[str, ...]:
    values = [row["knobs"].get(knob) for knob in knobs]
    told = ["" if one is None else number(one) if isinstance(one, float) else str(one) for one in values]
    more = [number(row["values"].get(metric)) for metric in others]
    value = scored(row["value"], row["interval"])
    return str(row["id"]), row["state"], value, *more, str(row["steps"]), span(row["seconds"]), *told


def _order(value: float | None, maximize: bool) -> float:
    return 0.0 if value is None else -value if maximize else value


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for cells in rows:
        yield f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
