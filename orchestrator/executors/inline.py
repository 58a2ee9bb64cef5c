"""Trials one after another in this process, without Ray: for debugging and small searches."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.executors.base import EXECUTORS, Executor, ExecutorKind, ExecutorRequest
from metaloom.orchestrator.executors.hosting import OpenTrial, TrialHost
from metaloom.orchestrator.executors.watching import Hanging, Watch
from metaloom.orchestrator.interruption import Interruption, every_second

if TYPE_CHECKING:
    from metaloom.orchestrator.director import Director

NAME = "inline"
logger = logging.getLogger("metaloom")


class _Hangs(BaseException):
    """Leaves a trial that shows no progress; no Exception, as that would be the trial's own failure."""

    def __init__(self, found: Hanging) -> None:
        super().__init__(found)
        self.found = found


class InlineExecutor:
    """Runs a search's trials in this process, one at a time.

    A trial that hangs can be ended between two instructions of Python, and in a wait of the system; not inside a
    library's own code, and not if the search runs in another thread than the main one.
    """

    def __init__(self, interruption: Interruption) -> None:
        self._interruption = interruption

    def run(self, director: "Director", open_trial: OpenTrial, *, concurrency: int = 1) -> None:
        """Run trials until the Director has none left; see ``Executor``. ``concurrency`` is ignored: it is one."""
        host, watch = TrialHost(open_trial), Watch(director)
        try:
            while (assignment := director.next_trial(worker=NAME)) is not None:
                watch.begin(assignment.config.trial)
                host.begin(assignment)
                try:
                    self._run_trial(director, host, watch)
                except _Hangs as hangs:
                    director.hangs(*hangs.found)
                watch.end(assignment.config.trial)
        finally:
            host.close()

    def _run_trial(self, director: "Director", host: TrialHost, watch: Watch) -> None:
        """Run a trial until the Director ends it; raises _Hangs."""

        def look() -> None:
            for found in watch.look():
                raise _Hangs(found)

        goes_on = True
        while goes_on:
            with self._interruption.raising(), every_second(look if watch.is_needed else None):
                message = host.step()  # a trial can be killed anywhere
            goes_on = director.hear(message)


@contextmanager
def _opened(request: ExecutorRequest) -> Iterator[tuple[Executor, int]]:
    if count := request.resources.get("perturbation_workers"):
        logger.warning("perturbation_workers (%d) need Ray: perturbations are evaluated in this process", count)
    yield InlineExecutor(request.interruption), 1


def _check_address(address: str, insecure: bool) -> None:
    raise SearchError("the inline executor runs in this process; leave --address out, or use --executor ray")


def _check_machine(request: ExecutorRequest) -> None:
    from metaloom.workers.device import check_gpus  # torch: 2 s, not to be paid by every worker of Ray

    check_gpus(request.resources)


EXECUTORS.add(NAME, ExecutorKind(_opened, _check_address, _check_machine))
