"""Contract suites for all that a package can bring, from methods to executors.

A package runs them over its own entries with three lines of pytest::

    from metaloom.testing import MethodContract, MethodRow
    class TestMine(MethodContract):
        rows = {"my_method": MethodRow()}

Metaloom's own tests run them over everything that is built in. They need ``pip install metaloom[testing]``: pytest and
hypothesis. Nothing else of Metaloom imports this package.
"""

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

# pytest shows the values in an assertion of a test file only, unless it is asked to before the module is imported
pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)))

if TYPE_CHECKING:
    from metaloom.testing.components import ComponentContract, ComponentRow
    from metaloom.testing.contract import Contract
    from metaloom.testing.estimators import EstimatorContract, EstimatorRow
    from metaloom.testing.executors import ExecutorContract
    from metaloom.testing.methods import MethodContract, MethodRow
    from metaloom.testing.samplers import SamplerContract
    from metaloom.testing.schedulers import SchedulerContract
    from metaloom.testing.solvers import SolverContract, SolverRow
    from metaloom.testing.task_sources import TaskSourceContract
    from metaloom.testing.update_rules import UpdateRuleContract

_HOMES = {
    "ComponentContract": "components",
    "ComponentRow": "components",
    "Contract": "contract",
    "EstimatorContract": "estimators",
    "EstimatorRow": "estimators",
    "ExecutorContract": "executors",
    "MethodContract": "methods",
    "MethodRow": "methods",
    "SamplerContract": "samplers",
    "SchedulerContract": "schedulers",
    "SolverContract": "solvers",
    "SolverRow": "solvers",
    "TaskSourceContract": "task_sources",
    "UpdateRuleContract": "update_rules",
}
__all__ = [
    "ComponentContract",
    "ComponentRow",
    "Contract",
    "EstimatorContract",
    "EstimatorRow",
    "ExecutorContract",
    "MethodContract",
    "MethodRow",
    "SamplerContract",
    "SchedulerContract",
    "SolverContract",
    "SolverRow",
    "TaskSourceContract",
    "UpdateRuleContract",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'metaloom.testing' has no attribute '{name}' (it has {', '.join(__all__)})")
    return getattr(import_module(f"metaloom.testing.{_HOMES[name]}"), name)
