"""The undisturbed searches that the disturbed ones are compared with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.driver import Place
from tests.faults.records import differences, records
from tests.support.databases import copy_mlflow_database

Compare = Callable[..., None]


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The records of the reference search, to which nothing happened."""
    place = prepared(tmp_path_factory.mktemp("undisturbed") / "store")
    code, _, errors = place.run("search", "--executor", "inline")
    assert code == 0, errors
    return records(place.store, place.name)


@pytest.fixture
def assert_equal(undisturbed: dict[str, Any]) -> Compare:
    """Assert that a search has ended with the records of the undisturbed one."""

    def compare(place: Place, *, tracking_database: Path | None = None) -> None:
        found = records(place.store, place.name, tracking_database=tracking_database)
        assert differences(undisturbed, found)[:10] == []

    return compare


def prepared(store: Path) -> Place:
    """Return a place in a store with MLflow's database, whose making takes longer than a trial."""
    store.mkdir(mode=0o700)
    copy_mlflow_database(store / "mlflow.db")
    return Place(store)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A place for a search in a store that other searches have used."""
    return prepared(tmp_path / "store")


@pytest.fixture
def fresh(tmp_path: Path) -> Place:
    """A place for a search in a store that is not there yet."""
    return Place(tmp_path / "store")
