"""The undisturbed searches that the disturbed ones are compared with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.driver import Place
from tests.faults.records import differences, records

Compare = Callable[..., None]


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The records of the reference search, to which nothing happened."""
    place = Place(tmp_path_factory.mktemp("undisturbed") / "store")
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


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A place for a search in a store that is not there yet."""
    return Place(tmp_path / "store")
