"""The events of a search, the chain of their digests, and the files that hold them, read without writing.

A row's digest is taken of the digest before it and of its own content, so that a changed, missing or exchanged row
breaks the chain. Three kinds of file hold rows: the journal's database, its log (one line a row) and its backups.
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from metaloom.learners.errors import BadEnvironment
from metaloom.learners.redaction import redacted
from metaloom.workers.records.names import EVENTS_TABLE, MARKS_TABLE

DIGEST = "digest"
DIGITS = 32  # of a digest in hexadecimal
GOES_ON = "+"  # ends the digest of a row whose transaction has more rows
WRITE_AHEAD = b"\2\2"  # bytes 18 and 19 of a database in WAL mode, as every journal is
# SQLite's primary codes that mean damage: error, corrupt, schema, too big, mismatch, format, not a database.
DAMAGE_CODES = frozenset({1, 11, 17, 18, 20, 24, 26})
SHORT_READ = sqlite3.SQLITE_IOERR_SHORT_READ


class RecordsError(BadEnvironment):
    """The records of a search cannot be read."""


@dataclass(frozen=True)
class Event:
    """One line of the journal.

    Attributes:
        id: Position, from 1 (0 before it is appended).
        time: Seconds since the epoch.
        trial: The trial it is about, or None if about the search.
        kind: One of the kinds of event in ``names``.
        payload: JSON values.
    """

    id: int
    time: float
    trial: int | None
    kind: str
    payload: dict[str, Any]


Values: TypeAlias = tuple[Any, ...]  # of a row as SQLite gives them: Python's collector follows no plain tuples


class Row(NamedTuple):
    """An event as it is stored: its payload as JSON text, and its digest."""

    id: int
    time: float
    trial: int | None
    kind: str
    payload: str
    digest: str = ""

    @property
    def line(self) -> str:
        """The row as a line of the log."""
        return f"{self.digest} {_content(*self[:5])}\n"


def event_of(row: Values) -> Event:
    """Return the event of a row."""
    return Event(row[0], row[1], row[2], row[3], payload_of(row[4]))


def payload_of(text: str) -> dict[str, Any]:
    """Read a stored payload, without the passwords that version 0.2 and earlier wrote."""
    return dict(json.loads(redacted(text)))


def first_payload(path: Path, *, as_stored: bool = False) -> dict[str, Any]:
    """Return the payload of the first event, with its passwords if it is given as stored; empty without events.

    Raises:
        RecordsError: It cannot be read.
    """
    try:
        with reading(path) as connection:
            row = connection.execute(f"SELECT payload FROM {EVENTS_TABLE} ORDER BY id LIMIT 1").fetchone()
    except Damaged as damage:
        raise RecordsError(f"{path} is no journal, or is damaged: {damage}") from damage
    return {} if row is None else dict(json.loads(row[0])) if as_stored else payload_of(row[0])


@dataclass(frozen=True)
class RowSource:
    """The rows that one file holds.

    Attributes:
        rows: All readable rows, by id; each follows the one before it up to the first gap.
        problem: Why the file is not whole; empty if it is.
    """

    path: Path
    rows: Sequence[Values]
    problem: str = ""


def chained(previous: str, row: Iterable[Any]) -> str:
    """Return the digest of a row (its first five values) that follows the row of digest ``previous``."""
    number, time, trial, kind, payload, *_ = row
    text = f"{previous}\n{_content(number, time, trial, kind, payload)}"
    return sha256(text.encode()).hexdigest()[:DIGITS]


def _content(number: int, time: float, trial: int | None, kind: str, payload: str) -> str:
    return f"{number} {time!r} {'-' if trial is None else trial} {kind} {payload}"


def follows(previous: str, row: Row) -> bool:
    """Return whether a row's digest is its own, after a row of digest ``previous``."""
    digest = chained(previous, row)
    return row.digest in (digest, digest + GOES_ON)


def break_in(rows: Iterable[Values], *, after: int = 0, digest: str = "") -> str:
    """Return where the chain of ``rows``, which follow event ``after`` of a digest, breaks; empty if it does not."""
    for number, time, trial, kind, payload, stored in rows:
        if number != after + 1:
            return f"event {after + 1} is missing"
        # the text of chained(), written out: a long journal's rows are verified at each opening
        text = f"{digest}\n{number} {time!r} {'-' if trial is None else trial} {kind} {payload}"
        digest = sha256(text.encode()).hexdigest()[:DIGITS]
        if stored != digest:
            if stored != digest + GOES_ON:
                return f"event {number} does not have the checksum it was written with"
            digest = stored
        after = number
    return ""


def read_database(path: Path, *, is_copy: bool = False) -> RowSource:
    """Read the rows of a journal's database or, with ``is_copy``, of a backup of one.

    A database of an earlier version has no digests: its rows get theirs, and are taken for whole if they follow each
    other and hold JSON.

    Raises:
        RecordsError: The file exists and cannot be read, for a reason that is not damage.
    """
    rows: list[Values] = []
    try:
        write_ahead = is_write_ahead(path)
        with reading(path, is_copy=is_copy) as connection:
            chain = has_digests(connection, EVENTS_TABLE)
            problem = _read_rows(connection, rows, chain)
        if chain and not is_copy and not write_ahead:  # SQLite would pass over its write-ahead log
            problem = problem or "it does not begin as a journal does"
    except Damaged as damage:
        problem = str(damage)
    return RowSource(path, rows, problem or break_in(rows))


def _read_rows(connection: sqlite3.Connection, rows: list[Values], chain: bool) -> str:
    """Append all readable rows; return why some are not readable."""
    digest = DIGEST if chain else "''"
    query = f"SELECT id, time, trial, kind, payload, {digest} FROM {EVENTS_TABLE} ORDER BY id"
    try:
        rows.extend(connection.execute(query))  # those before an error are kept
    except sqlite3.Error as error:
        rows += _rows_from_the_end(connection, query, rows[-1][0] if rows else 0)
        return _damage(error)
    return "" if chain else give_digests(rows)


def _rows_from_the_end(connection: sqlite3.Connection, query: str, after: int) -> list[Values]:
    """Return the rows behind damage that a reading from the last row reaches."""
    rows: list[Values] = []
    with contextlib.suppress(sqlite3.Error):  # the same damage, from the other side
        for values in connection.execute(f"{query} DESC"):
            if values[0] <= after:
                break
            rows.append(values)
    return rows[::-1]


def has_digests(connection: sqlite3.Connection, table: str) -> bool:
    """Return whether a table has its column of digests, which an earlier version's lacks."""
    found = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    if not found:
        raise Damaged(f"it has no table {table}")
    return DIGEST in found


def give_digests(rows: list[Values]) -> str:
    """Chain the rows of an earlier version in place; return which row cannot be one, and drop it and the later ones."""
    digest = ""
    for index, row in enumerate(map(Row._make, rows)):
        try:
            whole = isinstance(json.loads(row.payload), dict) and isinstance(row.kind, str)
        except (TypeError, ValueError):
            whole = False
        if not whole:
            del rows[index:]
            return f"event {row.id} cannot be read"
        digest = chained(digest, row)
        rows[index] = row._replace(digest=digest)
    return ""


def mark_digest(name: str, event: object, state: object) -> str:
    """Return the digest of a projection's mark."""
    return sha256(f"{name} {event} {state}".encode()).hexdigest()[:DIGITS]


def read_mark(path: Path, name: str) -> dict[str, Any]:
    """Return the state that projection ``name`` left in the journal; empty if it never ran, or its mark is damaged."""
    try:
        with reading(path) as connection:
            row = select_mark(connection, name)
    except Damaged:
        return {}  # the journal's own reader tells of it
    return dict(json.loads(row[1])) if row and row[1] else {}


def select_mark(connection: sqlite3.Connection, name: str) -> tuple[int, str] | None:
    """Return the event and the state of the mark ``name``; None if there is none, or it is damaged."""
    chain = has_digests(connection, MARKS_TABLE)
    digest = DIGEST if chain else "NULL"
    row = connection.execute(f"SELECT event, state, {digest} FROM {MARKS_TABLE} WHERE name = ?", (name,)).fetchone()
    if row is None or (chain and row[2] != mark_digest(name, row[0], row[1])):
        return None
    return row[0], row[1]


class Damaged(Exception):  # noqa: N818
    """A database is damaged; the message says how."""


@contextlib.contextmanager
def reading(path: Path, *, is_copy: bool = False) -> Iterator[sqlite3.Connection]:
    """Open a database for reading; a store on a read-only medium, like a copy, is opened as immutable.

    Raises:
        RecordsError: It cannot be read, for a reason that is not damage.
    """
    modes = ("mode=ro&immutable=1",) if is_copy else ("mode=ro", "mode=ro&immutable=1")
    try:
        with _connected(path, modes) as connection:
            yield connection
    except sqlite3.Error as error:
        raise Damaged(_damage(error, path)) from error


@contextlib.contextmanager
def _connected(path: Path, modes: tuple[str, ...]) -> Iterator[sqlite3.Connection]:
    """Open a database in the first mode in which it can be read."""
    for mode in modes:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=30)
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            break
        except sqlite3.Error as error:
            connection.close()
            # WAL needs its side file beside the database; where that cannot be made, nobody writes either.
            if mode == modes[-1] or "unable to open" not in str(error):
                raise
    with contextlib.closing(connection):
        yield connection


def _damage(error: sqlite3.Error, path: Path | None = None) -> str:
    """Return the text of an error that means damage; raises RecordsError for any other."""
    code = getattr(error, "sqlite_errorcode", None)  # none: a text that is no UTF-8
    if code is None or code & 0xFF in DAMAGE_CODES or code == SHORT_READ:
        return str(error)
    raise RecordsError(f"{path or 'the journal'} cannot be read: {error}") from error


def is_write_ahead(path: Path) -> bool:
    """Return whether a database begins as one in WAL mode; raises Damaged if it is missing or empty."""
    try:
        with path.open("rb") as file:
            header = file.read(20)
    except FileNotFoundError:
        raise Damaged("it is missing") from None
    except OSError as error:
        raise RecordsError(f"{path} cannot be read: {error.strerror}") from error
    if not header:
        raise Damaged("it is empty")
    return header[18:20] == WRITE_AHEAD
