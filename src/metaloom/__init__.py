"""Metaloom: every piece of meta-knowledge is fixed, searched or learned, by one word.

The public names are loaded on first use, so that ``import metaloom`` and the
command line's ``--help`` do not wait for torch, ray or mlflow.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metaloom.orchestrator.api import search, train
    from metaloom.search_spaces.experiment import Experiment
    from metaloom.workers.augmentation_policy import load_policy
    from metaloom.workers.bundle import load_bundle

__version__ = "0.2.0"
__all__ = ["Experiment", "load_bundle", "load_policy", "search", "train"]

_HOMES = {
    "Experiment": "metaloom.search_spaces.experiment",
    "search": "metaloom.orchestrator.api",
    "train": "metaloom.orchestrator.api",
    "load_bundle": "metaloom.workers.bundle",
    "load_policy": "metaloom.workers.augmentation_policy",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'metaloom' has no attribute '{name}' (it has {', '.join(__all__)})")
    return getattr(import_module(_HOMES[name]), name)
