"""Progress of a search: live on a terminal, plain lines elsewhere; always on stderr."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from metaloom.dashboards import queries, rows
from metaloom.dashboards.text import knobs_text, number, scored, span
from metaloom.learners.redaction import clean
from metaloom.orchestrator import planning
from metaloom.orchestrator.command_line import tables
from metaloom.orchestrator.command_line.answers import QUIET, VERBOSE, Answer, verbosity
from metaloom.orchestrator.interruption import leave_closed_terminal
from metaloom.orchestrator.preparing import Prepared
from metaloom.orchestrator.session import SearchSummary
from metaloom.orchestrator.store import private_umask
from metaloom.workers.activity import present
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.configurations import asked
from metaloom.workers.records.journal import Event
from metaloom.workers.records.search import SearchRecord, TrialRecord

QUIET_S = 10.0  # the least time between two lines for reports; every end of a trial gets a line
SILENCE_S = 12.0  # after which a line tells what is waited for
LOOK_S = 1.0
ENDS = {
    records.TRIAL_FINISHED: records.FINISHED,
    records.TRIAL_STOPPED: records.STOPPED,
    records.TRIAL_FAILED: records.FAILED,
}


class LineProgress:
    """Prints a line for each trial's end, and occasionally one for a report; a ``SearchProgress``."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._printed_at = 0.0
        self._said_at = time.monotonic()  # the last line of any kind
        self._phase, self._began = "preparing the data and the learners", time.monotonic()
        self._waiting: dict[int, tuple[float, str]] = {}  # the running trials: since when, and how far they are
        self._quiet_s = 0.0 if verbosity.get() == VERBOSE else QUIET_S

    def update(self, event: Event, state: SearchRecord) -> None:
        """Print the line of an event, if it has one."""
        line = self._line(event, state)
        self._note_running(event, state)
        if line:
            self._printed_at = self._said_at = time.monotonic()
            _print(self._console, line)

    def _note_running(self, event: Event, state: SearchRecord) -> None:
        """Note how far each running trial is, which another thread tells if nothing happens."""
        now, waiting = time.monotonic(), dict(self._waiting)
        if event.kind == records.SEARCH_STARTED:
            self._phase, self._began = "waiting for a worker to begin a trial", now
        running = {trial.number: trial for trial in state.in_state(records.RUNNING)}
        if event.trial in running:
            trial = running[event.trial]
            far = f"step {trial.step} of {steps_asked(trial)}, {value_text(trial, state)}"
            waiting[event.trial] = (now, far if trial.reports else "no report yet")
        self._waiting = {number: one for number, one in waiting.items() if number in running}

    def said(self) -> None:
        """Note that a line was printed by something else."""
        self._said_at = time.monotonic()

    def tell_waiting(self) -> None:
        """Print what is waited for if no line was printed for a while."""
        now = time.monotonic()
        if now - self._said_at < SILENCE_S:
            return
        self._said_at = now
        activity = present()
        if activity is not None:
            _print(self._console, f"{activity.text}, {span(now - activity.begun)} so far")
        for trial, (since, far) in self._waiting.items() if activity is None else ():
            _print(self._console, f"trial {trial}: {far}, {span(now - since)} since then")
        if activity is None and not self._waiting:
            _print(self._console, f"{self._phase}, {span(now - self._began)} so far")

    def _line(self, event: Event, state: SearchRecord) -> str:
        trial = None if event.trial is None else state.trials.get(event.trial)
        if trial is not None and event.kind in ENDS:
            return end_line(trial, ENDS[event.kind], state)
        if trial is not None and event.kind == records.TRIAL_REPORTED:
            line = f"trial {trial.number}: step {trial.step} of {steps_asked(trial)}, {value_text(trial, state)}"
            return "" if time.monotonic() - self._printed_at < self._quiet_s else line
        if trial is not None and event.kind == records.TRIAL_INTERRUPTED and event.payload["lost"]:
            tries = "" if state.settings is None else f" of {state.settings.retries}"
            lost = f"trial {trial.number}: its worker was lost ({event.payload['reason']})"
            return f"{lost}; it goes on from step {trial.step}, retry {trial.lost}{tries}"
        if trial is not None and event.kind == records.TRIAL_SUGGESTED and trial.twin is not None:
            return f"trial {trial.number} has the knobs of trial {trial.twin}: both are judged by their mean"
        if event.kind == records.TRIAL_WARNED:
            return f"trial {event.trial}: {'; '.join(event.payload['warnings'])}"
        if event.kind == records.BASELINE:
            return test_line(f"baseline {event.payload['method']}", event)
        if event.kind == records.BEST_TESTED:
            return test_line(f"best trial {event.payload['trial']}", event)
        return ""


class NoProgress(LineProgress):
    """Prints nothing, for ``-q``."""

    def update(self, event: Event, state: SearchRecord) -> None:
        """Print nothing."""

    def tell_waiting(self) -> None:
        """Print nothing."""


class LiveProgress(LineProgress):
    """A bar of trials and a line for each running one, redrawn at the bottom of the terminal."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._running: list[tuple[str, ...]] = []
        self._ended, self._asked, self._best = 0, 0, "preparing the data"
        self._begun = time.monotonic()

    def update(self, event: Event, state: SearchRecord) -> None:
        """Print ends as permanent lines, and store the values of the next drawing, which another thread makes."""
        if event.kind != records.TRIAL_REPORTED or verbosity.get() == VERBOSE:
            super().update(event, state)
        self._running = [
            (str(trial.number), f"{trial.step}/{steps_asked(trial)}", value_text(trial, state), knobs_text(trial.knobs))
            for trial in state.in_state(records.RUNNING)
        ]
        self._ended = sum(trial.ended for trial in state.trials.values())
        self._asked = asked(state)
        best = ranking.best(state)
        self._best = f"best: trial {best.number}, {value_text(best, state)}" if best else "no trial has reported yet"
        if event.kind == records.SEARCH_ENDED:
            self._best += "; writing the records"
        elif self._ended == self._asked:
            self._best += "; testing it beside the baselines"

    def __rich__(self) -> RenderableType:
        """Draw the present state."""
        head, lines = Table.grid(padding=(0, 2)), Table.grid(padding=(0, 2))
        bar = ProgressBar(total=max(self._asked, 1), completed=self._ended, width=30)
        passed = span(time.monotonic() - self._begun)
        head.add_row(bar, f"{self._ended}/{self._asked} trials", passed, Text(clean(self._best)))
        if (activity := present()) is not None:
            counted = ProgressBar(total=activity.total or 1, completed=activity.count, width=30)
            lines.add_row("" if activity.total is None else counted, Text(clean(activity.text)))
        for trial, steps, value, knobs in self._running:
            lines.add_row(f"trial {trial}", steps, value, Text(clean(knobs), overflow="ellipsis", no_wrap=True))
        return Group(head, lines)


def end_line(trial: TrialRecord, ending: str, state: SearchRecord) -> str:
    """Return the line of a trial's end."""
    ended = sum(other.ended for other in state.trials.values())
    beginning = f"[{ended}/{asked(state)}] trial {trial.number} {ending}"
    if ending == records.FAILED:
        return f"{beginning}: {trial.reason}"
    seconds = trial.last.seconds if trial.last else 0.0
    why = f" ({trial.reason})" if trial.reason else ""
    return f"{beginning}: {value_text(trial, state)}, {span(seconds)}{why}; {knobs_text(trial.knobs)}"


def test_line(name: str, event: Event) -> str:
    """Return the line of a score on the test split."""
    evaluation = event.payload["evaluation"]
    score = scored(evaluation["mean"], evaluation["interval"])
    return f"{name}: test {evaluation.get('metric', 'score')} {score} over {evaluation['episodes']} episodes"


def value_text(trial: TrialRecord, state: SearchRecord) -> str:
    """Return a trial's value in its last report."""
    if not trial.reports or state.settings is None:
        return "no report yet"
    metric = state.settings.objectives[0].metric
    return f"{metric} {number(trial.reports[-1].metrics.get(metric))}"


def steps_asked(trial: TrialRecord) -> str:
    """Return a trial's total number of steps, including retraining."""
    if trial.config is None or "steps" not in trial.config.outer:
        return "?"
    return str(trial.config.outer["steps"] + trial.config.retrain_steps)


class ConsoleHandler(logging.Handler):
    """Prints metaloom's log records above the live display."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO if verbosity.get() == VERBOSE else logging.WARNING)
        self._console = console
        self.printed: Callable[[], None] = lambda: None

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        self.printed()
        _print(self._console, f"{record.levelname.lower()}: {record.getMessage()}", style="yellow")


def _print(console: Console, line: str, style: str | None = None) -> None:
    """Print a line; a search goes on without its terminal if it is told to by no signal (``disown``)."""
    try:
        console.print(line, markup=False, style=style)
    except OSError:
        if not leave_closed_terminal():
            raise


@contextmanager
def _looking(look: Callable[[], None]) -> Iterator[None]:
    """Within this context call ``look`` once a second, in a thread."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(LOOK_S):
            look()

    thread = threading.Thread(target=run, name="metaloom-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def shown_progress(console: Console) -> Iterator[LineProgress]:
    """Show progress and metaloom's warnings on ``console`` within this context."""
    handler, logger = ConsoleHandler(console), logging.getLogger("metaloom")
    logger.addHandler(handler)
    level = logger.level
    try:
        if verbosity.get() == VERBOSE:
            logger.setLevel(logging.INFO)
        if verbosity.get() == QUIET:
            yield NoProgress(console)
            return
        if not console.is_terminal:
            lines = LineProgress(console)
            handler.printed = lines.said
            with _looking(lines.tell_waiting):
                yield lines
            return
        progress = LiveProgress(console)
        with Live(progress, console=console, refresh_per_second=4, transient=True):
            yield progress
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def show_plan(answer: Answer, prepared: Prepared) -> int:
    """Check a search, answer with what it would do, and return the exit code; see ``planning.plan``."""
    stderr = tables.console(sys.stderr)
    with shown_progress(stderr):  # for the warnings
        planned = planning.plan(prepared)
    answer.give(rows.to_json(planned), lambda screen: tables.show_plan(screen, planned))
    return 0


def run_shown(answer: Answer, run: Callable[..., SearchSummary], given: str, *, store: Path, **options: Any) -> int:
    """Run an experiment or resume a search, show its progress, answer with its result, and return the exit code."""
    private_umask()
    stderr = tables.console(sys.stderr)
    with shown_progress(stderr) as progress:
        ended = run(given, store=store, progress=progress, **options)
    for note in ended.notes:
        stderr.print(note, markup=False)
    for backlog in ended.backlogs:
        stderr.print(backlog.told(store / records.SEARCHES_FOLDER / ended.name), markup=False)
    summary = queries.search_summary(store, ended.name)
    summary["behind"] = {backlog.name: backlog.events for backlog in ended.backlogs}
    summary["rebuilt"] = list(ended.rebuilt)
    if answer.as_json and summary["state"] == records.INTERRUPTED:
        stderr.print(tables.interrupted_line(summary, store), markup=False)
    answer.give(summary, lambda screen: tables.show_outcome(screen, summary, store))
    return ended.exit_code
