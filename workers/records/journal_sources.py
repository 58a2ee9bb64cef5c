"""The longest journal that a search's files prove together: the database, its log, its backups."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metaloom.workers.records import names
from metaloom.workers.records.journal import (
    GOES_ON,
    Event,
    RecordsError,
    Row,
    RowSource,
    Values,
    break_in,
    event_of,
    follows,
    read_database,
)

TAIL_BYTES = 2**16


@dataclass(frozen=True)
class Tail:
    """The last whole line of a log, and where it ends in the file."""

    id: int
    digest: str
    end: int


@dataclass(frozen=True)
class Reading:
    """The journal of a search, as far as its files prove it.

    Attributes:
        rows: In order, from event 1.
        problem: Why the database alone is not the journal; empty if it is.
        sources: All files that hold rows, the database first; the database alone if it is whole.
    """

    rows: Sequence[Values]
    problem: str
    sources: tuple[RowSource, ...]

    @property
    def events(self) -> list[Event]:
        """The events."""
        return [event_of(row) for row in self.rows]

    @property
    def lost(self) -> list[tuple[int, Row | None]]:
        """The events that a file proves to have existed and that none holds whole: ids, and what can still be read."""
        end, held = len(self.rows), _by_id(self.sources)
        linked = {
            number: row
            for number, rows in held.items()
            for row in rows
            if number > end and any(follows(before.digest, row) for before in held.get(number - 1, ()))
        }
        last = max([*linked, end + (end + 1 in held)])  # another number may itself be the damage
        return [
            (number, linked.get(number) or next(iter(held.get(number, ())), None))
            for number in range(end + 1, last + 1)
        ]

    def warnings(self, folder: Path) -> list[str]:
        """Tell a reader of the damage and the remedy; empty if there is none."""
        if not self.problem:
            return []
        read = f"{len(self.rows)} events are read from it and its copies"
        return [f"the journal is damaged ({self.problem}); {read}; mend it with: metaloom repair {folder.name}"]


def read_journal(folder: Path) -> Reading:
    """Read the journal of the search in ``folder`` without writing: the database, or more than it where it is damaged.

    Raises:
        RecordsError: A file exists and cannot be read, for a reason that is not damage.
    """
    tail = log_tail(folder / names.JOURNAL_LOG)  # first: a running search writes the database before the log
    database = read_database(folder / names.JOURNAL_FILE)
    written = tail.id if tail else 0
    if not database.problem and written <= len(database.rows):
        return Reading(database.rows, "", (database,))
    sources = (database, *copies(folder))
    rows = union(sources)
    missing = f"the last {len(rows) - len(database.rows)} of {len(rows)} events are missing"
    if not database.problem and len(rows) <= len(database.rows):  # the log alone is damaged
        return Reading(rows, "", sources)
    return Reading(rows, database.problem or missing, sources)


def copies(folder: Path) -> list[RowSource]:
    """Read the log and the backups that exist."""
    paths = [folder / backup for backup in names.JOURNAL_BACKUPS]
    backups = [read_database(path, is_copy=True) for path in paths if path.exists()]
    log = folder / names.JOURNAL_LOG
    return [read_log(log), *backups] if log.exists() else backups


def read_log(path: Path) -> RowSource:
    """Read the rows of a journal's log; a last line without its end is one that was being written."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return RowSource(path, [], f"{path.name} is missing")
    except OSError as error:
        raise RecordsError(f"{path} cannot be read: {error.strerror}") from error
    rows = [row for line in lines[:-1] if (row := parse_line(line)) is not None]
    problem = "" if len(rows) == len(lines) - 1 else "a line is damaged"
    return RowSource(path, rows, problem or break_in(rows))


def parse_line(line: bytes) -> Row | None:
    """Read a line of a log; None if it is none."""
    try:
        digest, number, time, trial, kind, payload = line.decode().split(" ", 5)
        return Row(int(number), float(time), None if trial == "-" else int(trial), kind, payload, digest)
    except ValueError:
        return None


def union(sources: Sequence[RowSource]) -> list[Row]:
    """Return the longest unbroken chain of whole transactions, each row from any source."""
    held = _by_id(sources)
    rows: list[Row] = []
    digest = ""
    while following := [one for one in held.get(len(rows) + 1, []) if follows(digest, one)]:
        rows.append(following[0])
        digest = following[0].digest
    while rows and rows[-1].digest.endswith(GOES_ON):  # all rows of a transaction count, or none
        rows.pop()
    return rows


def _by_id(sources: Sequence[RowSource]) -> dict[int, list[Row]]:
    held: dict[int, list[Row]] = {}
    for source in sources:
        for row in map(Row._make, source.rows):
            held.setdefault(row.id, []).append(row)
    return held


def log_tail(path: Path) -> Tail | None:
    """Return the last whole line of a log; None if there is none, or it is no row."""
    try:
        with path.open("rb") as file:
            size, content, wanted = file.seek(0, 2), b"", TAIL_BYTES
            while content.count(b"\n") < 2 and len(content) < size:
                file.seek(max(0, size - wanted))
                content, wanted = file.read(min(wanted, size)), 4 * wanted
    except FileNotFoundError:
        return None
    end = content.rfind(b"\n")
    row = parse_line(content[content.rfind(b"\n", 0, end) + 1 : end]) if end >= 0 else None
    return Tail(row.id, row.digest, size - len(content) + end + 1) if row else None


def holds_records(folder: Path) -> bool:
    """Return whether a search was begun in ``folder``: an event can be read, or trials have begun.

    A search that was stopped while its journal was made holds none; it may be begun again.
    """
    if not folder.is_dir():
        return False
    return any((folder / names.TRIALS_FOLDER).glob("*")) or bool(read_journal(folder).rows)


def is_empty(folder: Path) -> bool:
    """Return whether ``folder`` exists and holds no records."""
    return folder.is_dir() and not holds_records(folder)


def emptiness(name: str) -> str:
    """Say what an empty search is, and what to do."""
    begun = "it is being made now, or was stopped before its first one"
    return f"search '{name}' has no records: {begun}; begin it by the same command as before"
