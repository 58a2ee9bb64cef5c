"""Learners in torch: what is learned, how a task is solved, and how the outer gradient is got.

Symbols: ``phi`` meta-knowledge (outer), ``theta`` fast weights (inner); both map names to tensors.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metaloom.learners.base import METHODS, Learner, Recipe
    from metaloom.learners.build import ESTIMATORS, SLOTS, build_learner
    from metaloom.learners.solvers.inner_loop import InnerConfig

__all__ = ["ESTIMATORS", "METHODS", "SLOTS", "InnerConfig", "Learner", "Recipe", "build_learner"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'metaloom.learners' has no attribute '{name}'")
    build = import_module("metaloom.learners.build")  # fills every registry
    if name in ("Learner", "Recipe"):
        return getattr(import_module("metaloom.learners.base"), name)
    return (
        import_module("metaloom.learners.solvers.inner_loop").InnerConfig
        if name == "InnerConfig"
        else getattr(build, name)
    )
