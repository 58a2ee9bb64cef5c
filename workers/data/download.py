"""Fetches a published file once, and takes it only if its checksum is right."""

import hashlib
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from filelock import FileLock

from metaloom.learners.errors import BadEnvironment
from metaloom.workers.data.base import DataError

TIMEOUT_S = 60
CHUNK_BYTES = 1 << 20


class DownloadError(BadEnvironment):
    """A file cannot be fetched from here."""


def fetch(url: str, sha256: str, folder: Path) -> Path:
    """Return the file, from ``folder`` if it is there and right, else from the network.

    Raises:
        DataError: What came has another checksum; nothing is kept of it.
        DownloadError: Nothing came.
    """
    path = folder / url.rsplit("/", 1)[-1]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{path.name}.lock"):
        if not (path.exists() and _digest(path) == sha256):
            _download(url, sha256, path)
    return path


def _download(url: str, sha256: str, path: Path) -> None:
    aside = Path(tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")[1])
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer, aside.open("wb") as file:
            while chunk := answer.read(CHUNK_BYTES):
                file.write(chunk)
        if (found := _digest(aside)) != sha256:
            raise DataError(
                f"{url}: the download's SHA-256 is {found}, and {sha256} was expected; it was thrown away. "
                f"Fetch the file yourself and give tasks.path"
            )
        aside.replace(path)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise DownloadError(
            f"{url}: cannot be downloaded ({error}). Fetch the file yourself and give tasks.path"
        ) from error
    finally:
        aside.unlink(missing_ok=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
