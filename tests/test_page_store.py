"""The generated store holds what a real search leaves: events, files, columns and metrics have the same shapes."""

from pathlib import Path
from typing import Any

import optuna
import pyarrow.parquet as parquet
import pytest

from benchmarks import page_store
from metaloom.dashboards import queries
from metaloom.orchestrator import api
from metaloom.orchestrator.journal import Journal
from metaloom.orchestrator.store import Store
from metaloom.workers.checkpoint import load_knowledge
from metaloom.workers.records import names as records
from metaloom.workers.records.journal import Event
from metaloom.workers.records.parts import check_parts

TRIALS, EPISODES = 7, 12_000
SMALL = ("outer.steps=4", "outer.validate_every=2", "outer.validation_episodes=4", "outer.test_episodes=4")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated store, with a real search of the same experiment in it."""
    made = tmp_path_factory.mktemp("generated") / "store"
    page_store.make(made, trials=TRIALS, episodes=EPISODES)
    api.search(page_store.EXPERIMENT, overrides=SMALL, store=made, name="real", trials=3, executor="inline")
    return made


def events(store: Path, name: str) -> list[Event]:
    with Journal(store / records.SEARCHES_FOLDER / name, read_only=True) as journal:
        return journal.events()


def shapes(found: list[Event], kind: str) -> set[frozenset[str]]:
    """The keys of the payloads of a kind, and of their reports and metrics."""

    def keys(value: Any, at: str = "") -> set[str]:
        inner = {name: value[name] for name in ("report", "metrics", "evaluation") if name in value}
        below = {key for name, one in inner.items() if isinstance(one, dict) for key in keys(one, f"{at}{name}.")}
        return {at + key for key in value} | below

    return {frozenset(keys(event.payload)) for event in found if event.kind == kind}


def test_events_have_the_shapes_of_a_real_search(store: Path) -> None:
    made, real = events(store, page_store.NAME), events(store, "real")
    kinds = {event.kind for event in real}
    assert {records.TRIAL_REPORTED, records.TRIAL_FINISHED, records.BASELINE, records.BEST_TESTED} <= kinds
    assert kinds <= {event.kind for event in made}
    for kind in kinds - {records.TRIAL_SUGGESTED, records.SEARCH_ENDED}:  # may name a twin, or the stop's reason
        assert shapes(made, kind) == shapes(real, kind), kind
    assert [event.payload["state"] for event in made if event.kind == records.SEARCH_ENDED] == [
        records.INTERRUPTED,
        records.FINISHED,
    ]
    times = [event.time for event in made]
    assert times == sorted(times)


def test_files_and_columns_are_those_of_a_real_search(store: Path) -> None:
    folders = [store / records.SEARCHES_FOLDER / name for name in (page_store.NAME, "real")]
    best = [queries.search_record(store, folder.name).tested for folder in folders]
    made, real = (
        records.trial_directory(folder, one["trial"]) for folder, one in zip(folders, best, strict=True) if one
    )
    drawn = {records.FIGURES_FOLDER}  # at the end of a search with databases
    assert {path.name for path in real.iterdir()} - drawn == {path.name for path in made.iterdir()} - drawn
    schemas = [
        parquet.read_schema(path) for one in (made, real) for path in records.parts_of(one / records.EPISODES_FOLDER)
    ]
    assert all(schema.equals(schemas[0]) for schema in schemas)
    assert load_knowledge(made).step > 0


def test_queries_read_it_and_its_sums_fit(store: Path) -> None:
    summary = queries.search_summary(store, page_store.NAME)
    assert summary["state"] == records.FINISHED
    assert len(summary["trials"]) == TRIALS
    assert summary["warnings"] == []
    assert [one["method"] for one in summary["baselines"]] == ["nearest_neighbour", "fine_tuning"]
    assert all(one["best_better_by"] for one in summary["baselines"])
    assert check_parts(store / records.SEARCHES_FOLDER / page_store.NAME) == []
    seen = sum(trial["episodes_seen"] for trial in summary["trials"])
    episodes = queries.episode_rows(store, page_store.NAME, where="phase != 'test'", limit=3)
    assert 0.6 * EPISODES < seen <= episodes.total < 2.0 * EPISODES  # a failed trial's last rows are in no report
    assert not episodes.damaged


def test_databases_show_the_same_trials(store: Path) -> None:
    summary = queries.search_summary(store, page_store.NAME)
    assert all(trial["run_id"] for trial in summary["trials"])
    database = Store(store).optuna_database
    study = optuna.load_study(study_name=page_store.NAME, storage=f"sqlite:///{database}")
    states = {"finished": "COMPLETE", "stopped": "PRUNED", "failed": "FAIL"}
    assert [states[trial["state"]] for trial in summary["trials"]] == [trial.state.name for trial in study.trials]


def test_equal_seeds_make_equal_trials(tmp_path: Path, store: Path) -> None:
    again = tmp_path / "again"
    (again / "cache").parent.mkdir()
    (again / "cache").symlink_to(store / records.CACHE_FOLDER)
    page_store.make(again, trials=TRIALS, episodes=EPISODES, databases=False)
    both = [queries.search_summary(one, page_store.NAME)["trials"] for one in (store, again)]
    made = [[{**trial, "run_id": None, "seconds": 0} for trial in trials] for trials in both]
    assert made[0] == made[1]
