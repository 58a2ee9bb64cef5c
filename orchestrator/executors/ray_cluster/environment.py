"""Environment variables that Ray reads when it is imported or started.

Measured on Ray 2.60: a plain ``ray.init()`` listens on all interfaces, keeps its token readable by everyone, reports
usage, changes the trials' working directory and writes several files per trial.
"""

import atexit
import contextlib
import fcntl
import logging
import os
import re
import secrets
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
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
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # Tune's snapshots are never read: the journal replaces them
    "TUNE_MAX_PENDING_TRIALS_PG": "1024",  # all workers start at once; the searcher limits the trials
    "TUNE_WARN_THRESHOLD_S": "60",
}
MODE, PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"
LOCAL = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # makes Ray use 127.0.0.1 on Linux too
    MODE: "token",
    "RAY_worker_niceness": "0",  # at Ray's 15 a trial gets almost no time beside another busy process
    "RAY_preload_python_modules": f"{__package__}.preload",  # by each worker when it starts
}
# The environment of Ray's processes, and so of the trials: these names, and those that begin with one ending in *.
PASSED = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR", "XDG_*"),
    *("PYTHON*", "VIRTUAL_ENV", "CONDA_PREFIX", "LD_LIBRARY_PATH", "LD_PRELOAD", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("OMP_*", "GOMP_*", "KMP_*", "MKL_*", "OPENBLAS_*", "NUMEXPR_*", "NUMBA_*", "MALLOC_*", "MPLBACKEND"),
    *("MPLCONFIGDIR", "TORCH*", "PYTORCH_*", "TRITON_*", "CUDA_*", "CUDNN_*", "CUBLAS_*", "NVIDIA_*", "NCCL_*"),
    *("GLOO_*", "HIP_*", "HSA_*", "ROCR_*", "RAY_*", "TUNE_*", "DO_NOT_TRACK", "METALOOM_*"),
)
SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|(^|_)KEY(_|$)")  # in a name: not passed unless it is asked for
MARK = "METALOOM_RAY"  # in Ray's processes: the private folder of the process that has started them
VISIBLE = {"SPT_NOENV": "1"}  # or the titles that Ray's agents give themselves overwrite what /proc shows of it
TOKEN_FILE = "token"
FOLDER_PREFIX = "metaloom-"
OWNER_FILE = "owner"  # in a private folder; its process holds a lock on it

_private_folder: Path | None = None


def prepare() -> None:
    """Set the variables for any Ray, except those that the user has set; call before ``ray`` is imported."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def private() -> Iterator[None]:
    """Restrict a Ray that is started within to this user and 127.0.0.1, except for variables that the user has set.

    Restores the environment, so that a cluster joined later keeps the user's own authentication.
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


def worker_environment(given: Mapping[str, str], asked: Sequence[str] = ()) -> dict[str, str]:
    """Return the variables that Ray's processes get: those in ``PASSED`` and those asked for, no others."""
    prefixes = tuple(name.removesuffix("*") for name in PASSED if name.endswith("*"))
    return {
        name: value
        for name, value in given.items()
        if name in asked
        or name.startswith("RAY_AUTH_")
        or ((name in PASSED or name.startswith(prefixes)) and not SECRET.search(name) and name != MARK)
    }


def private_folder() -> Path:
    """Return this process's own folder (0700) for Ray's sessions, removed when the process ends.

    It is outside the store because it holds Ray's sockets, and a socket's path has at most 107 characters.
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
    """Lock the folder until this process ends; the kernel frees the lock.

    The file is locked before it gets its name, so it is never seen unlocked while its owner lives.
    """
    aside = folder / f"{OWNER_FILE}.new"
    descriptor = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)  # never closed; no child inherits it
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.write(descriptor, str(os.getpid()).encode())
    aside.rename(folder / OWNER_FILE)


def remove_abandoned(parent: Path) -> None:
    """Remove this user's folders that processes killed by SIGKILL have left."""
    for folder in parent.glob(f"{FOLDER_PREFIX}*"):
        with contextlib.suppress(OSError):  # it is gone, or not readable for us
            if folder.lstat().st_uid == os.getuid() and not folder.is_symlink() and _is_abandoned(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    """Return True if the folder's owner has ended; raises OSError if it lives, or if there is no owner file."""
    descriptor = os.open(folder / OWNER_FILE, os.O_RDWR | os.O_NOFOLLOW)
    with os.fdopen(descriptor):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: its owner lives
    return True


def _token() -> Path:
    """Return the file of a random token, made once and readable by this user only."""
    path = private_folder() / TOKEN_FILE
    if not path.exists():
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
    return path


def token_state() -> str:
    """Return in a few words how this process's Ray asks for a token, and who may read it."""
    if _private_folder is None or not (path := _private_folder / TOKEN_FILE).exists():
        return "a token of the user's own" if os.environ.get(MODE, "token") == "token" else "no token"
    return f"a random token ({path.stat().st_mode & 0o777:04o} in a folder {path.parent.stat().st_mode & 0o777:04o})"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide Ray's banners; its errors are still raised, and logged in its session folder."""
    before = {logger: logger.level for logger in map(logging.getLogger, ("ray", "ray.tune"))}
    for logger in before:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in before.items():
            logger.setLevel(level)
