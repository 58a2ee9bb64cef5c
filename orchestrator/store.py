"""The store folder: its paths and names, and whether it can be written.

::

    <store>/                     0700
      searches/<name>/           journal.db, lock, owner.json, experiment.yaml, trials/0007/...
      stages/<digest>/           a stage that trials start from: as a trial's folder, and stage.json, lock, bundle/
      cache/                     the task sources' Arrow files
      mlflow.db  mlartifacts/    optuna.db
      credentials                the addresses that have a password (0600)
"""

import errno
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from metaloom.learners.errors import unknown
from metaloom.orchestrator.errors import SearchError, StoreError
from metaloom.workers.durable import is_full
from metaloom.workers.records.journal_sources import emptiness, holds_records, is_empty
from metaloom.workers.records.names import CACHE_FOLDER, SEARCH_NAME, SEARCHES_FOLDER, search_names

DEFAULT_STORE = Path("metaloom-store")
STORE_VARIABLE = "METALOOM_STORE"  # the environment variable with --store's default
MINIMUM_FREE_BYTES = 8 * 2**20  # a small search's journal, checkpoints and episodes


def checked_name(name: str) -> str:
    """Return ``name`` if it may name a search; raises SearchError if it could leave the store."""
    if not SEARCH_NAME.fullmatch(name):
        raise SearchError(
            f"a search cannot be named {name!r}: 1 to 80 of A-Z a-z 0-9 . _ - are allowed, the first neither . nor -"
        )
    return name


@contextmanager
def explained(where: Path) -> Iterator[None]:
    """Turn an operating-system error about ``where`` into a StoreError with advice."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise StoreError(f"the disk of {where} is full: free some space") from error
        what = "write to" if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM} else "use"
        reason = f"cannot {what} {where}: {error.strerror or error}"
        raise StoreError(f"{reason}; choose another folder with --store") from error


class Store:
    """The paths of one store folder, which need not exist before ``create``."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser().absolute()
        self.searches = self.path / SEARCHES_FOLDER
        self.cache = self.path / CACHE_FOLDER
        self.optuna_database = self.path / "optuna.db"

    def create(self) -> "Store":
        """Make the folder, for its owner only; raises StoreError if it cannot be written or its disk is nearly full."""
        with explained(self.path):
            existed = self.path.exists()
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not existed:
                self.path.chmod(0o700)
            self.searches.mkdir(mode=0o700, exist_ok=True)
            self.cache.mkdir(mode=0o700, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path) as probe:
                probe.write(b"metaloom")
            free_bytes = shutil.disk_usage(self.path).free
        if free_bytes < MINIMUM_FREE_BYTES:
            free = f"only {free_bytes / 2**20:.1f} MiB are free on the disk of {self.path}"
            needed = f"a search needs at least {MINIMUM_FREE_BYTES // 2**20} MiB"
            raise StoreError(f"{free}; {needed}: free some space or choose another folder with --store")
        return self

    @contextmanager
    def taken_back(self) -> Iterator[None]:
        """If the work within this context fails, remove the folder if it is new and still empty."""
        is_new = not self.path.exists()
        try:
            yield
        except BaseException:
            inside = list(self.cache.glob("*")) if is_new else []
            for lock in inside if all(path.suffix == ".lock" for path in inside) else ():  # of rejected data
                lock.unlink(missing_ok=True)
            for folder in (self.searches, self.cache, self.path) if is_new else ():
                with suppress(OSError):  # missing, or not empty
                    folder.rmdir()
            raise

    def folder(self, name: str) -> Path:
        """Return the folder of a search, existing or not; raises SearchError for a name that leaves the store."""
        return self.searches / checked_name(name)

    def existing_folder(self, name: str) -> Path:
        """Return the folder of an existing search; raises SearchError if there is none, or it is empty."""
        folder = self.folder(name)
        if is_empty(folder):
            raise SearchError(emptiness(name))
        if not folder.is_dir():
            names = search_names(self.path)
            raise SearchError(unknown("search", name, names) if names else f"there is no search yet in {self.path}")
        return folder

    def new_folder(self, name: str) -> Path:
        """Make the folder of a new search, or take one that has no records; raises SearchError for a name in use."""
        folder = self.folder(name)
        with explained(self.path):
            try:
                folder.mkdir(mode=0o700)
            except FileExistsError:
                self.check_free(name)
        return folder

    def check_free(self, name: str) -> None:
        """Raise SearchError if ``name`` is in use, or cannot name a search."""
        folder = self.folder(name)
        if holds_records(folder):
            exists = f"a search named '{name}' exists already in {self.path}"
            again = f"go on with it by '{command('resume', folder)}'"
            raise SearchError(f"{exists}; {again}, or give this one another name with --name")

    def free_name(self, stem: str) -> str:
        """Return ``stem``, or ``stem-2``, ``stem-3`` ...: the first that no search has."""
        name, number = checked_name(stem), 2
        while holds_records(self.searches / name):
            name, number = checked_name(f"{stem}-{number}"), number + 1
        return name


def command(verb: str, folder: Path) -> str:
    """Return the command line that does ``verb`` to the search in ``folder``."""
    return f"metaloom {verb} {folder.name}{store_option(folder.parents[1])}"


def store_option(store: Path) -> str:
    """Return the option for ``store`` with a blank before it; empty for the default store."""
    usual = Path(os.environ.get(STORE_VARIABLE) or DEFAULT_STORE)
    return "" if store.absolute() == usual.absolute() else f" --store {shlex.quote(str(store))}"


def private_umask() -> None:
    """Make files that are created from now on unreadable for other users."""
    os.umask(0o077)
