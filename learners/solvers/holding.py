"""Learners whose trajectories are data, with the trajectories held fixed: their estimate is then a plain derivative."""

from copy import copy

from torch import Generator

from metaloom.learners.base import Learner
from metaloom.learners.episode import Episodes
from metaloom.learners.solvers.execution import Loop
from metaloom.learners.solvers.gradient import GradientLearner
from metaloom.learners.state import LearnerState
from metaloom.learners.tensors import Tensors


def holding(learner: Learner, phi: Tensors, state: LearnerState, episodes: Episodes, generator: Generator) -> Learner:
    """Return the learner whose objective at any phi has, at this one, the derivative that ``meta_step`` estimates.

    It is the learner itself, unless its trajectories are data: then those made here are kept.
    """
    if not isinstance(learner, GradientLearner):
        return learner
    loop = learner.loop.held()
    if loop is learner.loop:
        return learner
    other = copy(learner)
    other.loop, other.execution = loop, Loop(learner.estimator_object)
    other.objective(phi, state, episodes, generator)  # fills what the loop keeps
    return other
