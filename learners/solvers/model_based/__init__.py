"""Solvers whose networks build the model of a task from its support set."""
