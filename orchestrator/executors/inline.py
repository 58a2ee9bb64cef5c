"""Trials one after another in this process, without Ray: for debugging and small searches."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.executors.base import EXECUTORS, Executor, ExecutorKind, ExecutorRequest
from metaloom.orchestrator.executors.hosting import OpenTrial, TrialHost
from metaloom.orchestrator.interruption import Interruption

if TYPE_CHECKING:
    from metaloom.orchestrator.director import Director

NAME = "inline"
logger = logging.getLogger("metaloom")


class InlineExecutor:
    """Runs a search's trials in this process, one at a time."""

    def __init__(self, interruption: Interruption) -> None:
        self._interruption = interruption

    def run(self, director: "Director", open_trial: OpenTrial, *, concurrency: int = 1) -> None:
        """Run trials until the Director has none left; see ``Executor``. ``concurrency`` is ignored: it is one."""
        host = TrialHost(open_trial)
        try:
            while (assignment := director.next_trial(worker=NAME)) is not None:
                host.begin(assignment)
                goes_on = True
                while goes_on:
                    with self._interruption.raising():  # a trial can be killed anywhere
                        message = host.step()
                    goes_on = director.hear(message)
        finally:
            host.close()


@contextmanager
def _opened(request: ExecutorRequest) -> Iterator[tuple[Executor, int]]:
    if count := request.resources.get("perturbation_workers"):
        logger.warning("perturbation_workers (%d) need Ray: perturbations are evaluated in this process", count)
    yield InlineExecutor(request.interruption), 1


def _check_address(address: str, insecure: bool) -> None:
    raise SearchError("the inline executor runs in this process; leave --address out, or use --executor ray")


EXECUTORS.add(NAME, ExecutorKind(_opened, _check_address))
