"""A store's own databases of MLflow and Optuna: whatever becomes of their files, the journals fill them again."""

import json
import os
import random
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import optuna
import pytest

from metaloom.orchestrator.private_api import forget_mlflow_connections
from metaloom.orchestrator.proposing import mirror
from metaloom.orchestrator.tracking import databases
from metaloom.orchestrator.tracking.outboxes import Outboxes, start_projections, synchronize
from metaloom.orchestrator.tracking.tables import MLFLOW
from metaloom.workers.records import names as records
from tests.dashboards.conftest import story
from tests.support.processes import OWN_TABLES, Process
from tests.support.tracked import ENDED, STARTED, Search
from tests.support.tracking_servers import wait_until

BOTH = ("mlflow.db", "optuna.db")
STORIES = {"one": {0: 0.7, 1: 0.9}, "two": {0: 0.6}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two finished searches, both in both databases. MLflow records its absolute path."""
    store = tmp_path_factory.mktemp("databases") / "store"
    for name, values in STORIES.items():
        search = Search(store, name)
        search.tell(STARTED, *story(values), ENDED)
        assert outboxes(search).close() == []
        search.journal.close()
    shutil.copytree(store, store.with_name("as made"))
    return store


@pytest.fixture
def searches(finished: Path) -> Iterator[list[Search]]:
    """The two searches of a store as it was made."""
    shutil.rmtree(finished)
    shutil.copytree(finished.with_name("as made"), finished)
    forget_mlflow_connections(databases.sqlite_uri(finished / "mlflow.db"))  # they are to the files before
    made = [Search(finished, name, begun=True) for name in STORIES]
    yield made
    for search in made:
        search.journal.close()


def outboxes(search: Search) -> Outboxes:
    return start_projections(search.folder, **search.arguments(), others=mirror.projections(search.folder))


def synchronized(search: Search) -> list[str]:
    """Bring both databases up to date, and return what was done about them."""
    name, warn = search.folder.name, search.warn
    left, rebuilt = synchronize(search.store, name, warn=warn, others=mirror.projections)
    assert left == []
    return rebuilt


def everything(searches: list[Search]) -> str:
    """Return all that both databases hold of the searches, as text (NaN is not equal to itself)."""
    found = []
    for search in searches:
        storage = databases.sqlite_uri(search.store / "optuna.db")
        trials = optuna.load_study(study_name=search.folder.name, storage=storage).get_trials()
        facts = [(one.number, one.state, one.values, one.intermediate_values, one.datetime_start) for one in trials]
        found.append((sorted(search.content().items()), facts))
    return repr(found)


def pages_of(path: Path) -> bytes:
    """Return a database's bytes, with what its write-ahead log held."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path.read_bytes()


def cut(path: Path) -> None:
    path.write_bytes(pages_of(path)[:5000])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def zeroed(path: Path) -> None:
    content = pages_of(path)
    path.write_bytes(content[:4096] + bytes(4096) + content[8192:])


def flipped(path: Path) -> None:
    """Flip bytes in every third page."""
    content = bytearray(pages_of(path))
    for at in range(4096, len(content), 3 * 4096):
        content[at : at + 16] = bytes(byte ^ 0xFF for byte in content[at : at + 16])
    path.write_bytes(content)


INTO_THE_FILE = "PRAGMA wal_checkpoint(TRUNCATE)"  # also while something else has the database open


def half_made(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DROP TABLE alembic_version")
        connection.execute(INTO_THE_FILE)


def half_migrated(path: Path) -> None:
    """Say that an older version made the tables: its migrations will find theirs there already."""
    schemas = (MLFLOW if path.name == "mlflow.db" else mirror.TABLES).schemas()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (schemas[-2],))
        connection.execute(INTO_THE_FILE)


DAMAGES = [cut, emptied, zeroed, flipped, half_made, half_migrated]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_database_is_kept_aside_and_filled_from_all_journals(
    damage: Callable[[Path], None], searches: list[Search]
) -> None:
    one, two = searches
    before = everything(searches)
    for name in BOTH:
        damage(one.store / name)
    damaged = {name: (one.store / name).read_bytes() for name in BOTH}
    rebuilt = synchronized(one)
    assert everything(searches) == before  # of the other search too
    assert len(rebuilt) == 2 and one.warnings == rebuilt
    for name in BOTH:
        assert any(line.startswith(name) and f"kept as {name}.damaged-1" in line for line in rebuilt)
        assert (one.store / f"{name}.damaged-1").read_bytes() == damaged[name]
        assert not (one.store / f"{name}.rebuild").exists()
    assert synchronized(two) == []


def test_any_damage_of_the_file_is_noticed_or_harmless(searches: list[Search]) -> None:
    """Flip one byte at seeded places: SQLite says so, or reads every record as before."""
    path = searches[0].store / "optuna.db"
    content, seeded = pages_of(path), random.Random(14)
    with closing(sqlite3.connect(path)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    places = [*range(0, 100, 7), *(seeded.randrange(len(content)) for _ in range(60))]
    noticed = 0
    for place in places:
        copy = path.with_name(f"copy-{place}.db")
        copy.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        problem, _ = databases.examined(copy)
        noticed += bool(problem)
        if not problem:
            with closing(sqlite3.connect(copy)) as connection:
                connection.text_factory = bytes
                for table in tables:  # no record has become unreadable; a value may have changed
                    connection.execute(f"SELECT * FROM {table}").fetchall()
    assert 5 < noticed < len(places)


@pytest.mark.parametrize("name", BOTH)
def test_a_database_of_a_newer_version_is_told_and_left_alone(name: str, searches: list[Search]) -> None:
    one = searches[0]
    with closing(sqlite3.connect(one.store / name, isolation_level=None)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'of the future'")
    content = pages_of(one.store / name)
    one.tell(STARTED, ENDED)
    (backlog,) = outboxes(one).close()
    assert (backlog.name, backlog.events) == (name.removesuffix(".db"), 2)
    assert "made by a newer version" in backlog.reason and "of the future" in backlog.reason
    assert len(one.warnings) == 1
    assert pages_of(one.store / name) == content
    assert not list(one.store.glob("*.damaged*"))


def test_a_database_of_an_older_version_is_upgraded(tmp_path: Path) -> None:
    from alembic import command
    from mlflow.store.db.utils import InitialBase, _get_alembic_config, create_sqlalchemy_engine
    from mlflow.tracking import MlflowClient

    path = tmp_path / "mlflow.db"
    engine = create_sqlalchemy_engine(databases.sqlite_uri(path))
    InitialBase.metadata.create_all(engine)
    command.upgrade(_get_alembic_config(databases.sqlite_uri(path)), MLFLOW.schemas()[3])
    engine.dispose()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        values = "(7, 'of the user', 'somewhere', 'active', 1, 1)"
        columns = "(experiment_id, name, artifact_location, lifecycle_stage, creation_time, last_update_time)"
        connection.execute(f"INSERT INTO experiments {columns} VALUES {values}")
    done = databases.OwnDatabase(path, MLFLOW, lambda held: ["one"]).prepare()
    assert done == "mlflow.db was made by an older version, is kept as mlflow.db.older-1, and was upgraded"
    assert databases.examined(path) == ("", MLFLOW.schemas()[0])
    client = MlflowClient(tracking_uri=databases.sqlite_uri(path))
    assert client.get_experiment_by_name("of the user").experiment_id == "7"
    assert not (tmp_path / "mlflow.db.rebuild").exists()


def test_a_new_database_waits_for_the_disk_once_a_commit(searches: list[Search]) -> None:
    for name in BOTH:
        with closing(sqlite3.connect(searches[0].store / name)) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def gone(store: Path) -> None:
    for name in BOTH:
        for path in store.glob(f"{name}*"):
            path.unlink()


def without_runs(store: Path) -> None:
    with closing(sqlite3.connect(store / "mlflow.db", isolation_level=None)) as connection:
        for table in ("tags", "metrics", "latest_metrics", "params", "runs"):
            connection.execute(f"DELETE FROM {table}")
    for name in STORIES:
        optuna.delete_study(study_name=name, storage=databases.sqlite_uri(store / "optuna.db"))


def without_the_last_points(store: Path) -> None:
    with closing(sqlite3.connect(store / "mlflow.db", isolation_level=None)) as connection:
        connection.execute("DELETE FROM metrics WHERE step = 20")
        connection.execute("DELETE FROM latest_metrics WHERE step = 20")


def without_a_point_in_the_middle(store: Path) -> None:
    with closing(sqlite3.connect(store / "mlflow.db", isolation_level=None)) as connection:
        connection.execute("DELETE FROM metrics WHERE step = 10 AND key = 'validation_accuracy'")


def without_an_end(store: Path) -> None:
    with closing(sqlite3.connect(store / "mlflow.db", isolation_level=None)) as connection:
        connection.execute("UPDATE runs SET status = 'RUNNING' WHERE name = 'one-0001'")


LOSSES = [gone, without_runs, without_the_last_points, without_a_point_in_the_middle, without_an_end]


@pytest.mark.parametrize("lose", LOSSES)
def test_sync_sends_what_the_databases_lack_of_a_finished_search(
    lose: Callable[[Path], None], searches: list[Search]
) -> None:
    before = everything(searches)
    lose(searches[0].store)
    for search in searches:
        synchronized(search)
    assert everything(searches) == before


def test_sync_writes_nothing_where_nothing_is_missing(searches: list[Search]) -> None:
    store = searches[0].store
    files = {path: path.stat().st_mtime_ns for path in (store / "mlartifacts").rglob("*")}
    contents = [pages_of(store / name) for name in BOTH]
    assert synchronized(searches[0]) == []
    assert {path: path.stat().st_mtime_ns for path in (store / "mlartifacts").rglob("*")} == files
    assert [pages_of(store / name) for name in BOTH] == contents


def test_a_search_with_an_open_database_notices_that_another_process_has_made_it_again(
    searches: list[Search],
) -> None:
    one, two = searches
    open_search = Search(one.store, "open")
    open_search.tell(STARTED, *story({0: 0.5}))
    boxes = outboxes(open_search)
    wait_until(lambda: open_search.journal.mark(records.MLFLOW_MARK).event == 7)
    wait_until(lambda: open_search.journal.mark(records.OPTUNA_MARK).event == 7)
    for name in BOTH:
        flipped(one.store / name)
    process = Process("-c", SYNCHRONIZE, str(one.store), "one")
    _, errors = process.communicate(timeout=120)
    assert process.wait() == 0, errors
    assert "are still to be sent" not in errors
    open_search.tell(*story({1: 0.8}), ENDED)
    assert boxes.close() == []
    parent, trials = open_search.runs()
    assert set(trials) == {"0", "1"} and parent.info.status == "FINISHED"
    assert '"0"' in json.dumps(sorted(trials))
    everything([one, two, open_search])
    open_search.journal.close()


SYNCHRONIZE = (
    "import sys; from pathlib import Path; from metaloom.orchestrator.proposing import mirror; "
    "from metaloom.orchestrator.tracking.outboxes import synchronize; "
    "warn = lambda line: print(line, file=sys.stderr, flush=True); "
    "left, _ = synchronize(Path(sys.argv[1]), sys.argv[2], warn=warn, others=mirror.projections); "
    "sys.exit(len(left))"
)


def test_a_rebuilding_that_is_killed_goes_on(searches: list[Search]) -> None:
    """Kill it as soon as the tables are there, and once again before its end."""
    one, two = searches
    before = everything(searches)
    flipped(one.store / "mlflow.db")
    for _ in range(2):
        process = Process("-c", SYNCHRONIZE, str(one.store), "one")
        wait_until(lambda: (one.store / "mlflow.db.rebuild").exists() and (one.store / "mlflow.db").exists())
        process.kill()
        process.wait()
    synchronized(two)
    assert everything(searches) == before
    assert not (one.store / "mlflow.db.rebuild").exists()
    assert [path.name for path in one.store.glob("mlflow.db.damaged-?")] == ["mlflow.db.damaged-1"]


SEARCH = [
    *("-m", "metaloom.orchestrator.command_line.cli", "search", "quick", "--name", "first", "--executor", "inline"),
    *("--trials", "2", "--set", "outer.steps=4", "--set", "outer.validate_every=2", "--set", "outer.meta_batch=2"),
    *("--set", "outer.validation_episodes=4", "--set", "outer.test_episodes=6"),
]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_search_killed_while_the_tables_are_made_loses_nothing(seed: int, tmp_path: Path) -> None:
    """MLflow's own migrations, killed at a seeded instant; then the same store is used by the same command."""
    store = tmp_path / "store"
    process = Process(*SEARCH, "--store", str(store), environment={**os.environ, **OWN_TABLES})
    wait_until(lambda: (store / "mlflow.lock").exists())
    time.sleep(random.Random(seed).uniform(0.0, 4.0))
    process.kill()
    assert process.wait() in (-signal.SIGKILL, 0)
    again = Process("-m", "metaloom.orchestrator.command_line.cli", "resume", "first", "--store", str(store), "--json")
    out, errors = again.communicate(timeout=200)
    assert again.wait() == 0, errors
    assert "cannot be written" not in errors
    if json.loads(out).get("behind"):  # a loaded machine: the tables are being made again, which is told
        assert "metaloom sync first" in errors
    sent = Process("-m", "metaloom.orchestrator.command_line.cli", "sync", "first", "--store", str(store), "--json")
    out, errors = sent.communicate(timeout=200)
    assert (sent.wait(), json.loads(out)["left"]) == (0, {}), errors
    search = Search(store, "first", begun=True)
    parent, trials = search.runs()
    search.journal.close()
    assert {run.info.status for run in (parent, *trials.values())} == {"FINISHED"}
    assert len(trials) == 2
    assert not list(store.glob("*.new*"))


def test_tables_are_made_without_the_journal_of_a_killed_process(tmp_path: Path) -> None:
    """SQLite would roll a new file back by it, to pages of the old one, when a second connection opens it."""
    hot = tmp_path / "hot.db"
    with closing(sqlite3.connect(hot, isolation_level=None)) as writer:
        writer.execute("PRAGMA cache_size=2")
        writer.execute("CREATE TABLE old (value)")
        writer.execute("BEGIN")
        writer.executemany("INSERT INTO old VALUES (?)", [(bytes(900),)] * 200)
        shutil.copy(hot.with_name("hot.db-journal"), tmp_path / "one.db.new-journal")
        writer.execute("ROLLBACK")

    def make(path: Path) -> None:
        assert [left.name for left in tmp_path.glob("one.db.new*")] == []
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(
                "CREATE TABLE alembic_version (version_num); INSERT INTO alembic_version VALUES ('1')"
            )

    made = databases.OwnDatabase(
        tmp_path / "one.db", databases.Tables("mlflow", make, make, lambda: ["1"]), lambda held: []
    )
    assert made.prepare() == ""
    assert databases.examined(tmp_path / "one.db") == ("", "1")
    assert list(tmp_path.glob("one.db.new*")) == []
