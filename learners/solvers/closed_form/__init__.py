"""Solvers whose head is the solution of a convex problem on the support set, differentiated at that solution."""

from metaloom.learners.solvers.closed_form.ridge import Ridge, ridge_weights
from metaloom.learners.solvers.closed_form.svm import SupportVectorMachine

__all__ = ["Ridge", "SupportVectorMachine", "ridge_weights"]
