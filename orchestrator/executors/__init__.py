"""Where trials run. A new executor is one file that registers an ``ExecutorKind`` in ``EXECUTORS``.

It stands here, or in a package that names it under the entry point group ``metaloom.executors``.
"""

import pkgutil
from dataclasses import dataclass
from importlib import import_module

from metaloom.learners.errors import unknown
from metaloom.learners.plugins import load_plugins
from metaloom.learners.redaction import secrets_in
from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.executors.base import EXECUTORS, Executor, ExecutorKind, ExecutorRequest

__all__ = ["EXECUTORS", "Executor", "ExecutorKind", "ExecutorRequest", "RunOptions"]

for _module in pkgutil.iter_modules(__path__):  # each file registers its executor: no list is kept by hand
    import_module(f"{__name__}.{_module.name}")
load_plugins("metaloom.executors")


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
        if secrets_in(self.address or ""):
            raise SearchError(
                "address: holds a password, which Ray does not read; leave it out, and set RAY_AUTH_TOKEN"
            )
        if self.address:
            EXECUTORS[self.executor].check_address(self.address, self.insecure_cluster)
