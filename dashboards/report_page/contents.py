"""What a report says, gathered from the search's document and record."""

import platform
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from metaloom.dashboards import report, text
from metaloom.learners.errors import MetaloomError
from metaloom.learners.redaction import redacted
from metaloom.workers.records import names as records
from metaloom.workers.records.search import SearchRecord

MOST_TRIALS = 20  # the best ones; the others are folded away
PACKAGES = ("metaloom", "torch", "ray", "optuna", "mlflow", "numpy")
ENDED = (records.FINISHED, records.STOPPED, records.FAILED)


@dataclass(frozen=True)
class ReportTable:
    """A table of texts with the heads of its columns."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Listing:
    """A text that is shown as it is."""

    title: str
    text: str


def facts(summary: Mapping[str, Any], search: SearchRecord) -> list[tuple[str, str]]:
    """Return what stands on top, each with its name."""
    best, test = summary["best"], summary["test"]
    found = [("State", summary["state"])]
    if best is not None:
        metric = summary["objectives"][0]["metric"]
        found.append((f"Best {metric}", f"{text.scored(best['value'], best['interval'])} (trial {best['id']})"))
    if test is not None:
        found.append((f"Its test {test['evaluation']['metric']}", _scored(test["evaluation"])))
    found += [
        (f"Lead over {one['method']}", text.better_by(one["best_better_by"]))
        for one in summary["baselines"]
        if one["best_better_by"]
    ]
    ended = sum(row["state"] in ENDED for row in summary["trials"])
    found.append(("Trials", f"{ended} of {summary['asked'] or ended} ended"))
    found.append(("Time of the trials", text.span(search.elapsed_s)))
    began = [] if search.created_at is None else [("Begun", _moment(search.created_at))]
    return [*found, *began, ("Seed", str(summary["seed"]))]


def searched(summary: Mapping[str, Any], search: SearchRecord) -> list[tuple[str, str]]:
    """Return how was searched, each setting with its name."""
    found = [("Objectives", ", ".join(f"{aim['direction']} {aim['metric']}" for aim in summary["objectives"]))]
    if (settings := search.settings) is None:
        return found
    for one in summary.get("constraints") or ():
        bounds = [f"{sign} {one[end]:g}" for end, sign in (("min", "≥"), ("max", "≤")) if one[end] is not None]
        found.append(("Constraint", f"{one['metric']} {' and '.join(bounds)}"))
    found += [(name.capitalize(), _strategy(getattr(settings, name))) for name in ("sampler", "scheduler")]
    budget = settings.time_budget_s
    found += [] if budget is None else [("Time budget", text.span(budget))]
    best = summary["best"]
    config = search.trials[best["id"]].config if best is not None else None
    if config is not None:
        found.append(("Tasks of the best trial", _strategy(config.tasks)))
        found.append(("Its learner", str(config.learner.get("method") or "own components")))
    return found


def knob_table(summary: Mapping[str, Any], search: SearchRecord) -> ReportTable:
    """Return the searched knobs with what they were searched in, and the best trial's value."""
    ranges: dict[str, str] = {}
    for trial in search.trials.values():
        ranges |= {knob: trial.distributions.get(knob, "") for knob in trial.knobs if knob not in ranges}
    chosen = summary["best"]["knobs"] if summary["best"] is not None else {}
    rows = [(knob, text.knob_range(found) or "-", _value(chosen.get(knob))) for knob, found in sorted(ranges.items())]
    return ReportTable("Searched knobs", ("knob", "searched in", "best trial"), rows)


def test_table(summary: Mapping[str, Any]) -> ReportTable:
    """Return the tests of the best trial and the baselines, with their protocol."""
    test = summary["test"]
    tests = [] if test is None else [(f"trial {test['trial']} (best)", test["evaluation"], "")]
    tests += [
        (f"baseline {one['method']}", one["evaluation"], text.better_by(one["best_better_by"]))
        for one in summary["baselines"]
    ]
    metric = (tests[0][1].get("metric") or "score") if tests else "score"
    heads = (
        "on the test split",
        f"{metric} [95% interval]",
        "the best is better by",
        "episodes",
        "setting",
        "batch norm",
    )
    rows = [
        (name, _scored(one), difference, str(one["episodes"]), str(one["setting"]), str(one.get("batch_norm", "-")))
        for name, one, difference in tests
    ]
    return ReportTable("Test", heads, rows)


def trial_tables(summary: Mapping[str, Any]) -> tuple[ReportTable, ReportTable | None]:
    """Return the table of the best trials, and that of all where there are more; each as ``metaloom show`` has them."""
    heads, ordered = report.trial_cells(summary)
    kept = ordered[:MOST_TRIALS]
    best = ReportTable(f"The best {len(kept)} trials" if len(ordered) > len(kept) else "Trials", heads, kept)
    if len(ordered) <= len(kept):
        return best, None
    return best, ReportTable(f"All {len(ordered):,} trials", heads, ordered)


def part_tables(summary: Mapping[str, Any]) -> Iterator[ReportTable]:
    """Yield the tables of methods, stages and data sets that the search has."""
    for title, (heads, rows) in {
        "Methods": text.method_cells(summary),
        "Stages": text.stage_cells(summary),
        "Data sets of the best trial": text.source_cells(summary),
    }.items():
        if rows:
            yield ReportTable(title, heads, rows)


def listings(folder: Path, summary: Mapping[str, Any], search: SearchRecord) -> Iterator[Listing]:
    """Yield the experiment file, and the best trial as one."""
    file = folder / records.EXPERIMENT_FILE
    if file.is_file():
        yield Listing("The experiment file", redacted(file.read_text()))
    if summary["best"] is not None:
        from metaloom.dashboards.trial_file import trial_yaml  # torch, which the server of the pages must not load

        try:
            yield Listing(
                "The best trial as an experiment file", trial_yaml(search, summary["name"], summary["best"]["id"])
            )
        except MetaloomError as error:  # a record of another version
            yield Listing("The best trial as an experiment file", f"# {redacted(str(error))}")


def commands(summary: Mapping[str, Any], search: SearchRecord) -> list[str]:
    """Return the command lines that repeat the search, and those that use its best trial."""
    name = str(summary["name"])
    changes = [f"--set {shlex.quote(str(one))}" for one in search.created.get("overrides") or ()]
    again = " ".join([f"metaloom search {name}.yaml --name {name}-again", *changes])
    if summary["best"] is None:
        return [again]
    bundle = f"{name}-bundle"
    return [again, f"metaloom export {name} --trial best --out {bundle}", f"metaloom verify {bundle}"]


def versions() -> str:
    """Return the versions of what wrote the report."""
    found = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def _scored(evaluation: Mapping[str, Any]) -> str:
    return text.scored(evaluation["mean"], evaluation["interval"])


def _strategy(settings: Mapping[str, Any]) -> str:
    """Write a strategy or the tasks: the kind, and the settings that were given."""
    kind = str(settings.get("kind") or settings.get("source") or "")
    given = [
        f"{key} {_value(value)}"
        for key, value in settings.items()
        if key not in ("kind", "source") and value is not None
    ]
    return ", ".join([kind, *given])


def _value(value: Any) -> str:
    return "-" if value is None else text.number(value) if isinstance(value, float) else str(value)


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
