"""Solvers that know a class by its features alone, such as attributes, and have no example of it."""

from metaloom.learners.solvers.zero_shot.eszsl import Eszsl
from metaloom.learners.solvers.zero_shot.prototypes import ZeroShotPrototypes

__all__ = ["Eszsl", "ZeroShotPrototypes"]
