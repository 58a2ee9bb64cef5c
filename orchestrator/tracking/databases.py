"""A store's own SQLite databases, MLflow's and Optuna's: made aside, checked, set aside if damaged, and made again.

A database that a killed process or a full disk left half-made would always fail, so its tables are made in a file
beside it, which is then renamed. Beside a database that was made again, a list names the searches whose journals are
still to be sent to it; it survives a kill. A process notices by the file's identity that another one has replaced it.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import filelock

from metaloom.orchestrator.errors import StoreError
from metaloom.workers.durable import sync, write_text

LOCK_TIMEOUT_S = 120.0  # another process makes the tables, or checks a large database
SIDE_FILES = ("-journal", "-wal", "-shm")  # before the database itself: a new one must not find those of an old one
DAMAGES = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR")  # the last one of an unknown file format
HALF_MADE = "its tables are half-made"
NO_IDENTITY = (0, 0)

Identity = tuple[int, int]  # device and inode


@dataclass(frozen=True)
class Tables:
    """The tables of a database.

    Attributes:
        package: Whose tables they are.
        make: Makes them in the file at a path, which does not exist yet.
        upgrade: Brings those of an older version up to date, in place.
        schemas: Returns the names of all versions of the schema that the package knows, the newest first.
    """

    package: str
    make: Callable[[Path], None]
    upgrade: Callable[[Path], None]
    schemas: Callable[[], Sequence[str]]


class OwnDatabase:
    """One of a store's own databases.

    Args:
        tables: How to make them.
        searches: Returns the names of the searches that the database is to hold; if its argument is true, of those
            alone that it has held, by their marks.
        settle: Puts right what a whole database holds of another place than its own; returns what was done, or nothing.
    """

    def __init__(
        self,
        path: Path,
        tables: Tables,
        searches: Callable[[bool], list[str]],
        settle: Callable[[Path], str] = lambda path: "",
    ) -> None:
        self.path, self._tables, self._searches, self._settle = path, tables, searches, settle
        self._pending_file = path.with_name(f"{path.name}.rebuild")

    def prepare(self) -> str:
        """Make the database if it is missing, damaged or half-made; return what was done, in one line, or nothing.

        Raises:
            StoreError: It is of a newer version of its package.
            filelock.Timeout: Another process has not made it within two minutes.
        """
        with self._locked():
            self._finish_setting_aside()
            told = self._replaced()
            if not self.path.exists():
                if not told and (searches := self._searches(True)):
                    self._write_pending(searches)
                    told = f"was missing {self._again()}"
                with self._aside() as aside:
                    self._tables.make(aside)
                    self._place(aside)
            told = " and ".join(filter(None, [told, self._settle(self.path)]))
        return told and f"{self.path.name} {told}"

    def settle(self) -> str:
        """Put right what the database, if there is one, holds of another place; return what was done, or nothing."""
        if not self.path.exists():
            return ""
        with self._locked():
            told = self._settle(self.path)
        return told and f"{self.path.name} {told}"

    @property
    def identity(self) -> Identity:
        """The file's identity, which changes when another process makes the database again."""
        try:
            facts = self.path.stat()
        except FileNotFoundError:
            return NO_IDENTITY
        return facts.st_dev, facts.st_ino

    def pending(self) -> list[str]:
        """Return the names of the searches whose journals are still to be sent to the database."""
        return self._read_pending()[0]

    def sent(self, search: str) -> None:
        """Note that a search's whole journal is in the database."""
        if search in self.pending():
            with self._locked():
                self._write_pending([name for name in self.pending() if name != search])

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # One process at a time: of eight that create one database together, six or seven fail.
        with filelock.FileLock(self.path.with_suffix(".lock"), timeout=LOCK_TIMEOUT_S):
            yield

    def _replaced(self) -> str:
        """Set a damaged database aside, upgrade one of an older version; return what was done, or nothing."""
        if not self.path.exists():
            return ""
        problem, schema = examined(self.path)
        if not problem:
            schemas = self._tables.schemas()
            if schema == schemas[0]:
                return ""
            if schema not in schemas:
                package = self._tables.package
                newer = f"{self.path} was made by a newer version of {package} than {version(package)}"
                schema = f"its schema is {schema}"
                raise StoreError(f"{newer} ({schema}); install that one, or move the file away to have it made again")
            problem, kept = self._upgraded()
            if not problem:
                return f"was made by an older version, is kept as {kept}, and was upgraded"
        kept = self._set_aside("damaged", self._searches(False))
        return f"was damaged ({problem}), is kept as {kept}, {self._again()}"

    def _again(self) -> str:
        return f"and is made again from the journals of its searches ({len(self.pending())})"

    def _upgraded(self) -> tuple[str, str]:
        """Upgrade a copy and put it in place; return the problem if that fails, and the old one's new name."""
        with self._aside() as copy:
            with closing(sqlite3.connect(self.path)) as source, closing(sqlite3.connect(copy)) as target:
                source.backup(target)
            try:
                self._tables.upgrade(copy)
            except Exception as error:  # SQLAlchemy's, alembic's or the package's own
                return f"{HALF_MADE}: {str(error).splitlines()[0][:200]}", ""
            kept = self._set_aside("older", self.pending())
            self._place(copy)
        return "", kept

    @contextmanager
    def _aside(self) -> Iterator[Path]:
        """Give a path beside the database, without what a killed process left there."""
        aside = self.path.with_name(f"{self.path.name}.new")
        for path in _with_side_files(aside):
            path.unlink(missing_ok=True)
        try:
            yield aside
        finally:
            for path in _with_side_files(aside):
                path.unlink(missing_ok=True)

    def _place(self, aside: Path) -> None:
        """Put a whole database in place, with the write-ahead log that waits for the disk once a commit."""
        with closing(sqlite3.connect(aside, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        sync(aside)
        for left in _with_side_files(self.path)[:-1]:  # of a database that the user has removed
            left.unlink(missing_ok=True)
        aside.replace(self.path)
        sync(self.path.parent)

    def _set_aside(self, why: str, searches: Sequence[str]) -> str:
        """Move the database away, and list the searches that its successor lacks; return its new name."""
        number = 1
        while (kept := self.path.with_name(f"{self.path.name}.{why}-{number}")).exists():
            number += 1
        self._write_pending(searches, aside=kept.name)
        self._finish_setting_aside()
        return kept.name

    def _finish_setting_aside(self) -> None:
        """Move what is still to be moved, also after a kill in between."""
        searches, aside = self._read_pending()
        if aside is None:
            return
        kept = self.path.with_name(aside)
        if not kept.exists():
            for path, target in zip(_with_side_files(self.path), _with_side_files(kept), strict=True):
                if path.exists():
                    path.replace(target)
        self._write_pending(searches)

    def _read_pending(self) -> tuple[list[str], str | None]:
        try:
            document = json.loads(self._pending_file.read_text())
        except FileNotFoundError:
            return [], None
        return document["searches"], document["aside"]

    def _write_pending(self, searches: Sequence[str], *, aside: str | None = None) -> None:
        if searches or aside:
            write_text(self._pending_file, json.dumps({"searches": list(searches), "aside": aside}))
        else:
            self._pending_file.unlink(missing_ok=True)


def examined(path: Path) -> tuple[str, str]:
    """Return why an SQLite file is damaged, or nothing, and its schema's version; raises sqlite3.OperationalError."""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)) as connection:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                return str(found).splitlines()[-1], ""
            tables = {name for name, _ in connection.execute("SELECT name, sql FROM sqlite_master")}
            if "alembic_version" not in tables:
                return HALF_MADE, ""
            versions = [version for (version,) in connection.execute("SELECT version_num FROM alembic_version")]
    except sqlite3.DatabaseError as error:
        name = getattr(error, "sqlite_errorname", DAMAGES[0])  # Python's own error, of a text, has none
        if not name.startswith(DAMAGES):
            raise
        return str(error), ""
    except UnicodeDecodeError:  # in a name of the schema, or in SQLite's message about it
        return "a name in its schema is damaged", ""
    return ("", versions[0]) if versions else (HALF_MADE, "")


def sqlite_uri(path: Path) -> str:
    """Return SQLAlchemy's address of a file.

    Only ``%`` and ``?`` in a folder's name are quoted: SQLAlchemy unquotes the path, but MLflow makes the folder from
    the address without unquoting.
    """
    return f"sqlite:///{str(path.absolute()).replace('%', '%25').replace('?', '%3F')}"


def _with_side_files(path: Path) -> list[Path]:
    return [path.with_name(path.name + suffix) for suffix in (*SIDE_FILES, "")]
