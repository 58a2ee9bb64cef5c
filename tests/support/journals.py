"""Journals that another version, or damage, would leave: written again with other events, or changed in their bytes."""

from collections.abc import Callable
from pathlib import Path

from metaloom.orchestrator.journal import Journal
from metaloom.workers.records import names as records
from metaloom.workers.records.journal import Event
from metaloom.workers.records.journal_sources import read_journal

COPIES = (records.JOURNAL_LOG, *records.JOURNAL_BACKUPS)


def rewrite(folder: Path, change: Callable[[list[Event]], list[Event]]) -> None:
    """Write a journal again with its events as ``change`` returns them, in one transaction."""
    events = change(read_journal(folder).events)
    remove_copies(folder)
    for suffix in ("", "-wal", "-shm"):
        (folder / f"{records.JOURNAL_FILE}{suffix}").unlink(missing_ok=True)
    with Journal(folder) as journal:
        journal.append_all(events)


def remove_copies(folder: Path) -> None:
    """Remove the log and the backups."""
    for name in COPIES:
        (folder / name).unlink(missing_ok=True)


def flip(path: Path, position: int, bit: int = 0) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)
