"""Solvers that pre-train a network's body on an objective of its own, and solve a task by its features' class means."""

from metaloom.learners.solvers.pretraining.base import PretrainingConfig, PretrainingSolver

__all__ = ["PretrainingConfig", "PretrainingSolver"]
