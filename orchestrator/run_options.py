"""Where a session of a search runs its trials, and how many at a time."""

from dataclasses import dataclass

from metaloom.learners.errors import unknown
from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.executors import EXECUTORS


@dataclass(frozen=True)
class RunOptions:
    """How a session runs; no option changes a trial's result.

    Attributes:
        executor: ``ray`` or ``inline``.
        address: Of a Ray cluster; None starts Ray on this machine.
        concurrency: Trials at a time; None: as many as the resources hold.
        insecure_cluster: Join a cluster at ``address`` without a token; anyone who reaches it can run code there.

    Raises:
        SearchError: There is no such executor, or it cannot run at ``address``.
    """

    executor: str = "ray"
    address: str | None = None
    concurrency: int | None = None
    insecure_cluster: bool = False

    def __post_init__(self) -> None:
        if self.executor not in EXECUTORS:
            raise SearchError(unknown("executor", self.executor, EXECUTORS))
        if self.concurrency is not None and self.concurrency < 1:
            raise SearchError(f"concurrency must be at least 1, got {self.concurrency}")
        if self.address:
            EXECUTORS[self.executor].check_address(self.address, self.insecure_cluster)
