"""Where trials run. A new executor is one file that registers an ``ExecutorKind`` in ``EXECUTORS``.

It stands here, or in a package that names it under the entry point group ``metaloom.executors``.
"""

import pkgutil
from importlib import import_module

from metaloom.learners.plugins import load_plugins
from metaloom.orchestrator.executors.base import EXECUTORS, Executor, ExecutorKind, ExecutorRequest

__all__ = ["EXECUTORS", "Executor", "ExecutorKind", "ExecutorRequest"]

for _module in pkgutil.iter_modules(__path__):  # each file registers its executor: no list is kept by hand
    import_module(f"{__name__}.{_module.name}")
load_plugins("metaloom.executors")
