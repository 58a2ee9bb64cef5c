"""Where a store keeps its searches, and a search its trials."""

import re
from pathlib import Path

from metaloom.workers.records.names import EPISODES_FOLDER, JOURNAL_FILE, SEARCHES_FOLDER, TRIALS_FOLDER

SEARCH_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}")


def search_names(store: Path) -> list[str]:
    """Return the names of the searches of ``store`` that have a journal, sorted; empty where there is no store."""
    return sorted(path.parent.name for path in (store / SEARCHES_FOLDER).glob(f"*/{JOURNAL_FILE}"))


def trial_label(trial: int) -> str:
    """Return how a trial's folder is called: ``0007``."""
    return f"{trial:04d}"


def trial_directory(search_folder: Path, trial: int) -> Path:
    """Return the directory of a trial: ``trials/0007`` under its search."""
    return search_folder / TRIALS_FOLDER / trial_label(trial)


def trial_directories(search_folder: Path) -> dict[int, Path]:
    """Return the directories of the trials that have begun, by number."""
    found = (search_folder / TRIALS_FOLDER).glob("[0-9]*")
    return {int(path.name): path for path in sorted(found, key=lambda path: int(path.name))}


def part_name(start: int, end: int) -> str:
    """Name the part of the outer steps from ``start`` to before ``end``, and of the validation at ``end``."""
    return f"part-{start:08d}-{end:08d}.parquet"


def part_of_test(directory: Path, seed: int) -> Path:
    """Return the file with the rows of a trial's test on the episodes of a seed."""
    return directory / EPISODES_FOLDER / f"part-test-{seed}.parquet"


def parts_of(episodes: Path, *, tests_alone: bool = False) -> list[Path]:
    """Return the Parquet parts in a trial's folder of episodes, sorted; none where there is no folder yet."""
    return sorted(episodes.glob("part-test-*.parquet" if tests_alone else "part-*.parquet"))
