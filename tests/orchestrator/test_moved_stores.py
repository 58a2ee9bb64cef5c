"""A store that was moved or copied keeps its artifacts: MLflow's absolute paths follow it."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from metaloom.orchestrator.private_api import MLFLOW_PLACES
from metaloom.orchestrator.tracking import relocating
from metaloom.orchestrator.tracking.client import MLFLOW_ARTIFACTS
from metaloom.orchestrator.tracking.outboxes import synchronize
from metaloom.orchestrator.tracking.projection import own_database
from metaloom.workers.records import names as records
from tests.dashboards.conftest import story
from tests.support import processes
from tests.support.tracked import ENDED, STARTED, Search


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A store with a finished search whose trials have a file each."""
    search = Search(tmp_path / "made here", "one")
    events = story({0: 0.7, 1: 0.9})
    for trial in (0, 1):
        directory = records.trial_directory(search.folder, trial)
        directory.mkdir(parents=True)
        (directory / records.CONFIG_FILE).write_text("{}")
    search.tell(STARTED, *events, ENDED)
    assert search.drain() == []
    search.journal.close()
    return search.store


def places(store: Path) -> set[str]:
    with closing(sqlite3.connect(store / "mlflow.db")) as connection:
        return {
            str(place)
            for table, columns in MLFLOW_PLACES.items()
            for column in columns
            for (place,) in connection.execute(f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL")
        }


def files(store: Path) -> list[str]:
    root = store / MLFLOW_ARTIFACTS
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def synchronized(store: Path) -> list[str]:
    told: list[str] = []
    assert synchronize(store, "one", warn=told.append) == ([], told)
    return told


def test_a_moved_store_writes_into_itself_and_leaves_the_old_place_alone(made):
    before, moved = files(made), made.with_name("moved %")
    made.rename(moved)
    search = Search(moved, "one", begun=True)
    search.tell(STARTED, ENDED)
    assert search.drain() == []
    search.journal.close()
    assert files(moved) == before and not made.exists()
    assert all(Path(relocating.path_of(place)).is_relative_to(moved) for place in places(moved))
    parent, trials = search.runs()
    for run in (parent, *trials.values()):
        assert relocating.path_of(run.info.artifact_uri).is_relative_to(moved)
        assert search.client().list_artifacts(run.info.run_id)
    (told,) = [line for line in search.warnings if "artifacts" in line]
    was, now = made / MLFLOW_ARTIFACTS, moved / MLFLOW_ARTIFACTS
    assert told == f"mlflow.db kept its artifacts in {was}, and now keeps them in {now}"


def test_a_copied_store_no_longer_writes_into_the_one_it_was_copied_from(made):
    copy = made.with_name("copy")
    shutil.copytree(made, copy)
    before = places(made)
    assert len(synchronized(copy)) == 1
    assert all(Path(relocating.path_of(place)).is_relative_to(copy) for place in places(copy))
    assert places(made) == before and files(copy) == files(made)
    assert synchronized(copy) == []


def test_files_that_an_earlier_version_wrote_at_the_old_place_are_fetched_and_the_others_sent_again(made):
    moved = made.with_name("moved")
    made.rename(moved)
    first, second, *others = sorted((moved / MLFLOW_ARTIFACTS).iterdir())
    (made / MLFLOW_ARTIFACTS).mkdir(parents=True)
    shutil.move(first, made / MLFLOW_ARTIFACTS)
    shutil.rmtree(second)
    synchronized(moved)
    assert first.is_dir() and second.is_dir()
    assert {path.split("/")[0] for path in files(moved)} == {first.name, second.name, *(one.name for one in others)}


def test_sync_sends_the_files_of_a_run_that_has_none(made):
    shutil.rmtree(made / MLFLOW_ARTIFACTS)
    assert synchronized(made) == []
    assert len({path.split("/")[0] for path in files(made)}) == 3


def test_a_folder_that_a_search_has_chosen_stays_also_if_it_has_the_usual_name(tmp_path):
    chosen = tmp_path / "shared" / MLFLOW_ARTIFACTS
    store = tmp_path / "store"
    text = f"tracking: {{artifacts: {chosen}}}\ntasks: {{source: sinusoid, shots: 2, queries: 2}}\n"
    text += "learner: {method: maml, architecture: {kind: mlp, hidden: [4]}, update: {rate: 0.1, steps: 1}}\n"
    (tmp_path / "one.yaml").write_text(
        f"{text}outer: {{steps: 2, meta_batch: 1, validate_every: 2, validation_episodes: 2, test_episodes: 2}}\n"
    )
    done = processes.run("-m", "metaloom", "train", str(tmp_path / "one.yaml"), "--store", str(store))
    assert done.returncode == 0, done.stderr
    moved = tmp_path / "moved"
    store.rename(moved)
    assert own_database(moved).settle() == ""
    assert any(relocating.path_of(place) == chosen for place in places(moved))


def test_a_store_seen_by_a_link_is_where_it_was(made):
    link = made.with_name("link")
    link.symlink_to(made)
    before = places(made)
    assert own_database(link).settle() == ""
    assert places(made) == before


def test_the_columns_are_mlflows_own(made):
    with closing(sqlite3.connect(made / "mlflow.db")) as connection:
        for table, columns in MLFLOW_PLACES.items():
            assert set(columns) <= {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}


def test_sync_says_what_it_could_not_compare(made):
    (made / "mlflow.db").unlink()
    (made / "mlflow.db").mkdir()
    left, _ = synchronize(made, "one", warn=lambda line: None)
    assert [(one.name, one.events) for one in left] == [(records.MLFLOW_MARK, 0)] and left[0].reason
