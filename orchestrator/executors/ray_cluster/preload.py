"""Imports what a trial needs. Each worker of a Ray of our own imports this module when it starts, before it has work.

So a worker that replaces a killed one need not import torch first, and no file in the current folder is taken for an
installed package: Ray puts that folder on the worker's path later.
"""

from importlib import import_module

MODULES = (
    "metaloom.orchestrator.executors.ray_cluster.tune",
    "metaloom.orchestrator.executors.ray_cluster.perturbations",
    "metaloom.workers.trial.runner",
    "metaloom.learners.build",
    "torch._dynamo",  # a second of imports when a trial's first step is traced
    "torch.fx.experimental.proxy_tensor",
)

for module in MODULES:
    try:
        import_module(module)
    except Exception as error:  # Ray logs an ImportError; any other ends the worker, and Ray starts the next one
        raise ImportError(f"{module}: {type(error).__name__}: {error}") from error
