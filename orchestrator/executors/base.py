"""The interface of an executor: it runs the Director's trials on its workers."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from metaloom.learners.registry import Registry
from metaloom.orchestrator.executors.hosting import OpenTrial
from metaloom.orchestrator.interruption import Interruption

if TYPE_CHECKING:
    from metaloom.orchestrator.director import Director  # torch: 2 s, not to be paid by every worker of Ray


class Executor(Protocol):
    """Runs trials; see inline.py for the simplest one."""

    def run(self, director: "Director", open_trial: OpenTrial, *, concurrency: int = 1) -> None:
        """Run trials, ``concurrency`` at a time, until the Director has none left.

        Raises:
            Stopped: A signal has come.
            BadEnvironment: A trial found the machine at fault, or the journal cannot be written.
        """
        ...


@dataclass(frozen=True)
class ExecutorRequest:
    """A session's request to an executor.

    Attributes:
        resources: Of each trial: ``cpus``, ``gpus`` (fractions allowed), ``memory`` (bytes), ``perturbation_workers``.
        concurrency: Trials at a time; None: as many as the resources hold.
        trials: At most so many are run.
        address: Of a cluster; None: on this machine.
    """

    interruption: Interruption
    resources: Mapping[str, Any] = field(default_factory=dict)
    concurrency: int | None = None
    trials: int | None = None
    address: str | None = None


@dataclass(frozen=True)
class ExecutorKind:
    """How to open one kind of executor.

    Attributes:
        open: A context manager that yields an executor and its concurrency, and releases the workers at the end.
        check_address: Raises SearchError for an address that cannot be joined; its second argument allows a cluster
            without a token.
        check_machine: Raises BadEnvironment for resources that will never be there, before anything is written; None
            if nothing is known of where its trials run.
        check_imports: Raises SearchError for import paths of the user's code (``package.module:Name``) that its workers
            will not find, likewise; None if its trials run in this process.
    """

    open: Callable[[ExecutorRequest], AbstractContextManager[tuple[Executor, int]]]
    check_address: Callable[[str, bool], None]
    check_machine: Callable[[ExecutorRequest], None] | None = None
    check_imports: Callable[[Sequence[str], ExecutorRequest], None] | None = None


EXECUTORS: Registry[ExecutorKind] = Registry("executor")
