"""Heads in which the queries of an episode help to classify one another, over frozen or learned features."""

from metaloom.learners.solvers.transductive.base import TransductiveHead

__all__ = ["TransductiveHead"]
