"""Figures of a search as PNG files: its history, each knob against the value, adaptation step by step."""

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from metaloom.dashboards import queries
from metaloom.dashboards.by_sets import sets_plot, shows_sets
from metaloom.dashboards.canvas import name_axes, panel, png
from metaloom.dashboards.plots import history_plot, slice_plot
from metaloom.dashboards.transfer import shows_transfer, transfer_plot
from metaloom.dashboards.trial_episodes import EPISODES_OF_A_CURVE, curve_of
from metaloom.workers.durable import write_text
from metaloom.workers.records import names as records
from metaloom.workers.records.results import INNER_STEPS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger("metaloom.figures")


class DrawnFigures(NamedTuple):
    """The folder of a search's figures, and of each drawn trial's."""

    folder: Path
    trials: Mapping[int, Path]


def draw_search(store: Path, name: str, *, spare_s: float = 0.0) -> DrawnFigures:
    """Draw search ``name`` and its best trial; use ``spare_s`` seconds for other finished trials without figures."""
    deadline = time.monotonic() + spare_s
    summary = queries.search_summary(store, name)
    folder = queries.search_folder(store, name) / records.FIGURES_FOLDER
    search = queries.search_record(store, name)
    searched = any(trial.knobs for trial in search.trials.values() if trial.last)
    own = {"history": history_plot(name, search), "knobs": slice_plot(name, search) if searched else None}
    own["transfer"] = transfer_plot(name, search) if shows_transfer(search) else None
    own["sets"] = sets_plot(name, search) if shows_sets(search) else None
    _save(folder, own)
    best = summary["best"]
    drawn = {} if best is None else {best["id"]: draw_trial(store, name, best["id"])}
    for trial in summary["trials"]:
        figures = queries.trial_folder(store, name, trial["id"]) / records.FIGURES_FOLDER
        if time.monotonic() < deadline and trial["state"] == records.FINISHED and not figures.is_dir():
            drawn[trial["id"]] = draw_trial(store, name, trial["id"], step=trial["steps"])
    return DrawnFigures(folder, {trial: own for trial, own in drawn.items() if own is not None})


def draw_trial(store: Path, name: str, trial: int, *, step: int | None = None) -> Path | None:
    """Draw how a trial adapts and what it has learned, and return the figures' folder; None if there is nothing.

    Args:
        step: Its last outer step, if known; episodes of earlier steps are then not read.
    """
    from metaloom.dashboards.knowledge_figures import pictures, read_knowledge

    directory = queries.trial_folder(store, name, trial)
    if not directory.is_dir():
        return None
    begun = (directory / records.TASK_FILE).is_file()  # written by the trial's first step
    learned = pictures(read_knowledge(directory)) if begun else []
    figures = {"adaptation": adaptation_figure(store, name, trial, step=step)}
    figures |= {picture.name: picture.figure for picture in learned}
    if not any(figures.values()):
        return None
    folder = directory / records.FIGURES_FOLDER
    _save(folder, figures)
    captions = [{"name": picture.name, "caption": picture.caption} for picture in learned]
    write_text(folder / records.LEARNED_FILE, json.dumps(captions, indent=1))
    return folder


def _save(folder: Path, figures: "Mapping[str, Figure | None]") -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    for name, figure in figures.items():
        if figure is not None:
            (folder / f"{name}.png").write_bytes(png(figure))


def adaptation_figure(store: Path, name: str, trial: int, *, step: int | None = None) -> "Figure | None":
    """Draw the query metric before adaptation and after each inner step; None without recorded episodes."""
    curve = adaptation_curve(store, name, trial, step=step)
    if not curve["mean"]:
        return None
    figure, axes = panel(6.0, 4.0)
    steps = list(range(len(curve["mean"])))
    axes.plot(steps, curve["mean"], marker="o")
    axes.fill_between(steps, curve["low"], curve["high"], alpha=0.25)
    axes.set_xticks(steps)
    title = f"{name}, trial {trial}: {curve['episodes']} {curve['phase']} episodes"
    name_axes(axes, title, curve["curve"], curve["metric"])
    return figure


def adaptation_curve(store: Path, name: str, trial: int, *, step: int | None = None) -> dict[str, Any]:
    """Return the mean and 95% interval of the query metric after each inner step, or earlier example of a class.

    The episodes are test episodes if there are any, else validation episodes of ``step`` or of the newest step.
    """
    where = None if step is None else f"step == {step}"
    for phase in (records.TEST, records.VALIDATION):
        episodes = queries.episode_rows(store, name, trial=trial, phase=phase, where=where, limit=None)
        rows = episodes.rows
        if rows:
            break
    else:
        nothing: dict[str, Any] = {"mean": [], "low": [], "high": [], "curve": INNER_STEPS}
        return {"metric": "accuracy", "phase": records.TEST, "episodes": 0, **nothing}
    for part in episodes.damaged:
        logger.warning("the figure of '%s' is drawn of other episodes: %s", name, part)
    newest = max(row["step"] for row in rows)
    rows = [row for row in rows if row["step"] == newest][-EPISODES_OF_A_CURVE:]
    metric, column = ("accuracy", "accuracies") if rows[0]["accuracies"] else ("loss", "losses")
    values = [row[column] for row in rows]
    found = curve_of(values, metric, phase=phase, step=newest, in_order=not rows[0]["shots"])
    bounds = {"mean": found.means, "low": found.lows, "high": found.highs}
    return {"metric": metric, "phase": phase, "episodes": len(rows), **bounds, "curve": found.of}
