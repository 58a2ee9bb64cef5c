"""A store whose searches have the records that a real one leaves: journal and Parquet parts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from metaloom.orchestrator.journal import Journal
from metaloom.workers.records import names as records
from metaloom.workers.records.episode import COLUMNS
from metaloom.workers.records.episode_schema import EPISODE_SCHEMA
from metaloom.workers.records.journal import Event
from metaloom.workers.records.trial import Report
from tests.support.episode_parts import PARTS, TRIALS, written

Write = Callable[..., Path]


def report(step: int, value: float, *, finished: bool = False, **metrics: float) -> dict[str, Any]:
    """Return a report document as trials hand them in."""
    scores = (value - 0.1, value, value + 0.1)
    told = {records.VALIDATION_ACCURACY: value, records.TRAIN_LOSS: 1.0 / step, **metrics}
    interval = (value - 0.05, value + 0.05)
    return Report(step, told, interval, scores, 10 * step, float(step), finished).to_json()


def episode(trial: int, phase: str, number: int, after: float) -> dict[str, Any]:
    """Return an episode row."""
    row: dict[str, Any] = {one.name: [] if one.kind.endswith(" list") else 0 for one in COLUMNS}
    row |= {"search": "first", "trial": trial, "phase": phase, "step": 10, "episode": number, "source": "glyphs"}
    row |= {"class_ids": [1, 2], "sample_ids": [3, 4], "losses": [1.5, 0.5], "accuracies": [0.2, after]}
    row |= {"accuracy_before": 0.2, "accuracy_after": after, "setting": "inductive", "batch_norm": "batch"}
    return row


@pytest.fixture
def write_search(tmp_path: Path) -> Write:
    """Return a function that writes a search of given events into the store ``tmp_path``."""

    def write(name: str, events: list[tuple[str, int | None, dict[str, Any]]], **settings: Any) -> Path:
        folder = tmp_path / "searches" / name
        folder.mkdir(parents=True)
        journal = Journal(folder)
        objectives = [{"metric": records.VALIDATION_ACCURACY, "direction": "maximize"}]
        section = {"trials": 3, "objectives": objectives, "constraints": [], **settings}
        created = {"settings": section, "experiment": {"seed": 0}, "seed": 0}
        all_events = [(records.SEARCH_CREATED, None, created), *events]
        journal.append_all(
            [Event(0, 1000.0 + at, trial, kind, load) for at, (kind, trial, load) in enumerate(all_events)]
        )
        journal.close()
        return folder

    return write


@pytest.fixture
def write_episodes(tmp_path: Path) -> Callable[[str, int, list[dict[str, Any]]], Path]:
    """Return a function that writes one Parquet part of a trial."""

    def write(name: str, trial: int, rows: list[dict[str, Any]]) -> Path:
        folder = tmp_path / "searches" / name / "trials" / f"{trial:04d}" / records.EPISODES_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"part-{len(list(folder.iterdir())):08d}-00000010.parquet"
        parquet.write_table(pa.Table.from_pylist(rows, schema=EPISODE_SCHEMA), path)
        return path

    return write


SUGGESTED = {"config": {}, "sampler": "random", "params": {}, "distributions": {}}


def story(values: dict[int, float]) -> list[tuple[str, int | None, dict[str, Any]]]:
    """Return the events of finished trials of the given values."""
    events: list[tuple[str, int | None, dict[str, Any]]] = []
    for trial, value in values.items():
        aims = {records.VALIDATION_ACCURACY: value}
        events += [
            (records.TRIAL_SUGGESTED, trial, {"knobs": {"learner.update.rate": 0.1 * (trial + 1)}, **SUGGESTED}),
            (records.TRIAL_STARTED, trial, {"attempt": 1, "worker": ""}),
            (records.TRIAL_REPORTED, trial, {"report": report(10, value / 2)}),
            (records.TRIAL_REPORTED, trial, {"report": report(20, value, finished=True)}),
            (records.TRIAL_FINISHED, trial, {"value": value, "values": aims}),
        ]
    return events


@pytest.fixture
def search_of_parts(write_search: Write, tmp_path: Path) -> Path:
    """A search of three trials with four parts each, whose digests its journal knows."""
    folder = tmp_path / "searches" / "first"
    parts = {trial: {} for trial in range(TRIALS)}  # type: dict[int, dict[str, Any]]
    for trial in range(TRIALS):
        for part in range(PARTS):
            parts[trial] |= written(tmp_path / "parts", trial, part)
    events = []
    for kind, trial, load in story(dict.fromkeys(range(TRIALS), 0.5)):
        if kind == records.TRIAL_REPORTED and load["report"]["step"] == 10 and trial is not None:
            load = {"report": report(10, 0.25) | {"parts": parts[trial]}}
        events.append((kind, trial, load))
    write_search("first", events)
    (tmp_path / "parts" / records.TRIALS_FOLDER).rename(folder / records.TRIALS_FOLDER)
    return folder
