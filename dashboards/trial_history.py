"""What happened to a trial, event by event, and what its code has printed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaloom.dashboards.text import counted, number
from metaloom.learners.redaction import redacted
from metaloom.workers.records import names as records
from metaloom.workers.records.journal import Damaged, payload_of, reading

PAGE_BYTES = 20_000  # of what is printed
_STYLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # of a terminal
# Reports are many and large: of them only what is shown is taken out of the database.
_EVENTS = f"""
    SELECT id, time, kind, CASE kind WHEN '{records.TRIAL_REPORTED}' THEN NULL ELSE payload END,
        CASE kind WHEN '{records.TRIAL_REPORTED}' THEN json_extract(payload, '$.report.step') END,
        CASE kind WHEN '{records.TRIAL_REPORTED}' THEN json_extract(payload, '$.worker') END
    FROM {records.EVENTS_TABLE} WHERE trial = ? ORDER BY id
"""
_SESSIONS = f"SELECT id FROM {records.EVENTS_TABLE} WHERE kind = '{records.SEARCH_STARTED}' ORDER BY id"


@dataclass(frozen=True)
class HistoryRow:
    """An event of a trial.

    Attributes:
        time: In seconds since the epoch.
        session: The number of the search's session, from 1.
        what: In a word or two.
        told: The rest in words.
        worker: Host and process that worked on it; the executor where it was only begun.
    """

    time: float
    session: int
    what: str
    told: str
    worker: str = ""


def history(folder: Path, trial: int) -> tuple[HistoryRow, ...]:
    """Return what happened to a trial of the search in ``folder``; none where the journal's database is damaged.

    Raises:
        RecordsError: It cannot be read.
    """
    try:
        with reading(folder / records.JOURNAL_FILE) as connection:
            sessions = [row[0] for row in connection.execute(_SESSIONS)]
            found = list(connection.execute(_EVENTS, (trial,)))
    except Damaged:
        return ()  # the page says so: the record of the search is then read from its copies
    rows = []
    for event, time, kind, payload, step, worker in found:
        session = sum(begun <= event for begun in sessions)
        given = {} if payload is None else payload_of(payload)
        what, told = ("reported", f"at step {step}") if payload is None else _words(kind, given)
        rows.append(HistoryRow(time, session, what, told, str(worker or given.get("worker") or "")))
    return tuple(rows)


def _words(kind: str, given: Mapping[str, Any]) -> tuple[str, str]:
    """Return what an event is called, and what it says."""
    match kind:
        case records.TRIAL_SUGGESTED:
            of = f", as a repeat of trial {given['repeat_of']}" if given.get("repeat_of") is not None else ""
            return "suggested", f"by {given['sampler']}{of}"
        case records.TRIAL_STARTED:
            return ("started", "") if given["attempt"] == 1 else ("resumed", f"attempt {given['attempt']}")
        case records.TRIAL_STOPPED:
            return "stopped", f"at step {given['step']}: {given['reason']}"
        case records.TRIAL_FINISHED:
            return "finished", ", ".join(f"{name} {number(value)}" for name, value in given["values"].items())
        case records.TRIAL_FAILED:
            return "failed", str(given["reason"])
        case records.TRIAL_INTERRUPTED:
            return ("worker lost" if given["lost"] else "interrupted"), str(given["reason"])
        case records.TRIAL_EXPLOITED:
            return (
                "exchanged",
                f"went on from the checkpoint of trial {given['donor']}, in generation {given['generation']}",
            )
        case records.TRIAL_WARNED:
            return "warned", "; ".join(given["warnings"])
        case records.TRIAL_REWROTE:
            return "rewrote", counted(len(given["parts"]), "part") + " of its episodes"
        case records.NOTED:
            return "noted", "; ".join(given["notes"])
    return kind.replace("_", " "), ""


@dataclass(frozen=True)
class OutputPage:
    """A piece of what a trial's code has printed, in whole lines.

    Attributes:
        text: Without colours of a terminal, and without passwords.
        start: Its first byte in the file.
        end: The byte behind it.
        size: Of the file.
    """

    text: str
    start: int
    end: int
    size: int


def output_page(directory: Path, end: int | None = None) -> OutputPage | None:
    """Return the piece that ends before byte ``end``, by default the newest; None where nothing was printed."""
    try:
        with (directory / records.OUTPUT_FILE).open("rb") as file:
            size = file.seek(0, 2)
            end = size if end is None else min(max(end, 0), size)
            start = max(0, end - PAGE_BYTES)
            file.seek(start)
            content = file.read(end - start)
    except FileNotFoundError:
        return None
    if start and b"\n" in content[:-1]:  # the line that is cut is on the page before
        cut = content.index(b"\n") + 1
        start, content = start + cut, content[cut:]
    return OutputPage(redacted(_STYLE.sub("", content.decode(errors="replace"))), start, end, size)


def output_end_after(page: OutputPage) -> int:
    """Return where the piece after a page ends."""
    return min(page.end + PAGE_BYTES, page.size)
