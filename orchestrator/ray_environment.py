"""What Ray must be told through the environment before it is imported.

Measured on Ray 2.60: a plain ``ray.init()`` listens on all interfaces, keeps its
token readable by everyone, reports usage, changes the trials' working directory
and writes a handful of files per trial.
"""

import atexit
import contextlib
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
LOCAL = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # makes Ray use 127.0.0.1 on Linux too
    "RAY_worker_niceness": "0",  # at Ray's 15 a trial gets next to nothing beside any other busy process
}
TOKEN_FILE = "token"

_private_folder: Path | None = None


def prepare(*, local: bool) -> None:
    """Set the variables; call before ``ray`` is imported. What the user has set stays.

    Args:
        local: Ray is to be started here: for this user only, on 127.0.0.1 only. A cluster that was given
            by its address keeps the user's own authentication.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if local:
        for name, value in LOCAL.items():
            os.environ.setdefault(name, value)
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        if os.environ["RAY_AUTH_MODE"] == "token" and "RAY_AUTH_TOKEN" not in os.environ:
            os.environ.setdefault("RAY_AUTH_TOKEN_PATH", str(_token()))


def private_folder() -> Path:
    """Return this process's own folder for Ray's sessions, 0700; it is removed when the process ends.

    It is not in the store: Ray's sockets lie in it, and a socket's path may have 107 characters at most.
    """
    global _private_folder
    if _private_folder is None:
        parent = tempfile.gettempdir()
        _private_folder = Path(tempfile.mkdtemp(prefix="metaloom-", dir=parent if len(parent) < 30 else "/tmp"))
        atexit.register(shutil.rmtree, _private_folder, ignore_errors=True)
    return _private_folder


def _token() -> Path:
    """Write a random token that only this user can read."""
    path = private_folder() / TOKEN_FILE
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
