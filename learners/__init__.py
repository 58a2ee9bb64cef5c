"""Learners in torch: what is learned, how a task is solved, and how the outer gradient is got.

Symbols: ``phi`` meta-knowledge (outer), ``theta`` fast weights (inner); both map names to tensors.
The first use of a name imports ``build.py``, which fills every registry.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metaloom.learners.base import METHODS, Learner, Recipe
    from metaloom.learners.build import SLOTS, build_learner
    from metaloom.learners.hypergradients.problem import ESTIMATORS, Hypergradient, Linearized, Outer, Problem
    from metaloom.learners.solvers.bilevel import PROBLEMS, Bilevel, bilevel
    from metaloom.learners.solvers.inner_loop import InnerConfig
    from metaloom.learners.tensors import InnerState

_HOMES = {
    "base": ("METHODS", "Learner", "Recipe"),
    "build": ("SLOTS", "build_learner"),
    "hypergradients.problem": ("ESTIMATORS", "Hypergradient", "Linearized", "Outer", "Problem"),
    "solvers.bilevel": ("PROBLEMS", "Bilevel", "bilevel"),
    "solvers.inner_loop": ("InnerConfig",),
    "tensors": ("InnerState",),
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
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'metaloom.learners' has no attribute '{name}'")
    import_module("metaloom.learners.build")
    return getattr(import_module(f"metaloom.learners.{home}"), name)
