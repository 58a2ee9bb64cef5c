"""One session of a search: from where the journal stands to its end, to a signal, or to a full disk."""

import contextlib
import functools
import logging
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaloom.learners.errors import BadEnvironment, unknown
from metaloom.orchestrator.comparison import compare_on_test
from metaloom.orchestrator.director import Director, Progress
from metaloom.orchestrator.errors import SearchError, StoreError
from metaloom.orchestrator.executors import ray_environment
from metaloom.orchestrator.executors.hosting import OpenTrial, open_trial
from metaloom.orchestrator.executors.inline import InlineExecutor
from metaloom.orchestrator.journal import Journal
from metaloom.orchestrator.proposing.study import OptunaProjection
from metaloom.orchestrator.signals import Interruption, Stopped
from metaloom.orchestrator.state import INTERRUPTED, SearchState
from metaloom.orchestrator.store import Store, command
from metaloom.orchestrator.tracking.outbox import Backlog, Deferred, Outboxes
from metaloom.orchestrator.tracking.projection import start_projections
from metaloom.search_spaces.experiment import Experiment
from metaloom.search_spaces.resolve import resolve
from metaloom.workers.records import names as records

EXECUTORS = ("ray", "inline")
DRAIN_S = 60.0  # what MLflow and Optuna's database have not taken by then is left to 'metaloom sync'
DRAIN_INTERRUPTED_S = 10.0  # a scheduler that sends SIGTERM sends SIGKILL half a minute later
logger = logging.getLogger("metaloom")


@dataclass(frozen=True)
class RunOptions:
    """How a session runs; none of it changes a trial's result.

    Attributes:
        executor: ``ray`` or ``inline``.
        address: Of a Ray cluster; None starts Ray on this machine.
        concurrency: Trials at a time; None: as many as the resources hold.
        insecure_cluster: Join a cluster at ``address`` that asks nobody for a token: who reaches it runs code there.
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
        if self.executor == "inline" and self.address:
            raise SearchError("the inline executor runs in this process; leave --address out, or use --executor ray")
        if self.address and self.address.startswith("ray://"):
            raise SearchError(
                f"{self.address} is a Ray client's address; run this command on a node of the cluster, with --address "
                "HOST:PORT of its head (as `ray start` prints it)"
            )
        if self.address and not self.insecure_cluster and os.environ.get("RAY_AUTH_MODE") != "token":
            raise SearchError(
                f"the cluster at {self.address} would be joined without a token, and whoever reaches such a cluster "
                "can run code on it; start it and this command with RAY_AUTH_MODE=token, or pass --insecure-cluster"
            )


@dataclass(frozen=True)
class SearchSummary:
    """What a session came to. Everything else is in the journal: ``dashboards.queries.search_summary``.

    Attributes:
        name: The search.
        store: The store's folder.
        state: ``finished``, ``failed`` or ``interrupted``.
        exit_code: 0; 1 if a trial failed; 128 + the signal's number if interrupted.
        best: Number of the best trial, or None: of the finished ones; where none has finished (a time budget stops
            all), of the stopped ones; where none has ended, of those that have reported.
        value: Its first objective.
        interval: 95% interval of its validation metric.
        tested: Its test (``trial``, ``evaluation``), or None.
        baselines: The baselines' tests on the same episodes (``method``, ``evaluation``), and by how much the best
            trial is better, episode by episode (``best_better_by``; None if the episodes are not the same).
        failed: The reasons of failed trials, by number.
        notes: What the user should be told.
        backlogs: What has not reached MLflow or Optuna's database yet.
    """

    name: str
    store: Path
    state: str
    exit_code: int
    best: int | None
    value: float | None
    interval: tuple[float, float] | None
    tested: Mapping[str, Any] | None
    baselines: Sequence[Mapping[str, Any]]
    failed: Mapping[int, str]
    notes: Sequence[str] = ()
    backlogs: Sequence[Backlog] = ()


def run_session(
    experiment: Experiment,
    journal: Journal,
    *,
    store: Store,
    options: RunOptions,
    progress: Progress | None = None,
    notes: Sequence[str] = (),
) -> SearchSummary:
    """Run a search from where its journal stands. The caller holds the writer's lock.

    A signal ends the session with complete records, and the summary says ``interrupted``.

    Raises:
        BadEnvironment: The disk is full, Ray does not start ...; what was recorded is intact.
    """
    director = Director(journal, functools.partial(resolve, experiment), progress=progress)
    advice = f"what was recorded is intact; go on with: {command('resume', journal.folder)}"
    interruption, told = Interruption(advice), list(notes)
    outboxes = _start_projections(experiment, journal, store, director)
    try:
        with interruption.installed():
            try:
                director.start()
                _run_trials(experiment, director, store, options, interruption)
                if director.exhausted:
                    tried, asked = len(director.state.trials), director.settings.trials
                    told.append(f"the grid has no further combination: {tried} trials, of the {asked} asked for")
                told += compare_on_test(experiment, director, store, interruption)
                director.end()
            except Stopped:
                _journal_signal(director, interruption)
            except BadEnvironment as error:
                with contextlib.suppress(StoreError):  # the disk is full: the next session notes it
                    director.interrupt(str(error))
                error.add_note(advice)
                raise
            backlogs = outboxes.close(DRAIN_S if interruption.signal_number is None else DRAIN_INTERRUPTED_S)
    finally:
        outboxes.close(0.0)
    return summarize(journal.folder, director.state, interruption.signal_number, notes=told, backlogs=backlogs)


def summarize(
    folder: Path,
    state: SearchState,
    signal_number: int | None = None,
    *,
    notes: Sequence[str] = (),
    backlogs: Sequence[Backlog] = (),
) -> SearchSummary:
    """Sum up a search as it stands."""
    best = state.best()
    failed = {trial.number: trial.reason or "" for trial in state.in_state(records.FAILED)}
    exit_code = 1 if failed or state.state == "failed" else 0
    if state.state == INTERRUPTED:
        exit_code = 128 + (signal_number or signal.SIGINT)
    return SearchSummary(
        name=folder.name,
        store=folder.parent.parent,
        state=state.state,
        exit_code=exit_code,
        best=None if best is None else best.number,
        value=None if best is None else state.value(best),
        interval=None if best is None else best.reports[-1].interval,
        tested=state.tested,
        baselines=tuple(state.baselines),
        failed=failed,
        notes=tuple(notes),
        backlogs=tuple(backlogs),
    )


def _start_projections(experiment: Experiment, journal: Journal, store: Store, director: Director) -> Outboxes:
    def optuna_database() -> OptunaProjection:
        return OptunaProjection(store.optuna_database, search=journal.folder.name, settings=director.settings)

    return start_projections(
        journal.folder,
        store=store.path,
        tracking=experiment.tracking.model_dump(mode="json"),
        warn=logger.warning,
        others=[Deferred(OptunaProjection.name, optuna_database)],
    )


def _run_trials(
    experiment: Experiment, director: Director, store: Store, options: RunOptions, interruption: Interruption
) -> None:
    if director.is_over:
        return
    opening: OpenTrial = functools.partial(open_trial, cache=store.cache)
    helpers = experiment.resources.perturbation_workers
    if options.executor == "inline":
        if helpers:
            logger.warning("perturbation_workers (%d) need Ray: perturbations are evaluated in this process", helpers)
        InlineExecutor(interruption).run(director, opening)
        return
    ray_environment.prepare()
    from metaloom.orchestrator.executors import (
        placement,
        ray_connection,  # here: nothing else waits for ray or needs it
    )
    from metaloom.orchestrator.executors import ray_tune as cluster

    resources = experiment.resources.model_dump(mode="json")
    wanted = options.concurrency or experiment.search.concurrency
    cpus = None if options.address else _cpus(wanted, float(resources["cpus"]))
    with ray_connection.connected(interruption, address=options.address, cpus=cpus) as connection:
        room = placement.slots(resources)
        if wanted and helpers and wanted > room:
            logger.warning(
                "with perturbation_workers (%d) the cluster has room for %d trials, not %d", helpers, room, wanted
            )
        trials = wanted or room
        try:
            executor = cluster.RayExecutor(interruption, connection, resources=resources)
            executor.run(director, opening, concurrency=trials)
        except Stopped:
            _journal_signal(director, interruption)  # before Ray is shut down: that takes a second or two
            raise


def _journal_signal(director: Director, interruption: Interruption) -> None:
    director.interrupt(f"{signal.Signals(interruption.signal_number or signal.SIGINT).name} was received")


def _cpus(concurrency: int | None, each: float) -> int:
    """Return how many CPUs a Ray of our own should believe in: this process's, or what was asked for."""
    here = len(os.sched_getaffinity(0))
    return max(here, -int(-(concurrency or 1) * each // 1))
