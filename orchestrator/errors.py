"""The errors of the orchestrator: of the search that was asked for, and of what it needs."""

from metaloom.learners.errors import BadEnvironment, BadInput


class SearchError(BadInput):
    """The search, as asked for, cannot be run or gone on with."""


class StoreError(BadEnvironment):
    """The store cannot be written or read."""


class ClusterError(BadEnvironment):
    """Ray cannot be started, reached, or does not have what a trial asks for."""


class TaskError(BadInput):
    """The files of a new task cannot be used."""
