"""One session of a search: from the journal's last event to the search's end, a signal or a full disk."""

import contextlib
import functools
import logging
import signal
from collections.abc import Sequence

from metaloom.learners.errors import BadEnvironment
from metaloom.orchestrator.comparison import compare_on_test
from metaloom.orchestrator.director import Director, SearchProgress
from metaloom.orchestrator.errors import StoreError
from metaloom.orchestrator.executors import EXECUTORS, ExecutorRequest, RunOptions
from metaloom.orchestrator.executors.hosting import OpenTrial, open_trial
from metaloom.orchestrator.interruption import Interruption, Stopped
from metaloom.orchestrator.journal import Journal
from metaloom.orchestrator.proposing.mirror import OptunaProjection
from metaloom.orchestrator.store import Store, command
from metaloom.orchestrator.summary import SearchSummary, summarize
from metaloom.orchestrator.tracking.outbox import Outboxes
from metaloom.orchestrator.tracking.projection import start_projections
from metaloom.search_spaces.experiment import Experiment
from metaloom.search_spaces.resolve import resolve
from metaloom.workers.records import names as records

DRAIN_S = 60.0  # for MLflow and Optuna's database; 'metaloom sync' sends the rest
DRAIN_INTERRUPTED_S = 10.0  # a scheduler that sends SIGTERM sends SIGKILL half a minute later
logger = logging.getLogger("metaloom")


def run_session(
    experiment: Experiment,
    journal: Journal,
    *,
    store: Store,
    options: RunOptions,
    progress: SearchProgress | None = None,
    notes: Sequence[str] = (),
) -> SearchSummary:
    """Run a search from its journal's last event. The caller holds the writer's lock.

    A signal ends the session with complete records; the summary's state is then ``interrupted``.

    Raises:
        BadEnvironment: The disk is full, Ray does not start ...; what was recorded is intact.
    """
    director = Director(journal, functools.partial(resolve, experiment), progress=progress)
    advice = f"what was recorded is intact; go on with: {command('resume', journal.folder)}"
    interruption, all_notes = Interruption(advice), list(notes)
    outboxes = _start_projections(experiment, journal, store, director)
    try:
        with interruption.installed():
            try:
                director.start()
                _run_trials(experiment, director, store, options, interruption)
                if director.exhausted:
                    tried, asked = len(director.state.trials), director.settings.trials
                    all_notes.append(f"the grid has no further combination: {tried} trials, of the {asked} asked for")
                all_notes += compare_on_test(experiment, director, store, interruption)
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
    return summarize(journal.folder, director.state, interruption.signal_number, notes=all_notes, backlogs=backlogs)


def _start_projections(experiment: Experiment, journal: Journal, store: Store, director: Director) -> Outboxes:
    name, database = journal.folder.name, store.optuna_database
    optuna = functools.partial(OptunaProjection, database, search=name, settings=director.settings)
    return start_projections(
        journal.folder,
        store=store.path,
        tracking=experiment.tracking.model_dump(mode="json"),
        warn=logger.warning,
        others={records.OPTUNA_MARK: optuna},
    )


def _run_trials(
    experiment: Experiment, director: Director, store: Store, options: RunOptions, interruption: Interruption
) -> None:
    if director.is_over:
        return
    opening: OpenTrial = functools.partial(open_trial, cache=store.cache)
    request = ExecutorRequest(
        interruption,
        resources=experiment.resources.model_dump(mode="json"),
        concurrency=options.concurrency or experiment.search.concurrency,
        address=options.address,
    )
    with EXECUTORS[options.executor].open(request) as (executor, concurrency):
        try:
            executor.run(director, opening, concurrency=concurrency)
        except Stopped:
            _journal_signal(director, interruption)  # before Ray's shutdown, which takes a second or two
            raise


def _journal_signal(director: Director, interruption: Interruption) -> None:
    director.interrupt(f"{signal.Signals(interruption.signal_number or signal.SIGINT).name} was received")
