"""The errors of the orchestrator: of the search that was asked for, and of the store it needs."""

from metaloom.learners.errors import BadEnvironment, BadInput, MetaloomError


class SearchError(BadInput):
    """The search, as asked for, cannot be run or gone on with."""


class StoreError(BadEnvironment):
    """The store cannot be written or read."""


class ClusterError(BadEnvironment):
    """Ray cannot be started, reached, or does not have what a trial asks for."""


class SearchInterrupted(MetaloomError):  # noqa: N818  (nothing has gone wrong)
    """A signal ended the search; its records are complete and it can be resumed.

    Args:
        name: The search.
        signal_number: SIGINT or SIGTERM.
    """

    def __init__(self, name: str, signal_number: int) -> None:
        super().__init__(f"search '{name}' was interrupted; go on with: metaloom resume {name}")
        self.name = name
        self.exit_code = 128 + signal_number
