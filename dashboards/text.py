"""Measured values as text: numbers, intervals, time spans, knobs, and why a search has no best trial."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any


def number(value: float | None) -> str:
    """Write a measured number: 4 significant digits, a whole one whole."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value == round(value, 0) and abs(value) < 1e9 else f"{value:.4g}"


def scored(mean: float | None, interval: Sequence[float | None] | None) -> str:
    """Write a mean with its 95% interval."""
    if mean is None:
        return "-"
    if not interval or interval[0] is None or interval[1] is None:
        return f"{mean:.4f}"
    return f"{mean:.4f} [{interval[0]:.4f}, {interval[1]:.4f}]"


def in_units(evaluation: Mapping[str, Any]) -> str:
    """Write a regression's root mean squared error in the units of its target, with its 95% interval."""
    units = evaluation.get("units")
    return "-" if units is None else f"{number(units['rmse'])} [{', '.join(map(number, units['interval']))}]"


def beside_constant(evaluation: Mapping[str, Any]) -> str:
    """Compare a regression's loss with that of predicting a constant; empty where there is none."""
    constant = evaluation.get("constant")
    if constant is None or evaluation["mean"] is None:
        return ""
    units = evaluation.get("units")
    own = "" if units is None else f" ({number(units['constant_rmse'])} in units of the target)"
    verdict = "; the score is worse than that" if evaluation["mean"] > constant else ""
    return f"predicting the mean target of the support set: loss {constant:.4f}{own}{verdict}"


def better_by(difference: Mapping[str, Any] | None) -> str:
    """Write the mean difference on the same episodes with its 95% interval, signed."""
    if difference is None or difference["mean"] is None:
        return "-"
    if difference["interval"] is None:
        return f"{difference['mean']:+.4f}"
    low, high = difference["interval"]
    return f"{difference['mean']:+.4f} [{low:+.4f}, {high:+.4f}]"


def other_setting(evaluation: Mapping[str, Any], beside: Mapping[str, Any] | None = None) -> list[str]:
    """Say what the other setting scores on the same episodes, and by how much it differs; nothing where there is none.

    ``beside`` is the transductive score of an inductive bundle; else the evaluation may have an inductive one.
    """
    if beside is not None:
        difference = {"mean": beside["better_by"], "interval": beside["better_by_interval"]}
        scores = scored(beside["mean"], beside["interval"])
        return [f"  {beside['setting']} on the same episodes: {scores}; inductive is better by {better_by(difference)}"]
    if (inductive := evaluation.get("inductive")) is None:
        return []
    difference = {"mean": inductive["better_by"], "interval": inductive["better_by_interval"]}
    scores = scored(inductive["mean"], inductive["interval"])
    return [f"  inductive on the same episodes: {scores}, better by {better_by(difference)}"]


def knobs_text(knobs: Mapping[str, Any]) -> str:
    """Write knobs in one line, numbers shortened."""
    parts = [f"{name}={number(value) if isinstance(value, float) else value}" for name, value in knobs.items()]
    return " ".join(parts) or "-"


def range_text(low: float, high: float, log: bool) -> str:
    """Write the range that a knob is searched in."""
    return f"{low:g} to {high:g}{', log' if log else ''}"


def knob_range(distribution: str | None) -> str:
    """Write what a knob is searched over, from Optuna's JSON of its distribution; empty where it is not known."""
    if not distribution:
        return ""
    attributes = json.loads(distribution)["attributes"]
    if "choices" in attributes:
        return ", ".join(map(str, attributes["choices"]))
    return range_text(attributes["low"], attributes["high"], bool(attributes["log"]))


def size(count: int) -> str:
    """Write a number of bytes."""
    for unit, bytes_of_unit in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= bytes_of_unit:
            return f"{count / bytes_of_unit:.1f} {unit}"
    return f"{count} bytes"


def counted(count: int, noun: str) -> str:
    """Write a count with its noun, such as ``1 trial`` or ``2 trials``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def span(seconds: float | None) -> str:
    """Write a time span in its two largest units."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def without_best(summary: Mapping[str, Any]) -> str:
    """Say why a search has no best trial."""
    off = {trial: math.inf if by is None else by for trial, by in summary.get("infeasible", {}).items()}
    if not off:
        return "No trial has a result."
    bounds = ", ".join(
        f"{constraint['metric']} {sign} {constraint[end]:g}"
        for constraint in summary["constraints"]
        for end, sign in (("min", ">="), ("max", "<="))
        if constraint.get(end) is not None
    )
    nearest = min(off, key=lambda trial: off[trial])
    return f"No trial keeps the constraints ({bounds}): the nearest is trial {nearest}, off by {number(off[nearest])}."


METHOD_HEADS = ("method", "trial", "validation {metric} [95% interval]", "the best is better by", "adapts in")


def method_cells(summary: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the heads and the rows of the table of methods; no rows where the search has a single one."""
    methods = summary.get("methods") or ()
    if not methods:
        return METHOD_HEADS, []
    heads = tuple(head.format(metric=methods[0]["metric"]) for head in METHOD_HEADS)
    return heads, [
        (
            one["method"],
            str(one["trial"]),
            scored(one["mean"], one["interval"]),
            better_by({"mean": one["behind"][0], "interval": one["behind"][1:]}) if one["behind"] else "",
            "-" if one["adapt_seconds"] is None else milliseconds(one["adapt_seconds"]),
        )
        for one in methods
    ]


SOURCE_HEADS = ("data set", "validation {metric} [95% interval]", "episodes", "training loss")


def source_cells(summary: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the heads and the rows of the table of data sets; no rows where the best trial has a single one."""
    found = summary.get("sources") or ()
    if not found:
        return SOURCE_HEADS, []
    heads = tuple(head.format(metric=found[0]["metric"]) for head in SOURCE_HEADS)
    return heads, [
        (one["source"], scored(one["validation"], one["interval"]), str(one["episodes"]), number(one["train_loss"]))
        for one in found
    ]


def milliseconds(seconds: float) -> str:
    """Write a short time, such as that of an adaptation."""
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


STAGE_HEADS = ("stage", "digest", "method", "tasks", "validation [95% interval]", "steps", "time", "trials", "made by")


def stage_cells(summary: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the heads and the rows of the table of stages; no rows where the search has none."""
    return STAGE_HEADS, [
        (
            one["name"],
            one["digest"][:12],
            one["method"],
            one["source"],
            f"{one['metric'].removeprefix('validation_')} {scored(one['value'], one['interval'])}",
            number(one["steps"]),
            span(one["seconds"]),
            ", ".join(map(str, one["trials"])),
            "-" if one["trained_by"] is None else f"trial {one['trained_by']}",
        )
        for one in summary.get("stages") or ()
    ]


def test_cells(summary: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the heads and the rows of the table of the tests of the best trial and the baselines."""
    tested, baselines = summary["test"], summary["baselines"]
    found = [] if tested is None else [(f"trial {tested['trial']} (best)", tested["evaluation"], "")]
    found += [(f"baseline {one['method']}", one["evaluation"], better_by(one["best_better_by"])) for one in baselines]
    if not found:
        return (), []
    metric = found[0][1].get("metric") or "score"
    paired = ["the best is better by [95% interval]"] if baselines else []
    units = ["RMSE in units of the target"] if any(one[1].get("units") for one in found) else []
    alone = [f"inductive {metric}"] if any("inductive" in evaluation for _, evaluation, _ in found) else []
    heads = ("on the test split", f"{metric} [95% interval]", *units, *alone, *paired, "episodes", "setting")
    rows = []
    for name, evaluation, difference in found:
        cells = [name, scored(evaluation["mean"], evaluation["interval"])]
        cells += [in_units(evaluation)] if units else []
        if alone:
            one = evaluation if evaluation.get("setting") == "inductive" else evaluation.get("inductive") or {}
            cells.append(scored(one.get("mean"), one.get("interval")))
        cells += [difference] if paired else []
        rows.append((*cells, str(evaluation["episodes"]), str(evaluation.get("setting", "-"))))
    return heads, rows


CONFIGURATION_HEADS = ("trials of the same knobs", "mean [95% interval]", "knobs")


def configuration_cells(summary: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the heads and the rows of the means of the trials of the same knobs; no rows where there are none."""
    return CONFIGURATION_HEADS, [
        (", ".join(map(str, one["trials"])), scored(one["mean"], one["interval"]), knobs_text(one["knobs"]))
        for one in summary.get("configurations") or ()
    ]


def ending_lines(summary: Mapping[str, Any]) -> list[str]:
    """Say what has ended a search before all its trials were tried; nothing if nothing has."""
    budget, patience, lines = summary.get("time_budget"), summary.get("patience"), []
    if budget is not None and budget["has_ended_search"]:
        spent = f"{span(budget['spent'])} of {span(budget['seconds'])} are spent"
        tried = f"{budget['tried']} of {budget['asked']} trials were tried"
        lines.append(f"The time budget has ended the search: {spent}, {tried}")
    if patience is not None and patience["has_ended_search"]:
        tried = f"{len(summary['trials'])} of {summary['asked']} trials were tried"
        why = f"the last {patience['without_gain']} trials brought no gain (search.patience: {patience['trials']})"
        lines.append(f"The search has ended early: {why}; {tried}")
    return lines
