"""One session of a search: from the journal's last event to the search's end, a signal or a full disk.

After the trials the best one and the baselines are tested on the same episodes.
"""

import contextlib
import functools
import logging
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaloom.learners.errors import BadEnvironment, MetaloomError
from metaloom.orchestrator.director import Director
from metaloom.orchestrator.ending import end_note
from metaloom.orchestrator.errors import StoreError
from metaloom.orchestrator.executors import EXECUTORS, ExecutorRequest, RunOptions
from metaloom.orchestrator.executors.hosting import OpenTrial, open_trial
from metaloom.orchestrator.interruption import Interruption, Stopped
from metaloom.orchestrator.journal import Journal
from metaloom.orchestrator.messages import SearchProgress
from metaloom.orchestrator.own_code import check_code
from metaloom.orchestrator.proposing import mirror, search_report
from metaloom.orchestrator.store import Store, command
from metaloom.orchestrator.tracking.outbox import Backlog
from metaloom.orchestrator.tracking.outboxes import PATIENCE_S, Outboxes, start_projections
from metaloom.search_spaces.experiment import Experiment
from metaloom.search_spaces.resolve import baseline, baseline_name, resolve
from metaloom.workers.activity import doing
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.search import SearchRecord
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.scoring import evaluate_trial, paired_difference

DRAIN_INTERRUPTED_S = (
    10.0  # for MLflow and Optuna's database: a scheduler that sends SIGTERM sends SIGKILL half a minute later
)
BASELINES_FOLDER = "baselines"
REFUSED_IN_FOLDERS = re.compile(r"[^\w.=()\[\]-]")
logger = logging.getLogger("metaloom")


@dataclass(frozen=True)
class SearchSummary:
    """The result of a session; ``dashboards.queries.search_summary`` gives everything else.

    Attributes:
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
        backlogs: The events that have not reached MLflow or Optuna's database yet.
        rebuilt: Which of these databases were missing or damaged, and what was done, in one line each.
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
    rebuilt: Sequence[str] = ()

    def __repr__(self) -> str:
        tested = "" if self.tested is None else f", test {self.tested['evaluation']['mean']:.4g}"
        best = "no best trial" if self.best is None else f"best trial {self.best}: {self.value:.4g}{tested}"
        return f"<search '{self.name}' {self.state}; {best}>"


def summarize(
    folder: Path,
    state: SearchRecord,
    signal_number: int | None = None,
    *,
    notes: Sequence[str] = (),
    backlogs: Sequence[Backlog] = (),
    rebuilt: Sequence[str] = (),
) -> SearchSummary:
    """Return the summary of a search's present state."""
    best = ranking.best(state)
    failed = {trial.number: trial.reason or "" for trial in state.in_state(records.FAILED)}
    exit_code = 1 if failed or state.state == "failed" else 0
    if state.state == records.INTERRUPTED:
        exit_code = 128 + (signal_number or signal.SIGINT)
    return SearchSummary(
        name=folder.name,
        store=folder.parent.parent,
        state=state.state,
        exit_code=exit_code,
        best=None if best is None else best.number,
        value=None if best is None else ranking.judged_value(state, best),
        interval=None if best is None else best.reports[-1].interval,
        tested=state.tested,
        baselines=tuple(state.baselines),
        failed=failed,
        notes=tuple(notes),
        backlogs=tuple(backlogs),
        rebuilt=tuple(rebuilt),
    )


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
    outboxes = _start_projections(experiment, journal, store)
    try:
        with interruption.installed():
            try:
                director.start()
                _run_trials(experiment, director, store, options, interruption)
                if director.exhausted:
                    tried, asked = director.state.begun, director.settings.trials
                    all_notes.append(f"the grid has no further combination: {tried} trials, of the {asked} asked for")
                all_notes += compare_on_test(experiment, director, store, interruption)
                director.end()
                all_notes += [note] if (note := end_note(journal.folder, director.state)) else []
            except Stopped:
                _journal_signal(director, interruption)
            except BadEnvironment as error:
                with contextlib.suppress(StoreError):  # the disk is full: the next session notes it
                    director.interrupt(str(error))
                error.add_note(advice)
                raise
            with doing("sending the records to MLflow and Optuna's database"):
                backlogs = _drained(outboxes, interruption)
    finally:
        outboxes.close(0.0)
    return summarize(
        journal.folder,
        director.state,
        interruption.signal_number,
        notes=all_notes,
        backlogs=backlogs,
        rebuilt=outboxes.rebuilt,
    )


def check_machine(experiment: Experiment, options: RunOptions) -> bool:
    """Return whether the trials will run on this machine.

    Raises:
        BadEnvironment: Their resources are neither here nor on the cluster that is to be joined.
    """
    check = EXECUTORS[options.executor].check_machine
    if check is not None:
        check(_request(experiment, options, Interruption(), trials=experiment.search.runs))
    return check is not None and options.address is None


def check_workers(experiment: Experiment, options: RunOptions) -> None:
    """Refuse trusted code of the user's own that the trials' workers cannot import; raises SearchError."""
    check_code(
        experiment,
        options.executor,
        _request(experiment, options, Interruption(), trials=experiment.search.trials),
    )


def _request(
    experiment: Experiment, options: RunOptions, interruption: Interruption, *, trials: int
) -> ExecutorRequest:
    return ExecutorRequest(
        interruption,
        resources=experiment.resources.model_dump(mode="json"),
        concurrency=options.concurrency or experiment.search.concurrency,
        trials=trials,
        address=options.address,
    )


def _start_projections(experiment: Experiment, journal: Journal, store: Store) -> Outboxes:
    return start_projections(
        journal.folder,
        store=store.path,
        tracking=experiment.tracking.model_dump(mode="json"),
        warn=logger.warning,
        others=mirror.projections(journal.folder),
        html=search_report.html_of,
    )


def _drained(outboxes: Outboxes, interruption: Interruption) -> list[Backlog]:
    """Deliver what waits, as long as the other systems answer and no signal comes."""
    if interruption.signal_number is not None:
        return outboxes.close(DRAIN_INTERRUPTED_S)
    return outboxes.close(PATIENCE_S, stop=lambda: interruption.signal_number is not None)


def _run_trials(
    experiment: Experiment, director: Director, store: Store, options: RunOptions, interruption: Interruption
) -> None:
    if director.is_over:
        return
    opening: OpenTrial = functools.partial(open_trial, cache=store.cache)
    request = _request(experiment, options, interruption, trials=director.settings.runs)
    with EXECUTORS[options.executor].open(request) as (executor, concurrency):
        try:
            executor.run(director, opening, concurrency=concurrency)
        except Stopped:
            _journal_signal(director, interruption)  # before Ray's shutdown, which takes a second or two
            raise


def _journal_signal(director: Director, interruption: Interruption) -> None:
    director.interrupt(f"{signal.Signals(interruption.signal_number or signal.SIGINT).name} was received")


def compare_on_test(experiment: Experiment, director: Director, store: Store, interruption: Interruption) -> list[str]:
    """Test and journal what is untested; return notes on tests that failed. Raises Stopped or BadEnvironment."""
    notes: list[str] = []
    best = ranking.best(director.state)
    if best is not None and best.config is not None and director.state.tested is None:
        number, directory = best.number, director.directory(best.number)
        episodes = int(best.config.outer["test_episodes"])
        evaluation = _guarded(lambda: _evaluate(directory, store, episodes), f"trial {number}", interruption, notes)
        if evaluation is not None:
            director.note(records.BEST_TESTED, trial=number, evaluation=evaluation)
    done, folder = {baseline["method"] for baseline in director.state.baselines}, director.journal.folder
    for index, asked in enumerate(experiment.search.baselines):
        method = baseline_name(asked)
        if method in done:
            continue
        config = director.config(-1 - index, baseline(experiment, asked))  # a number, and so a seed, of no other trial
        directory = folder / BASELINES_FOLDER / REFUSED_IN_FOLDERS.sub("_", method)
        train = functools.partial(_trained_and_tested, config, directory, store)
        evaluation = _guarded(train, f"baseline {method}", interruption, notes)
        if evaluation is not None:
            tested = director.state.tested
            better = tested and paired_difference(director.directory(tested["trial"]), directory)
            difference = better.to_json() if better else None  # None without common episodes
            director.note(records.BASELINE, method=method, evaluation=evaluation, best_better_by=difference)
    return notes


def _trained_and_tested(config: TrialConfig, directory: Path, store: Store) -> dict[str, Any]:
    """Train a baseline as a trial of its own, from a checkpoint if there is one, and test it."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    trial = open_trial(config, directory, cache=store.cache)
    while not trial.finished:
        trial.advance()
    trial.close()
    return _evaluate(directory, store, int(config.outer["test_episodes"]))


def _evaluate(directory: Path, store: Store, episodes: int) -> dict[str, Any]:
    return evaluate_trial(directory, cache=store.cache, episodes=episodes, trust_code=True).to_json()


def _guarded(
    work: Callable[[], dict[str, Any]], what: str, interruption: Interruption, notes: list[str]
) -> dict[str, Any] | None:
    """Do work that a signal may cut off; what fails becomes a note, since the trials are safe."""
    try:
        with interruption.raising(), doing(f"testing {what}"):
            return work()
    except BadEnvironment:
        raise
    except MetaloomError as error:
        notes.append(f"{what} could not be tested: {error}")
        return None
