"""Metaloom: every piece of meta-knowledge is fixed, searched or learned, by one word.

- ``search``, ``train``, ``resume``: run the trials of an experiment.
- ``check``: compare an experiment's hypergradients with central differences.
- ``evaluate``, ``export``: test a trial, and write its bundle.
- ``class_weights``: weigh the classes of a source by unlabelled examples of a target.
- ``compare``: compare trials on the same test episodes.
- ``load_search``, ``load_bundle``, ``load_adapted``, ``load_policy``: read what a search has recorded and learned.
- ``Experiment``: a validated experiment.

The public names are loaded on first use, so that ``import metaloom`` and the
command line's ``--help`` do not wait for torch, ray or mlflow.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metaloom.learners.solvers.bilevel import bilevel
    from metaloom.orchestrator.api import resume, search, train
    from metaloom.orchestrator.comparison import compare
    from metaloom.orchestrator.export import evaluate, export
    from metaloom.orchestrator.hypergradient_check import check_experiment as check
    from metaloom.orchestrator.loaded_search import load_search
    from metaloom.search_spaces.experiment import Experiment
    from metaloom.workers.augmentation_policy import load_policy
    from metaloom.workers.bundle import load_adapted, load_bundle
    from metaloom.workers.class_weights import class_weights

__version__ = "0.2.0"
__all__ = [
    "Experiment",
    "bilevel",
    "check",
    "class_weights",
    "compare",
    "evaluate",
    "export",
    "load_adapted",
    "load_bundle",
    "load_policy",
    "load_search",
    "resume",
    "search",
    "train",
]

_HOMES = {
    "Experiment": "metaloom.search_spaces.experiment:Experiment",
    "bilevel": "metaloom.learners:bilevel",
    "check": "metaloom.orchestrator.hypergradient_check:check_experiment",
    "class_weights": "metaloom.workers.class_weights:class_weights",
    "compare": "metaloom.orchestrator.comparison:compare",
    "evaluate": "metaloom.orchestrator.export:evaluate",
    "export": "metaloom.orchestrator.export:export",
    "load_adapted": "metaloom.workers.bundle:load_adapted",
    "load_bundle": "metaloom.workers.bundle:load_bundle",
    "load_policy": "metaloom.workers.augmentation_policy:load_policy",
    "load_search": "metaloom.orchestrator.loaded_search:load_search",
    "resume": "metaloom.orchestrator.api:resume",
    "search": "metaloom.orchestrator.api:search",
    "train": "metaloom.orchestrator.api:train",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'metaloom' has no attribute '{name}' (it has {', '.join(__all__)})")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(import_module(module), attribute)
