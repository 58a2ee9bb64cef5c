"""What all contract suites have in common: their tests run once for each of a subclass's rows."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from metaloom.learners.fields import fields_of


class Contract:
    """Base of the contract suites; pytest collects its subclasses, whose names begin with ``Test``."""

    def __init_subclass__(cls) -> None:
        """Leave out of a collected suite the tests that none of its rows is a case of: pytest would skip each."""
        super().__init_subclass__()
        if not cls.__name__.startswith("Test"):
            return
        empty = {argument for argument, values in cls().cases().items() if not list(values)}
        for name in [name for name in dir(cls) if name.startswith("test_")]:
            # the base of a suite may itself be a suite, with fewer rows
            test = next(one for base in cls.__mro__ if (one := vars(base).get(name)) is not None)
            setattr(cls, name, None if empty & set(inspect.signature(test).parameters) else test)

    def cases(self) -> Mapping[str, Iterable[Any]]:
        """Return the values of each argument of a test: a test runs once for each."""
        return {}

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run a test once for each value of its arguments; pytest calls this."""
        for argument, values in self.cases().items():
            if argument in metafunc.fixturenames:
                metafunc.parametrize(argument, list(values), ids=identifier)


def misspelt_settings(config: type) -> dict[str, str]:
    """Return settings that a configuration does not have, each with a pattern of the error that must refuse it.

    One is like none of its settings; each other one misspells a setting, so that the error must name that setting.
    """
    near = {f"{name}s": f"'{name}s'; did you mean '{name}'" for name in fields_of(config)}
    return {"no_such_setting": "no_such_setting", **near}


def identifier(value: object) -> str:
    """Return a case's name in pytest's report: its words, joined."""
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)
