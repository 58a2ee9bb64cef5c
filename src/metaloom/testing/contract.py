"""What all contract suites have in common: their tests run once for each of a subclass's rows."""

from collections.abc import Iterable, Mapping
from typing import Any

import pytest


class Contract:
    """Base of the contract suites; pytest collects its subclasses, whose names begin with ``Test``."""

    def cases(self) -> Mapping[str, Iterable[Any]]:
        """Return the values of each argument of a test: a test runs once for each."""
        return {}

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run a test once for each value of its arguments; pytest calls this."""
        for argument, values in self.cases().items():
            if argument in metafunc.fixturenames:
                metafunc.parametrize(argument, list(values), ids=identifier)


def identifier(value: object) -> str:
    """Return a case's name in pytest's report: its words, joined."""
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)
