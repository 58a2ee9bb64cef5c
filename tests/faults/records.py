"""What a finished search has recorded, in a form that can be compared: timings are left out, everything else is there.

Two searches of the same experiment and seed have equal records, whatever happened to one of them on the way.
"""

import hashlib
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from metaloom.workers.checkpoint import load_knowledge
from metaloom.workers.errors import CheckpointError
from metaloom.workers.records import names
from metaloom.workers.records.journal_sources import read_journal
from metaloom.workers.records.search import SearchRecord, TrialRecord
from tests.support.episodes import read_episodes

SECONDS = {*names.MEASURED, "test_seconds"}
# what a test of a fault may set: where the search is tracked, and for how long it may go on
SET_BY_TESTS = ("tracking.", "search.time_budget_s", "search.trial_timeout_s")
TAGS = ("metaloom.trial", "metaloom.state", "metaloom.error")


def records(store: Path, name: str, *, tracking_database: Path | None = None) -> dict[str, Any]:
    """Return the records of a search as nested dictionaries: journal, files, MLflow's and Optuna's."""
    folder = store / names.SEARCHES_FOLDER / name
    search = SearchRecord.replay(read_journal(folder).events)
    directories = {number: names.trial_directory(folder, number) for number in search.trials}
    return {
        "state": search.state,
        "trials": {number: _trial(trial) for number, trial in search.trials.items()},
        "test": _without_seconds(search.tested),
        "baselines": [_without_seconds(one) for one in search.baselines],
        "knowledge": {number: _knowledge(directory) for number, directory in directories.items()},
        "rows": {number: _rows(directory) for number, directory in directories.items()},
        "mlflow": _mlflow(tracking_database or store / "mlflow.db", name),
        "optuna": _optuna(store / "optuna.db", name),
    }


def differences(expected: Any, found: Any, path: str = "") -> list[str]:
    """List where two records differ, by path, with both values in short."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        missing = [f"{path}/{key}: missing" for key in expected if key not in found]
        surplus = [f"{path}/{key}: not expected" for key in found if key not in expected]
        common = (differences(value, found[key], f"{path}/{key}") for key, value in expected.items() if key in found)
        return [*missing, *surplus, *(one for part in common for one in part)]
    if expected == found or (expected != expected and found != found):  # both are NaN
        return []
    return [f"{path}: {str(expected)[:80]} expected, {str(found)[:80]} found"]


def _trial(trial: TrialRecord) -> dict[str, Any]:
    return {
        "state": trial.state,
        "knobs": dict(trial.knobs),
        "reason": trial.reason,
        "values": dict(trial.values),
        "origin": trial.origin,
        "config": None if trial.config is None else trial.config.to_json(),
        "reports": {
            report.step: {
                "metrics": _without_seconds(report.metrics),
                "scores": report.scores,
                "interval": report.interval,
                "episodes": report.episodes,
                "finished": report.finished,
                "notes": report.notes,
            }
            for report in trial.reports
        },
    }


def _knowledge(directory: Path) -> dict[str, str]:
    """Return the digest of each tensor that a trial has learned."""
    try:
        groups = load_knowledge(directory).groups()
    except CheckpointError as error:
        return {"unreadable": str(error)}
    return {
        f"{group}/{name}": hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
        for group, part in groups.items()
        for name, tensor in part.items()
    }


def _rows(directory: Path) -> dict[str, str]:
    """Return each episode of a trial by phase, step and number, with the digest of its values."""
    found: dict[str, str] = {}
    for row in read_episodes(directory / names.EPISODES_FOLDER).drop_columns(["seconds"]).to_pylist():
        key = f"{row['phase']} {row['step']} {row['episode']}"
        digest = hashlib.sha256(repr(sorted(row.items())).encode()).hexdigest()
        found[key] = f"twice ({found[key]}, {digest})" if key in found else digest
    return found


def _mlflow(database: Path, name: str) -> dict[str, Any]:
    """Return the runs of the search, by trial: status, parameters, tags and points."""
    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        tags: dict[str, dict[str, str]] = {}
        query = "SELECT run_uuid, key, value FROM tags WHERE run_uuid IN (SELECT run_uuid FROM tags WHERE value = ?)"
        for run, key, value in connection.execute(query, (name,)):
            tags.setdefault(run, {})[key] = value
        runs: dict[str, Any] = {}
        for run, own in tags.items():
            label = own.get("metaloom.trial", "parent")
            label = f"{label} again ({run})" if label in runs else label
            points = connection.execute("SELECT key, step, value, is_nan FROM metrics WHERE run_uuid = ?", (run,))
            params = connection.execute("SELECT key, value FROM params WHERE run_uuid = ?", (run,))
            (status,) = connection.execute("SELECT status FROM runs WHERE run_uuid = ?", (run,)).fetchone()
            runs[label] = {
                "status": status,
                "tags": {key: own[key] for key in TAGS if key in own},
                "params": {key: value for key, value in params if not key.startswith(SET_BY_TESTS)},
                "points": _points(points.fetchall()),
            }
    return runs


def _points(rows: list[tuple[str, int, float, int]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for key, step, value, is_nan in rows:
        if key.rpartition(".")[2] not in SECONDS and "seconds" not in key:
            place = f"{key} at {step}"
            found[f"{place} again" if place in found else place] = float("nan") if is_nan else value
    return found


def _optuna(database: Path, name: str) -> dict[str, Any]:
    """Return the trials of the search's study, by number."""
    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        query = (
            "SELECT trial_id, number, state FROM trials JOIN studies USING (study_id) WHERE study_name = ? ORDER BY 2"
        )
        return {
            number: {
                "state": state,
                "params": dict(_all(connection, "param_name, param_value", "trial_params", trial)),
                "values": dict(_all(connection, "objective, value", "trial_values", trial)),
                "curve": dict(_all(connection, "step, intermediate_value", "trial_intermediate_values", trial)),
            }
            for trial, number, state in connection.execute(query, (name,)).fetchall()
        }


def _all(connection: sqlite3.Connection, columns: str, table: str, trial: int) -> list[tuple[Any, Any]]:
    return connection.execute(f"SELECT {columns} FROM {table} WHERE trial_id = ?", (trial,)).fetchall()


def _without_seconds(values: Mapping[str, Any] | None) -> Any:
    if values is None:
        return None
    return {
        key: _without_seconds(value) if isinstance(value, Mapping) else value
        for key, value in values.items()
        if key not in SECONDS and "seconds" not in key
    }
