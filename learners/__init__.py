"""Learners in torch: what is learned, how a task is solved, and how the outer gradient is got.

Symbols: ``phi`` meta-knowledge (outer), ``theta`` fast weights (inner); both map names to tensors.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metaloom.learners.base import METHODS, Learner, Recipe
    from metaloom.learners.build import ESTIMATORS, SLOTS, build_learner
    from metaloom.learners.hypergradients.problem import Hypergradient, Linearized, Outer, Problem
    from metaloom.learners.solvers.bilevel import PROBLEMS, Bilevel, bilevel
    from metaloom.learners.solvers.inner_loop import InnerConfig
    from metaloom.learners.tensors import InnerState

_HOMES = {
    "InnerConfig": "solvers.inner_loop",
    "Learner": "base",
    "Recipe": "base",
    "Bilevel": "solvers.bilevel",
    "PROBLEMS": "solvers.bilevel",
    "bilevel": "solvers.bilevel",
    "Hypergradient": "hypergradients.problem",
    "Linearized": "hypergradients.problem",
    "Outer": "hypergradients.problem",
    "Problem": "hypergradients.problem",
    "InnerState": "tensors",
    "ESTIMATORS": "build",
    "METHODS": "build",
    "SLOTS": "build",
    "build_learner": "build",
}
__all__ = [
    "ESTIMATORS",
    "METHODS",
    "PROBLEMS",
    "SLOTS",
    "Bilevel",
    "Hypergradient",
    "InnerConfig",
    "InnerState",
    "Learner",
    "Linearized",
    "Outer",
    "Problem",
    "Recipe",
    "bilevel",
    "build_learner",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'metaloom.learners' has no attribute '{name}'")
    import_module("metaloom.learners.build")  # fills every registry
    return getattr(import_module(f"metaloom.learners.{_HOMES[name]}"), name)
