"""Reads the searches, trials and episodes of a store as plain values, for pages, figures and commands.

The sources are the journal (read-only) and the Parquet parts, so queries work while the search runs, and without Ray
and MLflow.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from metaloom.dashboards import by_method, by_source, endings, rows, same_knobs, stage_rows
from metaloom.dashboards.drivers import is_alive
from metaloom.dashboards.episode_scan import EpisodeRows, QueryError, condition_of, empty_columns, scan
from metaloom.learners.errors import unknown
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.configurations import asked
from metaloom.workers.records.journal import RecordsError, read_mark
from metaloom.workers.records.journal_sources import emptiness, is_empty
from metaloom.workers.records.parts import damaged_parts
from metaloom.workers.records.search import SearchRecord, TrialRecord
from metaloom.workers.records.stages import STAGE_TRIAL
from metaloom.workers.records.trial import Report

__all__ = ["EpisodeRows", "QueryError", "is_alive"]


def search_folder(store: Path, name: str) -> Path:
    """Return the folder of search ``name``; raises QueryError if ``store`` has no such search."""
    folder = store / records.SEARCHES_FOLDER / name
    if not records.SEARCH_NAME.fullmatch(name) or not folder.is_dir():
        if names := records.search_names(store):
            raise QueryError(f"{unknown('search', name, names)} in the store {store}")
        raise QueryError(f"no search is named '{name}': the store {store} has none yet")
    return folder


def trial_folder(store: Path, name: str, trial: int) -> Path:
    """Return the folder of a trial, which may not exist yet."""
    return records.trial_directory(search_folder(store, name), trial)


def how_to_use(store: Path, name: str, trial: int) -> str:
    """Return the command that uses a trial's bundle: ``adapt`` with what it takes.

    These are images, series, tables, starting states of trajectories, or classes. The settings of
    searches are taken by ``search --search-from``.
    """
    path = trial_folder(store, name, trial) / records.TASK_FILE
    task = json.loads(path.read_text()) if path.is_file() else {"inputs": []}  # it has not begun
    if any("portfolio" in column for column in task.get("columns", ())):
        return f"search FILE --search-from {name}-bundle"
    taken = {2: ("SUPPORT.ts", "QUERY.ts"), 3: ("SUPPORT_FOLDER", "QUERY_FOLDER")}  # series, and images
    support, query = taken.get(len(task["inputs"]), ("SUPPORT.csv", "QUERY.csv"))
    if task.get("environment"):
        support, query = "STARTS.csv", "STATES.csv"
    given = f"--support {support}" if task.get("class_features") is None else "--classes CLASSES.csv"
    return f"adapt {name}-bundle {given} --query {query}"


def search_record(store: Path, name: str) -> SearchRecord:
    """Return the record of search ``name``; if its driver is dead, it is interrupted and its trials wait.

    Raises QueryError if it has no records, and RecordsError if they cannot be read.
    """
    folder = search_folder(store, name)
    if is_empty(folder):
        raise QueryError(emptiness(name))
    search = SearchRecord.read(folder)
    return as_it_is(search, alive=search.state == records.RUNNING and is_alive(search.process))


def as_it_is(search: SearchRecord, *, alive: bool) -> SearchRecord:
    """Return the record with what a driver that is not ``alive`` leaves: an interrupted search, whose trials wait.

    The given record stays as it is.
    """
    state = records.INTERRUPTED if search.state == records.RUNNING and not alive else search.state
    idle = [] if state == records.RUNNING else search.in_state(records.RUNNING)
    if state == search.state and not idle:
        return search
    waiting = {trial.number: replace(trial, state=records.WAITING) for trial in idle}  # until a resume
    return replace(search, state=state, trials={**search.trials, **waiting})


def is_drawn(store: Path, name: str, trial: int) -> bool:
    """Return whether the figures and captions of what a trial has learned exist."""
    return _learned_file(store, name, trial).is_file()


def learned(store: Path, name: str, trial: int) -> tuple[rows.LearnedRow, ...]:
    """Return what a trial has learned; empty before it is drawn."""
    file = _learned_file(store, name, trial)
    drawn = json.loads(file.read_text()) if file.is_file() else []
    return tuple(rows.LearnedRow(**row, figure=str(file.with_name(f"{row['name']}.png"))) for row in drawn)


def _learned_file(store: Path, name: str, trial: int) -> Path:
    return trial_folder(store, name, trial) / records.FIGURES_FOLDER / records.LEARNED_FILE


def list_searches(store: Path) -> list[dict[str, Any]]:
    """Return the searches of ``store``, newest first: the list of ``metaloom runs --json``."""
    searches = [listed_search(store, name) for name in records.search_names(store)]
    return [rows.to_json(row) for row in sorted(searches, key=lambda row: -(row.created or 0.0))]


def listed_search(store: Path, name: str, read: Callable[[str], SearchRecord] | None = None) -> rows.ListedSearch:
    """Return the row of a search; one that cannot be read has a row too, which says why.

    ``read`` is what reads its record, ``search_record`` if nothing is given.
    """
    try:
        search = search_record(store, name) if read is None else read(name)
    except (QueryError, RecordsError) as problem:
        state = records.EMPTY if isinstance(problem, QueryError) else records.UNREADABLE
        search = SearchRecord(state=state, warnings=[str(problem)])
    best = ranking.best(search)
    return rows.ListedSearch(
        name=name,
        state=search.state,
        trials={state: len(search.in_state(state)) for state in records.TRIAL_STATES},
        asked=asked(search) if search.settings else None,
        objectives=_objectives(search),
        best=None if best is None else best.number,
        value=None if best is None else ranking.judged_value(search, best),
        created=search.created_at,
        updated=search.updated_at,
        warnings=tuple(search.warnings),
    )


def search_summary(store: Path, name: str) -> dict[str, Any]:
    """Return everything about search ``name``: the document of ``metaloom show --json``."""
    return dict(rows.to_json(search_row(store, name, search_record(store, name))))


def search_row(store: Path, name: str, search: SearchRecord) -> rows.SearchRow:
    """Return everything about search ``name``, whose record is ``search``."""
    tracked = read_mark(search_folder(store, name) / records.JOURNAL_FILE, records.MLFLOW_MARK)
    runs, aims, best = tracked.get("runs", {}), _objectives(search), ranking.best(search)
    trials = {number: _trial_row(search, one, runs.get(str(number))) for number, one in sorted(search.trials.items())}
    constraints = search.settings.to_document()["constraints"] if search.settings else []
    broken = {trial.number: ranking.violation(search, trial) for trial in search.trials.values() if trial.last}
    return rows.SearchRow(
        name=name,
        state=search.state,
        tracking_uri=tracked.get("tracking_uri"),
        experiment_id=tracked.get("experiment_id"),
        parent_run_id=tracked.get("parent_run_id"),
        seed=search.created.get("seed"),
        asked=asked(search) if search.settings else None,
        objectives=aims,
        best=None if best is None else trials[best.number],
        baselines=tuple(rows.BaselineRow(**baseline) for baseline in search.baselines),
        test=None if search.tested is None else rows.BestTestRow(**search.tested),
        learned=() if best is None else learned(store, name, best.number),
        warnings=tuple(search.warnings),
        notes=tuple(search.remarks),
        trials=tuple(trials.values()),
        constraints=tuple(rows.ConstraintRow(**constraint) for constraint in constraints) or None,
        infeasible={number: by for number, by in sorted(broken.items()) if by > 0} if constraints else None,
        time_budget=endings.time_budget(search),
        patience=endings.patience(search),
        configurations=same_knobs.configuration_rows(search),
        methods=by_method.method_rows(search),
        sources=by_source.source_rows(best),
        stages=stage_rows.stage_rows(search),
        pareto=tuple(trial.number for trial in ranking.pareto_front(search)) if len(aims) > 1 else None,
    )


def _objectives(search: SearchRecord) -> tuple[rows.ObjectiveRow, ...]:
    aims = search.settings.objectives if search.settings else ()
    return tuple(rows.ObjectiveRow(metric=aim.metric, direction=aim.direction) for aim in aims)


def _trial_row(search: SearchRecord, trial: TrialRecord, run: str | None) -> rows.TrialRow:
    last, metrics = trial.last, [aim.metric for aim in _objectives(search)]
    return rows.TrialRow(
        id=trial.number,
        state=trial.state,
        value=ranking.value(search, trial),
        interval=last.interval if last and last.scored == metrics[0] else None,
        episodes=len(last.scores) if last else 0,
        knobs=trial.knobs,
        steps=trial.step,
        seconds=last.seconds if last else 0.0,
        episodes_seen=last.episodes if last else 0,
        hypergradient=_hypergradient(last),
        run_id=run,
        error=trial.error,
        notes=tuple(trial.notes),
        warnings=tuple(trial.warnings),
        values={metric: ranking.value(search, trial, metric) for metric in metrics} if len(metrics) > 1 else None,
        repeat_of=trial.repeat_of,
    )


def _hypergradient(report: Report | None) -> dict[str, Any] | None:
    """Return the estimator, its result's norm and its diagnostics; None before the first report."""
    if report is None or not report.hypergradient:
        return None
    start, metrics = records.DIAGNOSTIC, report.metrics.items()
    values = {name.removeprefix(start): value for name, value in metrics if name.startswith(start)}
    return {"estimator": report.hypergradient, **values}


def episode_rows(
    store: Path,
    name: str,
    *,
    trial: int | None = None,
    phase: str | None = None,
    where: str | None = None,
    limit: int | None = 20,
    stage: str | None = None,
) -> EpisodeRows:
    """Return at most ``limit`` (None: all) episode rows of search ``name`` that meet ``where`` (see filters.py).

    With ``stage`` they are of this stage: of the ``trial`` alone, or of all of its trainings.

    Raises QueryError for an unknown search, trial or phase, and FilterError if ``where`` cannot be read.
    """
    folder = search_folder(store, name)
    if phase is not None and phase not in records.PHASES:
        raise QueryError(unknown("phase", phase, records.PHASES))
    if limit is not None and limit < 0:
        raise QueryError(f"--limit must be at least 0, got {limit}")
    if stage is not None:
        folders = stage_rows.stage_folders(store, folder, SearchRecord.read(folder), trial)
        return _stage_episodes(folders, name, stage, condition_of(phase, where), limit)
    trials = records.trial_directories(folder)
    if trial is not None and trial not in trials:
        spans = f"{min(trials)} to {max(trials)}" if trials else "none yet"
        raise QueryError(f"search '{folder.name}' has no records of trial {trial} (it has {spans})")
    asked = trials if trial is None else {trial: trials[trial]}
    condition = condition_of(phase, where)  # parsed before the parts are read: a typo is an error without records too
    known = SearchRecord.read(folder).trials
    damaged = [part for one, path in asked.items() if one in known for part in damaged_parts(path, known[one])]
    left_out = {part.path for part in damaged}
    parts = {
        part: one
        for one, directory in asked.items()
        for part in records.parts_of(directory / records.EPISODES_FOLDER)
        if part not in left_out
    }
    episodes, dataset = scan(parts, condition, limit)
    named = [{**row, "search": name} for row in episodes.rows]  # a renamed search recorded its former name
    episodes = replace(episodes, rows=named, damaged=(*damaged, *episodes.damaged))
    if dataset is None or episodes.total or not where:
        return episodes
    return replace(episodes, empty=empty_columns(dataset, where, phase))


def _stage_episodes(
    folders: Mapping[str, Sequence[Path]], name: str, stage: str, condition: Any, limit: int | None
) -> EpisodeRows:
    """Return the rows of a stage's trainings, which are of no trial; raises QueryError if no trial has begun it."""
    if stage not in folders:
        raise QueryError(unknown("stage", stage, folders) if folders else f"no trial of '{name}' has begun a stage")
    parts = {part: STAGE_TRIAL for one in folders[stage] for part in records.parts_of(one / records.EPISODES_FOLDER)}
    found = scan(parts, condition, limit)[0]
    return replace(found, rows=[{**row, "search": name, "trial": None} for row in found.rows])
