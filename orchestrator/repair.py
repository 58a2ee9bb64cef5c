"""Mends a damaged journal from its copies and from what the trials' own files prove.

The longest unbroken chain of events wins, each event from whichever file holds it. Damaged files are set aside, never
deleted. What no file holds is named; a resume makes it again: the search proposes the same trials, and these report
from their own logs and checkpoints.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from metaloom.orchestrator.copies import set_aside, write_backup
from metaloom.orchestrator.errors import StoreError
from metaloom.orchestrator.journal import SCHEMA, Journal, Mark, make_database, writer_lock
from metaloom.orchestrator.store import explained
from metaloom.workers.records import names as records
from metaloom.workers.records.journal import Damaged, Row, Values, event_of, mark_digest, reading, select_mark
from metaloom.workers.records.journal_sources import Reading, copies, holds_records, read_journal, union
from metaloom.workers.records.report_log import proven_step
from metaloom.workers.records.search import SearchRecord

PROJECTIONS = (records.MLFLOW_MARK, records.OPTUNA_MARK)


@dataclass(frozen=True)
class Repair:
    """What was wrong with a journal, and what was done, or would be.

    Attributes:
        problem: Why the database is not the whole journal; empty if it is.
        copies: The copies that are damaged, and are written again.
        events: The number of events that the journal has now.
        recovered: The number of them that the database alone lacked.
        lost: The events that have been in the journal and that no file holds, each by name.
        returning: The trials whose own records reach beyond the journal: a resume brings their reports back.
        set_aside: The damaged files, under their new names.
    """

    problem: str = ""
    copies: tuple[str, ...] = ()
    events: int = 0
    recovered: int = 0
    lost: tuple[str, ...] = ()
    returning: tuple[str, ...] = ()
    set_aside: tuple[str, ...] = ()

    @property
    def lines(self) -> list[str]:
        """The repair for a reader."""
        lines = [f"the journal was damaged: {self.problem}"] if self.problem else []
        lines += [f"{copy} was damaged" for copy in self.copies]
        lines += [f"{self.events} events are kept, {self.recovered} of them from its copies"] if self.problem else []
        lines += [f"lost: {one}" for one in self.lost]
        lines += [f"a resume brings back: {one}" for one in self.returning]
        return lines + [f"set aside: {path}" for path in self.set_aside]


def repair(folder: Path, *, dry_run: bool = False) -> Repair:
    """Mend the journal in ``folder`` and its copies, or with ``dry_run`` say what would be done; see ``recover``."""
    if dry_run:
        return recover(folder, thorough=True, dry_run=True)
    with writer_lock(folder):
        return recover(folder, thorough=True)


def recover(folder: Path, known: Reading | None = None, *, thorough: bool = False, dry_run: bool = False) -> Repair:
    """Mend the journal in ``folder`` if it is damaged. The caller holds the writer's lock, unless ``dry_run``.

    Args:
        known: The journal as the caller has just read it.
        thorough: Check the log and the backups too.
        dry_run: Change nothing.

    Raises:
        StoreError: No event is left, or the folder cannot be written.
        RecordsError: A file cannot be read, for a reason that is not damage.
    """
    found = known if known and is_current(folder, known) else read_journal(folder)
    problem = found.problem or _unusable(folder / records.JOURNAL_FILE)
    if not problem and not thorough:
        return Repair(events=len(found.rows))
    sources = (found.sources[0], *copies(folder))
    found = Reading(union(sources), problem, sources)
    if not found.rows:
        raise StoreError(_hopeless(folder, problem))
    odd = tuple(source.path.name for source in sources[1:] if source.problem)
    from_database = len(union(sources[:1]))
    repair = Repair(problem, odd, len(found.rows), len(found.rows) - from_database, _lost(found), _ahead(folder, found))
    if dry_run or not (problem or odd):
        return replace(repair, returning=repair.returning if problem else ())
    with explained(folder), _explained(folder):
        moved = _rebuild(folder, found) if problem else []
        moved += set_aside([folder / name for name in odd])
    repair = replace(repair, set_aside=tuple(path.name for path in moved))
    with Journal(folder) as journal:
        journal.append_between(records.JOURNAL_REPAIRED, {**asdict(repair), "lines": repair.lines})
    return repair


def is_current(folder: Path, known: Reading) -> bool:
    """Return whether a journal that was whole has had no event since."""
    if known.problem or not known.rows:
        return False
    with Journal(folder, read_only=True) as journal:
        return not journal.events(len(known.rows))


def clear(folder: Path) -> None:
    """Set aside what is left of a journal without an event, of a search that was stopped while it was made."""
    if not holds_records(folder):
        with explained(folder):
            set_aside(_database_files(folder))


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"the journal of {folder} cannot be written again: {error}; free some space") from error


def _database_files(folder: Path) -> list[Path]:
    return [folder / f"{records.JOURNAL_FILE}{suffix}" for suffix in ("", "-wal", "-shm")]


def _unusable(path: Path) -> str:
    """Return why a database whose events are whole cannot be written all the same; empty if it can."""
    try:
        with reading(path) as connection:
            for name in PROJECTIONS:
                select_mark(connection, name)
            (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except Damaged as damage:
        return str(damage)
    return "" if state == "ok" else str(state).splitlines()[-1]


def _rebuild(folder: Path, found: Reading) -> list[Path]:
    """Put a new database of the recovered rows in place; return where the damaged files are.

    The rows are first in the newest backup, so that a kill in between loses nothing.
    """
    path = folder / records.JOURNAL_FILE
    marks = _marks(folder, len(found.rows))
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as memory:
        memory.executescript(SCHEMA)
        _fill(memory, found.rows, marks)
        write_backup(folder, memory)
    moved = set_aside(_database_files(folder))
    make_database(path, lambda new: _fill(new, found.rows, marks))
    return moved


def _fill(connection: sqlite3.Connection, rows: Sequence[Values], marks: Sequence[tuple[str, Mark]]) -> None:
    connection.execute("BEGIN")
    connection.executemany(f"INSERT INTO {records.EVENTS_TABLE} VALUES (?, ?, ?, ?, ?, ?)", rows)
    values = [(name, mark.event, mark.state, mark_digest(name, mark.event, mark.state)) for name, mark in marks]
    connection.executemany(f"INSERT INTO {records.MARKS_TABLE} VALUES (?, ?, ?, ?)", values)
    connection.execute("COMMIT")


def _marks(folder: Path, events: int) -> list[tuple[str, Mark]]:
    """Return the undamaged marks, each of the database or the newest backup, at most at the last event.

    Without one a projection begins again; it sends the same points under the same times.
    """
    marks = []
    for name in PROJECTIONS:
        mark = next(_stored_marks(folder, name), None)
        if mark is not None:
            marks.append((name, Mark(min(mark[0], events), mark[1])))
    return marks


def _stored_marks(folder: Path, name: str) -> Iterator[tuple[int, str]]:
    for file in (records.JOURNAL_FILE, *records.JOURNAL_BACKUPS):
        is_copy = file != records.JOURNAL_FILE
        if (folder / file).exists():
            with contextlib.suppress(Damaged), reading(folder / file, is_copy=is_copy) as connection:
                mark = select_mark(connection, name)
                if mark is not None:
                    yield mark


def _lost(found: Reading) -> tuple[str, ...]:
    """Name the events that no file holds whole; those that cannot be read at all together."""
    unread = [number for number, row in found.lost if row is None]
    lost = [_named(row) for _, row in found.lost if row is not None]
    return (*lost, *([f"events {unread[0]} to {unread[-1]}, {len(unread)} of which nothing is left"] if unread else []))


def _named(row: Row) -> str:
    """Name an event whose checksum fails, or does so for one before it."""
    about = "the search" if row.trial is None else f"trial {row.trial}"
    step = ""
    if row.kind == records.TRIAL_REPORTED:
        with contextlib.suppress(ValueError, KeyError, TypeError):  # the damage may be here
            step = f" at step {event_of(row).payload['report']['step']}"
    return f"event {row.id}, {row.kind} of {about}{step}"


def _ahead(folder: Path, found: Reading) -> tuple[str, ...]:
    """Name the trials whose own records reach beyond the journal."""
    search = SearchRecord.replay(found.events)
    lines = []
    for number, directory in records.trial_directories(folder).items():
        trial, proven = search.trials.get(number), proven_step(directory)
        if trial is None:
            lines.append(f"trial {number}, to step {proven} of its own records, if it is proposed with the same knobs")
        elif proven > trial.step:
            lines.append(f"trial {number}, from step {trial.step} to {proven}")
    return tuple(lines)


def _hopeless(folder: Path, problem: str) -> str:
    nothing = f"the journal of '{folder.name}' is damaged ({problem}), and no copy of it holds an event"
    kept = f"what its trials have learned is in {folder / records.TRIALS_FOLDER}"
    again = f"metaloom search {folder / records.EXPERIMENT_FILE} --name {folder.name}-2"
    return f"{nothing}; {kept}; begin the search again with: {again}"
