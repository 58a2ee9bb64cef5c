"""What Ray must be told through the environment before it is imported or started.

Measured on Ray 2.60: a plain ``ray.init()`` listens on all interfaces, keeps its
token readable by everyone, reports usage, changes the trials' working directory
and writes a handful of files per trial.
"""

import atexit
import contextlib
import fcntl
import logging
import os
import secrets
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "DO_NOT_TRACK": "true",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # leave CUDA_VISIBLE_DEVICES alone where no GPU is asked for
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # the journal is the truth: Tune's snapshots are never read
    "TUNE_MAX_PENDING_TRIALS_PG": "1024",  # all workers start at once; the searcher holds trials back itself
    "TUNE_WARN_THRESHOLD_S": "60",
}
MODE, PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"
LOCAL = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # makes Ray use 127.0.0.1 on Linux too
    MODE: "token",
    "RAY_worker_niceness": "0",  # at Ray's 15 a trial gets next to nothing beside any other busy process
}
TOKEN_FILE = "token"
FOLDER_PREFIX = "metaloom-"
OWNER_FILE = "owner"  # in a private folder: locked by the process whose folder it is

_private_folder: Path | None = None


def prepare() -> None:
    """Set the variables that hold for any Ray; call before ``ray`` is imported. What the user has set stays."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def private() -> Iterator[None]:
    """Have the Ray that is started within for this user only, on 127.0.0.1 only, unless the user has said otherwise.

    Afterwards the environment is as it was: a cluster that is joined later keeps the user's own authentication.
    """
    before = {name: os.environ.get(name) for name in (*LOCAL, PATH)}
    for name, value in LOCAL.items():
        os.environ.setdefault(name, value)
    if os.environ[MODE] == "token" and "RAY_AUTH_TOKEN" not in os.environ and PATH not in os.environ:
        os.environ[PATH] = str(_token())
    try:
        yield
    finally:
        for name, given in before.items():
            os.environ.pop(name, None)
            if given is not None:
                os.environ[name] = given


def private_folder() -> Path:
    """Return this process's own folder for Ray's sessions, 0700; it is removed when the process ends.

    It is not in the store: Ray's sockets lie in it, and a socket's path may have 107 characters at most.
    """
    global _private_folder
    if _private_folder is None:
        parent = Path(tempfile.gettempdir())
        parent = parent if len(str(parent)) < 30 else Path("/tmp")
        remove_abandoned(parent)
        _private_folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=parent))
        _hold(_private_folder)
        atexit.register(shutil.rmtree, _private_folder, ignore_errors=True)
    return _private_folder


def _hold(folder: Path) -> None:
    """Lock the folder until this process ends, however it ends: the kernel frees the lock.

    The file is locked before it has its name, so that nobody ever sees it free while its owner lives.
    """
    aside = folder / f"{OWNER_FILE}.new"
    descriptor = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)  # never closed; no child inherits it
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.write(descriptor, str(os.getpid()).encode())
    aside.rename(folder / OWNER_FILE)


def remove_abandoned(parent: Path) -> None:
    """Remove this user's own folders whose process is gone: one killed by SIGKILL could not remove its own."""
    for folder in parent.glob(f"{FOLDER_PREFIX}*"):
        with contextlib.suppress(OSError):  # it has just gone, or is not ours to look into
            if folder.lstat().st_uid == os.getuid() and not folder.is_symlink() and _is_abandoned(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    """Say whether a folder was made by a process like this one that has ended; raises OSError if it was not."""
    descriptor = os.open(folder / OWNER_FILE, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: its owner lives
        return True
    finally:
        os.close(descriptor)


def _token() -> Path:
    """Return the file of a random token that only this user can read; it is made once."""
    path = private_folder() / TOKEN_FILE
    if path.exists():
        return path
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
    return path


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Ray's banners off the terminal; its errors are raised, and logged in its session folder."""
    before = {name: logging.getLogger(name).level for name in ("ray", "ray.tune")}
    for name in before:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
