"""The outboxes of one search, and what fills a database that was made again with the store's other searches."""

import functools
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from metaloom.orchestrator import credentials
from metaloom.orchestrator.journal import Journal, writer_lock
from metaloom.orchestrator.repair import recover
from metaloom.orchestrator.store import Store, command
from metaloom.orchestrator.tracking.describing import HtmlReport
from metaloom.orchestrator.tracking.outbox import Backlog, Outbox, Projection, Warn
from metaloom.orchestrator.tracking.projection import MlflowProjection, tracking_of
from metaloom.workers.records import names as records
from metaloom.workers.records.journal import Event
from metaloom.workers.records.search import SearchRecord

PATIENCE_S = 3600.0
SLOW_S = 30.0  # after that the user is told what is waited for
OTHERS_S = 60.0  # for the other searches of a database that was made again, at the end of a search
LOOK_S = 0.05

Make = Callable[[], Projection]


class Outboxes:
    """The outboxes of one search, closed together.

    Args:
        projections: Makes the projection of each name, in its thread.
        warn: Receives one line per outage, and one if the delivery takes long.
        thorough: Compare what the other systems have with what they should have, and send the difference.
    """

    def __init__(self, folder: Path, projections: Mapping[str, Make], *, warn: Warn, thorough: bool = False) -> None:
        self._warn = warn
        self._others = {name: OtherSearches(warn) for name in projections}
        self._outboxes = [
            Outbox(folder, name, make, warn=warn, thorough=thorough, connected=self._others[name].begin)
            for name, make in projections.items()
        ]

    @property
    def rebuilt(self) -> list[str]:
        """What was done about missing or damaged databases, in one line each."""
        return [line for outbox in self._outboxes for line in outbox.rebuilt]

    def close(
        self,
        timeout_s: float = PATIENCE_S,
        *,
        others_s: float = OTHERS_S,
        stop: Callable[[], bool] = lambda: False,
    ) -> list[Backlog]:
        """Deliver the rest; return the backlogs. A system that hangs is waited for as its projection's pulse says.

        Args:
            timeout_s: For everything, also if the systems answer.
            others_s: For the other searches of databases that were made again.
            stop: Asked often; if true, nothing more is waited for.
        """
        began = time.monotonic()
        for outbox in self._outboxes:
            outbox.hurry()  # all first, so that they drain in parallel
        told = False
        while any(outbox.is_delivering(began) for outbox in self._outboxes) and not stop():
            waited_s = time.monotonic() - began
            if waited_s >= timeout_s:
                break
            if waited_s > SLOW_S and not told:
                told = True
                self._tell_slow(began)
            time.sleep(min(LOOK_S, timeout_s - waited_s))
        backlogs = [(outbox.backlog(), outbox.is_uncompared) for outbox in self._outboxes]
        deadline = time.monotonic() + min(others_s, max(0.0, timeout_s - (time.monotonic() - began)))
        for others in self._others.values():
            others.close(deadline, stop)
        return [backlog for backlog, is_uncompared in backlogs if backlog.events or is_uncompared]

    def _tell_slow(self, began: float) -> None:
        for outbox in self._outboxes:
            if outbox.is_delivering(began):
                left = f"{outbox.backlog().events} events are still to be sent to {outbox.name}"
                later = f"Ctrl-C leaves them for '{command('sync', outbox.folder)}'"
                self._warn(f"{left}, which takes long; {later}")


class OtherSearches:
    """Sends the store's other searches to a database that was made again, one after another, in a thread.

    Args:
        warn: Receives one line for each search that cannot be sent.
    """

    def __init__(self, warn: Warn) -> None:
        self._warn = warn
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._outbox: Outbox | None = None

    def begin(self, outbox: Outbox) -> None:
        """Begin if the database to which ``outbox`` has connected lacks other searches."""
        if _lacking(outbox) and not (self._thread and self._thread.is_alive()):
            self._outbox = outbox
            self._thread = threading.Thread(target=self._run, args=(outbox,), name=f"others-{outbox.name}", daemon=True)
            self._thread.start()

    def close(self, deadline: float, stop: Callable[[], bool]) -> None:
        """Wait for the thread until ``deadline``; say what is left then."""
        if self._thread is None or self._outbox is None:
            return
        while self._thread.is_alive() and time.monotonic() < deadline and not stop():
            self._thread.join(LOOK_S)
        self._ending.set()
        if self._thread.is_alive() and (left := _lacking(self._outbox)):
            later = f"the next search, or '{command('sync', self._outbox.folder)}', goes on with them"
            self._warn(f"{len(left)} searches are still to be sent to {self._outbox.name} again: {later}")

    def _run(self, outbox: Outbox) -> None:
        for name in _lacking(outbox):
            assert outbox.projection is not None  # it has connected
            folder = outbox.folder.with_name(name)
            make = functools.partial(outbox.projection.of_search, folder)
            box, began = Outbox(folder, outbox.name, make, warn=self._warn, thorough=True), time.monotonic()
            box.hurry()
            while box.is_delivering(began):
                if self._ending.wait(LOOK_S):
                    return


def _lacking(outbox: Outbox) -> list[str]:
    """Return the other searches that the outbox's database lacks."""
    database = outbox.projection and outbox.projection.database
    return [name for name in database.pending() if name != outbox.folder.name] if database else []


def start_projections(
    folder: Path,
    *,
    store: Path,
    tracking: Mapping[str, Any],
    warn: Warn,
    others: Mapping[str, Make] = MappingProxyType({}),
    html: HtmlReport | None = None,
    thorough: bool = False,
) -> Outboxes:
    """Start to copy the journal of the search in ``folder`` to MLflow and to ``others``, each in its own thread.

    Call ``close`` on the result after the search's last event; it returns the backlogs, which a later start delivers.

    Args:
        warn: Receives one line per outage.
        others: More projections by name, such as Optuna's, each with the function that makes it.
        html: Makes the report that is a file of the search's run in MLflow.
        thorough: Compare what the other systems have with what they should have, and send the difference.
    """
    mlflow = functools.partial(MlflowProjection, folder, store=store, tracking=tracking, warn=warn, html=html)
    projections: dict[str, Make] = {records.MLFLOW_MARK: mlflow, **others}
    return Outboxes(folder, projections, warn=warn, thorough=thorough)


def synchronize(
    store: Path,
    name: str,
    *,
    warn: Warn,
    others: Callable[[Path], Mapping[str, Make]] = lambda folder: {},
    html: HtmlReport | None = None,
    timeout_s: float = PATIENCE_S,
) -> tuple[list[Backlog], list[str]]:
    """Bring MLflow and ``others`` up to date with search ``name``; return the backlogs, and what was made again.

    Whatever they lack of it is sent, not only the newest events. If the search's driver was killed, journal the
    search's end first, so that no MLflow run stays RUNNING.

    Raises:
        SearchError: There is no such search, or it is running (it then sends its records itself).
    """
    folder = Store(store).existing_folder(name)
    with writer_lock(folder):
        for line in recover(folder).lines:
            warn(line)
        if told := credentials.adopt(store, folder):
            warn(told)
        with Journal(folder) as journal:
            end_if_killed(journal)
        tracking = tracking_of(folder)
        credentials.resolved(store, tracking.get("uri") or "")  # what is missing is said at once
        boxes = start_projections(
            folder, store=store, tracking=tracking, warn=warn, others=others(folder), html=html, thorough=True
        )
        return boxes.close(timeout_s, others_s=timeout_s), boxes.rebuilt


def end_if_killed(journal: Journal) -> None:
    """Journal the end of a session that was cut off."""
    events = journal.events()
    state = SearchRecord.replay(events)
    if state.state == records.RUNNING:
        # At the time of the last event: the time since then does not count in the search's budget.
        moment, reason, running = events[-1].time, records.KILLED, state.in_state(records.RUNNING)
        cut_off = {"reason": reason, "lost": False}
        ends = [Event(0, moment, trial.number, records.TRIAL_INTERRUPTED, cut_off) for trial in running]
        ended = {"state": records.INTERRUPTED, "reason": reason}
        journal.append_all([*ends, Event(0, moment, None, records.SEARCH_ENDED, ended)])
