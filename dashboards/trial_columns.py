"""The columns of the table of a search's trials: what each holds, its type, and how a condition names it."""

import ast
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from keyword import iskeyword
from typing import Any

from metaloom.dashboards import rows
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.search import SearchRecord, TrialRecord

INTEGER, NUMBER, TEXT, TRUTH = "int64", "float64", "string", "bool"  # as Arrow names them
KNOBS_SHOWN = 8  # by default; the others are a choice away


@dataclass(frozen=True)
class TrialFacts:
    """All that is known of a trial."""

    search: SearchRecord
    summary: rows.SearchRow
    row: rows.TrialRow
    trial: TrialRecord


Read = Callable[[TrialFacts], Any]


@dataclass(frozen=True)
class TrialColumn:
    """A column of the table.

    Attributes:
        name: What the downloads and the page call it.
        doc: What it holds.
        kind: Its Arrow type; None: by its values.
        read: Its value in a trial.
        shown: Whether the page shows it by default.
    """

    name: str
    doc: str
    kind: str | None
    read: Read
    shown: bool = False

    @cached_property
    def key(self) -> str:
        """How a condition names it: by its name where Python's grammar has it for a name, as ``learner.rate``."""
        try:
            node = ast.parse(self.name, mode="eval").body
        except SyntaxError:
            node = None
        if isinstance(node, ast.Name | ast.Attribute | ast.Subscript) and ast.unparse(node) == self.name:
            return self.name
        word = re.sub(r"\W+", "_", self.name)
        return f"_{word}" if word[:1].isdigit() or iskeyword(word) else word


def ending(trial: TrialRecord) -> str:
    """Say in words why a trial is in its state."""
    lost = f"; its worker was lost {trial.lost} times" if trial.lost > 1 else "; its worker was lost" * trial.lost
    match trial.state:
        case records.FINISHED:
            early = next((note for report in reversed(trial.reports) for note in report.notes), "")
            return f"all its outer steps are done{f': {early}' if early else ''}{lost}"
        case records.STOPPED:
            return f"{trial.reason or 'no reason was given'}{lost}"
        case records.FAILED:
            return f"{trial.error}"
        case records.RUNNING:
            return f"attempt {trial.attempts}{lost}"
    begun = "waits to go on" if trial.attempts else "not begun"
    return f"{begun}{f': {trial.reason}' if trial.reason else ''}{lost}"


def _interval(end: int) -> Read:
    return lambda facts: None if facts.row.interval is None else facts.row.interval[end]


def _lines(texts: Sequence[str]) -> str | None:
    return "\n".join(texts) or None


FIRST = (
    TrialColumn("trial", "the trial's number", INTEGER, lambda facts: facts.row.id, shown=True),
    TrialColumn("state", "finished, stopped, failed, running or waiting", TEXT, lambda facts: facts.row.state, True),
    TrialColumn("why", "why it is in this state", TEXT, lambda facts: ending(facts.trial), shown=True),
    TrialColumn("value", "the first objective, by the last report", NUMBER, lambda facts: facts.row.value, shown=True),
    TrialColumn("low", "lower end of the value's 95% interval over episodes", NUMBER, _interval(0)),
    TrialColumn("high", "upper end of it", NUMBER, _interval(1)),
    TrialColumn("best", "whether it is the best trial", TRUTH, lambda facts: facts.row is facts.summary.best),
)
EFFORT = (
    TrialColumn("steps", "outer steps done", INTEGER, lambda facts: facts.row.steps, shown=True),
    TrialColumn("seconds", "time of these steps", NUMBER, lambda facts: facts.row.seconds, shown=True),
)
LAST = (
    TrialColumn("warnings", "problems that were repaired", TEXT, lambda facts: _lines(facts.row.warnings), shown=True),
    TrialColumn("notes", "remarks", TEXT, lambda facts: _lines(facts.row.notes)),
    TrialColumn("attempts", "how often it was started", INTEGER, lambda facts: facts.trial.attempts),
    TrialColumn("lost", "how often its worker was lost", INTEGER, lambda facts: facts.trial.lost),
    TrialColumn("validation_episodes", "of which the value is the mean", INTEGER, lambda facts: facts.row.episodes),
    TrialColumn("episodes_seen", "training and validation episodes", INTEGER, lambda facts: facts.row.episodes_seen),
    TrialColumn("origin", "the sampler, or the trial whose knobs it took", TEXT, lambda facts: facts.trial.origin),
    TrialColumn("repeat_of", "the trial whose knobs it repeats", INTEGER, lambda facts: facts.row.repeat_of),
    TrialColumn("run_id", "of its MLflow run", TEXT, lambda facts: facts.row.run_id),
)


def columns_of(search: SearchRecord, summary: rows.SearchRow) -> tuple[TrialColumn, ...]:
    """Return the columns of a search's table; each has a name and a key of its own."""
    found: dict[str, TrialColumn] = {}
    taken: set[str] = set()
    for column in (*FIRST, *_aims(summary), *EFFORT, *_knobs(summary), *LAST, *_metrics(search, summary)):
        if column.name not in found and column.key not in taken:
            found[column.name] = column
            taken.add(column.key)
    return tuple(found.values())


def _aims(summary: rows.SearchRow) -> Iterator[TrialColumn]:
    """Yield the further objectives, and what tells which trials count."""
    for aim in summary.objectives[1:]:
        yield TrialColumn(aim.metric, f"objective: {aim.direction} it", NUMBER, _value_of(aim.metric), shown=True)
    if summary.pareto is not None:
        doc = "whether no other trial dominates it"
        yield TrialColumn("pareto", doc, TRUTH, lambda facts: facts.row.id in (facts.summary.pareto or ()), shown=True)
    if summary.constraints is not None:
        doc = "by how much it breaks the constraints in all; 0 if it keeps them"
        yield TrialColumn("violation", doc, NUMBER, _violation, shown=True)


def _violation(facts: TrialFacts) -> float | None:
    return ranking.violation(facts.search, facts.trial) if facts.trial.last else None


def _knobs(summary: rows.SearchRow) -> Iterator[TrialColumn]:
    """Yield the searched knobs of all trials, in the order in which trials have them."""
    for place, knob in enumerate(dict.fromkeys(knob for row in summary.trials for knob in row.knobs)):
        yield TrialColumn(knob, "searched knob", None, _knob(knob), shown=place < KNOBS_SHOWN)


def _metrics(search: SearchRecord, summary: rows.SearchRow) -> Iterator[TrialColumn]:
    """Yield the metrics of the last reports that are no objectives."""
    aims = {aim.metric for aim in summary.objectives}
    reported = (trial.last.metrics for trial in search.trials.values() if trial.last)
    for metric in dict.fromkeys(metric for metrics in reported for metric in metrics):
        if metric not in aims:
            yield TrialColumn(metric, "metric of the last report", NUMBER, _metric(metric))


def _value_of(metric: str) -> Read:
    return lambda facts: (facts.row.values or {}).get(metric)


def _knob(name: str) -> Read:
    return lambda facts: facts.row.knobs.get(name)


def _metric(name: str) -> Read:
    return lambda facts: facts.trial.last.metrics.get(name) if facts.trial.last else None


def typed(values: Sequence[Any]) -> tuple[str, list[Any]]:
    """Return the Arrow type of a knob's values, and the values in it; what is no plain value becomes JSON."""
    kinds = {type(value) for value in values if value is not None}
    if kinds and kinds <= {bool}:
        return TRUTH, list(values)
    if kinds and kinds <= {int} and all(value is None or abs(value) < 2**63 for value in values):
        return INTEGER, list(values)
    if kinds and kinds <= {int, float}:
        return NUMBER, [None if value is None else float(value) for value in values]
    return TEXT, [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
