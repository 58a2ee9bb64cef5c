"""The only reading side: searches, trials and episodes of a store, as plain values.

Pages, figures and commands ask here and nowhere else. What is shown comes from the
journal (read-only) and the Parquet parts, so it is there while the search runs, and
when neither Ray nor MLflow does.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaloom.dashboards.filters import parse_conditions, parse_filter
from metaloom.dashboards.history import (
    RecordsError,
    SearchHistory,
    TrialHistory,
    fold,
    read_journal,
    read_mark,
)
from metaloom.learners.errors import BadInput, unknown
from metaloom.workers.records import names as records

if TYPE_CHECKING:
    import pyarrow.dataset as ds

SEARCHES_FOLDER = "searches"
TRIALS_FOLDER = "trials"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}")
Scored = tuple[TrialHistory, tuple[float, ...]]


class QueryError(BadInput):
    """Something was asked for that the store does not have."""


@dataclass(frozen=True)
class EpisodeRows:
    """Episode rows that were asked for.

    Attributes:
        rows: At most ``limit`` of them, by trial and in the order in which they were played.
        total: How many there are in all.
        empty: Where there are none: the columns of the condition that hold nothing in any row that it could keep.
    """

    rows: list[dict[str, Any]]
    total: int
    empty: tuple[str, ...] = ()


def search_names(store: Path) -> list[str]:
    """Return the names of the searches of ``store``, sorted; empty where there is no store yet."""
    return sorted(path.parent.name for path in (store / SEARCHES_FOLDER).glob(f"*/{records.JOURNAL_FILE}"))


def search_folder(store: Path, name: str) -> Path:
    """Return the folder of search ``name``.

    Raises:
        QueryError: There is no such search in ``store``.
    """
    folder = store / SEARCHES_FOLDER / name
    if not NAME.fullmatch(name) or not (folder / records.JOURNAL_FILE).is_file():
        known = search_names(store)
        if not known:
            raise QueryError(f"no search is named '{name}': the store {store} has none yet")
        raise QueryError(f"{unknown('search', name, known)} in the store {store}")
    return folder


def trial_folder(store: Path, name: str, trial: int) -> Path:
    """Return the folder of trial number ``trial`` of search ``name`` (it may not exist yet)."""
    return search_folder(store, name) / TRIALS_FOLDER / f"{trial:04d}"


def takes_images(store: Path, name: str, trial: int) -> bool:
    """Say whether a trial was trained on images, [channels, height, width] each: a new task is then a folder of them.

    False where it has not begun.
    """
    path = trial_folder(store, name, trial) / records.TASK_FILE
    return path.is_file() and len(json.loads(path.read_text())["inputs"]) > 1


def search_history(store: Path, name: str) -> SearchHistory:
    """Return search ``name`` as its journal tells it."""
    return fold(name, read_journal(search_folder(store, name) / records.JOURNAL_FILE))


def is_drawn(store: Path, name: str, trial: int) -> bool:
    """Say whether what a trial has learned was drawn, and told in words."""
    return _learned_file(store, name, trial).is_file()


def learned(store: Path, name: str, trial: int) -> list[dict[str, str]]:
    """Return what a trial has learned: each figure's name, caption and file; empty before it is drawn."""
    if not is_drawn(store, name, trial):
        return []
    file = _learned_file(store, name, trial)
    return [{**one, "figure": str(file.with_name(f"{one['name']}.png"))} for one in json.loads(file.read_text())]


def _learned_file(store: Path, name: str, trial: int) -> Path:
    return trial_folder(store, name, trial) / records.FIGURES_FOLDER / records.LEARNED_FILE


def list_searches(store: Path) -> list[dict[str, Any]]:
    """Return one row per search, newest first: name, state, trials by state, best value, times."""
    rows = []
    for name in search_names(store):
        history = search_history(store, name)
        aims = objectives(history)
        best = best_trial(history)
        rows.append(
            {
                "name": name,
                "state": history.state,
                "trials": {
                    state: sum(trial.state == state for trial in history.trials.values())
                    for state in records.TRIAL_STATES
                },
                "asked": history.asked,
                "objectives": aims,
                "best": None if best is None else best.id,
                "value": None if best is None else objective_value(best, aims[0]["metric"]),
                "created": history.created,
                "updated": history.updated,
            }
        )
    return sorted(rows, key=lambda row: -(row["created"] or 0.0))


def search_summary(store: Path, name: str) -> dict[str, Any]:
    """Return everything about search ``name``: exactly the document of ``metaloom show --json``."""
    journal = search_folder(store, name) / records.JOURNAL_FILE
    history = fold(name, read_journal(journal))
    tracked = read_mark(journal, records.MLFLOW_MARK)
    runs = tracked.get("runs", {})
    aims = objectives(history)
    trials = [_trial_row(trial, aims, runs.get(str(trial.id))) for _, trial in sorted(history.trials.items())]
    best = best_trial(history)
    summary = {
        "name": name,
        "state": history.state,
        "tracking_uri": tracked.get("tracking_uri"),
        "experiment_id": tracked.get("experiment_id"),
        "parent_run_id": tracked.get("parent_run_id"),
        "seed": history.seed,
        "asked": history.asked,
        "objectives": aims,
        "best": None if best is None else next(row for row in trials if row["id"] == best.id),
        "baselines": history.baselines,
        "test": history.tested or None,
        "learned": [] if best is None else learned(store, name, best.id),
        "trials": trials,
    }
    if history.settings.get("constraints"):
        broken = {trial.id: violation(trial, history) for trial in history.trials.values() if trial.last}
        summary["constraints"] = history.settings["constraints"]
        summary["infeasible"] = {number: by for number, by in sorted(broken.items()) if by > 0}
    if len(aims) > 1:
        summary["pareto"] = [trial.id for trial in pareto_front(history)]
    return dict(finite(summary))


def objectives(history: SearchHistory) -> list[dict[str, str]]:
    """Return the objectives of a search: metric and direction of each, the one it is judged by first."""
    return [{"metric": one["metric"], "direction": one["direction"]} for one in history.settings["objectives"]]


def objective_value(trial: TrialHistory, metric: str) -> float | None:
    """Return what ``trial`` is worth by ``metric``: what it ended with, else its last report."""
    value = trial.values.get(metric, trial.last.get("metrics", {}).get(metric))
    return None if value is None else float(value)


def best_trial(history: SearchHistory) -> TrialHistory | None:
    """Return the best finished trial that keeps the constraints: by the first objective, then the earliest.

    A trial that has not finished is the best only where none has, and one that has not ended only where none has.
    """
    for states in ((records.FINISHED,), (records.STOPPED,), (records.RUNNING, records.WAITING)):
        scored = _scored([trial for trial in history.trials.values() if trial.state in states], history)
        if scored:
            feasible = [(costs[0], trial.id) for trial, costs in scored if violation(trial, history) == 0]
            return history.trials[min(feasible)[1]] if feasible else None
    return None


def pareto_front(history: SearchHistory) -> list[TrialHistory]:
    """Return the finished, feasible trials that no other such trial betters in every objective."""
    finished = [trial for trial in history.trials.values() if trial.state == records.FINISHED]
    scored = _scored([trial for trial in finished if violation(trial, history) == 0], history)
    front = [trial for trial, costs in scored if not any(_dominates(other, costs) for _, other in scored)]
    return sorted(front, key=lambda trial: trial.id)


def _scored(trials: Sequence[TrialHistory], history: SearchHistory) -> list[Scored]:
    """Pair each trial that has a value with its objectives as costs (less is better)."""
    aims = objectives(history)
    pairs = []
    for trial in trials:
        values = [objective_value(trial, aim["metric"]) for aim in aims]
        known = [value for value in values if value is not None and not math.isnan(value)]
        if len(known) == len(aims):
            signs = [-1.0 if aim["direction"] == "maximize" else 1.0 for aim in aims]
            pairs.append((trial, tuple(sign * value for sign, value in zip(signs, known, strict=True))))
    return pairs


def violation(trial: TrialHistory, history: SearchHistory) -> float:
    """Return by how much the trial breaks the search's constraints in all; 0 if it is feasible."""
    broken = 0.0
    for constraint in history.settings.get("constraints") or []:
        value = trial.last.get("metrics", {}).get(constraint["metric"])
        low, high = constraint.get("min"), constraint.get("max")
        if value is None or math.isnan(value):
            return math.inf
        over = -math.inf if high is None else value - high
        under = -math.inf if low is None else low - value
        broken += max(0.0, over, under)
    return broken


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and one != other


def _trial_row(trial: TrialHistory, aims: list[dict[str, str]], run: str | None) -> dict[str, Any]:
    last = trial.last
    row: dict[str, Any] = {
        "id": trial.id,
        "state": trial.state,
        "value": objective_value(trial, aims[0]["metric"]),
        "interval": last.get("interval") if _is_primary(last, aims[0]["metric"]) else None,
        "episodes": len(last.get("scores", ())),  # those that value and interval are over
        "knobs": trial.knobs,
        "steps": last.get("step", 0),
        "seconds": last.get("seconds", 0.0),
        "episodes_seen": last.get("episodes", 0),
        "hypergradient": _hypergradient(last),
        "run_id": run,
        "error": trial.error,
        "notes": trial.notes,
        "warnings": trial.warnings,
    }
    if len(aims) > 1:
        row["values"] = {aim["metric"]: objective_value(trial, aim["metric"]) for aim in aims}
    return row


def _hypergradient(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the estimator, the norm of what it gave, and what it says of itself; None before the first report."""
    if not report.get("hypergradient"):
        return None
    start = records.DIAGNOSTIC
    told = {name.removeprefix(start): one for name, one in report["metrics"].items() if name.startswith(start)}
    return {"estimator": report["hypergradient"], **told}


def _is_primary(report: Mapping[str, Any], metric: str) -> bool:
    """Say whether the report's interval is that of ``metric``: accuracy where there is one, else loss."""
    if records.VALIDATION_ACCURACY in report.get("metrics", {}):
        return metric == records.VALIDATION_ACCURACY
    return metric == records.VALIDATION_LOSS


def episode_rows(
    store: Path,
    name: str,
    *,
    trial: int | None = None,
    phase: str | None = None,
    where: str | None = None,
    limit: int | None = 20,
) -> EpisodeRows:
    """Return episode rows of search ``name``, filtered.

    Args:
        where: An expression over the columns, as in filters.py.
        limit: At most so many rows; None for all.

    Raises:
        QueryError: An unknown search, trial or phase.
        FilterError: ``where`` cannot be read.
    """
    folder = search_folder(store, name)
    if phase is not None and phase not in records.PHASES:
        raise QueryError(unknown("phase", phase, records.PHASES))
    if limit is not None and limit < 0:
        raise QueryError(f"--limit must be at least 0, got {limit}")
    trials = sorted((folder / TRIALS_FOLDER).glob("[0-9]*")) if trial is None else [_known_trial(folder, trial)]
    parts = [part for one in trials for part in sorted((one / records.EPISODES_FOLDER).glob("part-*.parquet"))]
    condition = _condition(where, phase)  # before the parts, so that a typo is told even where nothing is recorded
    if not parts:
        return EpisodeRows([], 0)
    dataset = _dataset(parts)
    found = _scan(dataset, condition, limit)
    return found if found.total or not where else replace(found, empty=_empty_columns(dataset, where, phase))


def _empty_columns(dataset: "ds.Dataset", where: str, phase: str | None) -> tuple[str, ...]:
    """Return the columns that ``where`` names, and that are null in every row that its other conditions keep."""
    import pyarrow.compute as pc

    conditions = parse_conditions(where, records.EPISODE_COLUMNS)
    found = []
    for column in sorted({name for _, named in conditions for name in named}):
        rows = pc.scalar(True) if phase is None else pc.field("phase") == phase
        for condition, named in conditions:
            if column not in named:
                rows &= condition
        known = ~pc.field(column).is_null(nan_is_null=True)
        if dataset.count_rows(filter=rows) and not dataset.count_rows(filter=rows & known):
            found.append(column)
    return tuple(found)


def _condition(where: str | None, phase: str | None) -> Any:
    """Join ``where`` and ``phase`` into one pyarrow expression; None if neither is given."""
    import pyarrow.compute as pc

    asked = parse_filter(where, records.EPISODE_COLUMNS) if where else None
    if phase is None:
        return asked
    in_phase = pc.field("phase") == phase
    return in_phase if asked is None else in_phase & asked


def _known_trial(folder: Path, trial: int) -> Path:
    path = folder / TRIALS_FOLDER / f"{trial:04d}"
    if not path.is_dir():
        known = sorted(int(one.name) for one in (folder / TRIALS_FOLDER).glob("[0-9]*"))
        spans = f"{known[0]} to {known[-1]}" if known else "none yet"
        raise QueryError(f"search '{folder.name}' has no records of trial {trial} (it has {spans})")
    return path


def _dataset(parts: list[Path]) -> "ds.Dataset":
    import pyarrow as pa
    import pyarrow.dataset as ds

    try:
        return ds.dataset([str(part) for part in parts], format="parquet")
    except (pa.ArrowInvalid, OSError) as error:
        raise RecordsError(f"episode records cannot be read: {error}") from error


def _scan(dataset: "ds.Dataset", condition: Any, limit: int | None) -> EpisodeRows:
    import pyarrow as pa

    try:
        total = dataset.count_rows(filter=condition)
        table = dataset.to_table(filter=condition) if limit is None else dataset.head(limit, filter=condition)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise QueryError(f"--where compares things of different kinds: {error}") from error
    return EpisodeRows(finite(table.to_pylist()), total)


def finite(value: Any) -> Any:
    """Return ``value`` with what JSON cannot say (NaN, infinities) as None, all the way down."""
    if isinstance(value, Mapping):
        return {str(key): finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
