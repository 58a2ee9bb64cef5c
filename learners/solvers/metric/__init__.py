"""Solvers that compare a query with the support set: prototypes, neighbours, learned comparisons."""

from metaloom.learners.solvers.metric.nearest_neighbour import NearestNeighbour
from metaloom.learners.solvers.metric.prototypes import Prototypes, class_means

__all__ = ["NearestNeighbour", "Prototypes", "class_means"]
