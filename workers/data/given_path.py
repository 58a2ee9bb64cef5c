"""Where data that were given from Python are kept."""

from pathlib import Path

from metaloom.workers.data.base import DataError
from metaloom.workers.records.names import GIVEN_FOLDER

PREFIX = "given:"  # before the digest, in the setting ``path``


def kept(digest: str, cache: Path) -> Path:
    """Return where the data of a digest are kept."""
    return cache / GIVEN_FOLDER / f"{digest}.arrow"


def resolved(path: str, cache: Path) -> Path:
    """Return the file that the setting ``path`` names; of given data the one in the cache.

    Raises DataError if the given data are not there.
    """
    if not path.startswith(PREFIX):
        return Path(path)
    file = kept(path.removeprefix(PREFIX), cache)
    if not file.is_file():
        raise DataError(
            f"tasks.path: the data that were given from Python ({path}) are not in {cache}: give the same data again, "
            "as tasks= of search, train or resume"
        )
    return file
