"""The errors of the orchestrator."""

from metaloom.learners.errors import BadEnvironment, BadInput


class SearchError(BadInput):
    """The requested search cannot be run or resumed."""


class StoreError(BadEnvironment):
    """The store cannot be written or read."""


class ClusterError(BadEnvironment):
    """Ray does not start, does not answer, or lacks the resources that a trial requests."""


class TaskError(BadInput):
    """The files of a new task cannot be used."""
