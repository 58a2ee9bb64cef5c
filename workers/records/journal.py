"""The events of a search, and reading them from its journal without writing."""

import contextlib
import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaloom.learners.errors import BadEnvironment
from metaloom.learners.redaction import redacted
from metaloom.workers.records.names import EVENTS_TABLE, MARKS_TABLE


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


def read_events(path: Path) -> list[Event]:
    """Read every event of the journal at ``path``, oldest first; raises RecordsError if it is unreadable."""
    query = f"SELECT id, time, trial, kind, payload FROM {EVENTS_TABLE} ORDER BY id"
    return [Event(row[0], row[1], row[2], row[3], payload_of(row[4])) for row in _rows(path, query)]


def payload_of(text: str) -> dict[str, Any]:
    """Read a stored payload, without the passwords that version 0.2 and earlier wrote."""
    return dict(json.loads(redacted(text)))


def first_payload(path: Path, *, as_stored: bool = False) -> dict[str, Any]:
    """Return the payload of the first event, with its passwords if it is given as stored; empty without events."""
    rows = _rows(path, f"SELECT payload FROM {EVENTS_TABLE} ORDER BY id LIMIT 1")
    return {} if not rows else dict(json.loads(rows[0][0])) if as_stored else payload_of(rows[0][0])


def read_mark(path: Path, name: str) -> dict[str, Any]:
    """Return the state that projection ``name`` left in the journal; empty if it never ran."""
    rows = _rows(path, f"SELECT state FROM {MARKS_TABLE} WHERE name = ?", name)
    state = json.loads(rows[0][0]) if rows and rows[0][0] else {}
    return dict(state)


def _rows(path: Path, query: str, *values: str) -> list[tuple[Any, ...]]:
    """Run one reading query; a store on a read-only medium is opened as immutable."""
    for mode in ("mode=ro", "mode=ro&immutable=1"):
        try:
            uri = f"{path.absolute().as_uri()}?{mode}"
            with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=30)) as connection:
                return connection.execute(query, values).fetchall()
        except sqlite3.OperationalError as error:
            # WAL needs its side file beside the database; where that cannot be made, nobody writes either.
            if "immutable" in mode or "unable to open" not in str(error):
                raise RecordsError(f"{path} cannot be read: {error}") from error
        except sqlite3.DatabaseError as error:
            raise RecordsError(f"{path} is no journal, or is damaged: {error}") from error
    raise AssertionError("unreachable: the last mode returns or raises")
