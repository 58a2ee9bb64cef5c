"""The user's own division of classes into splits: lists, a file of lists, folders, or the values of a column.

A split's name is read as people write it: ``val`` is validation.
"""

import csv
import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from metaloom.learners.errors import unknown
from metaloom.workers.data.base import SPLITS, DataError, some
from metaloom.workers.durable import digest

SPELLINGS = {"train": ("train", "training"), "validation": ("validation", "val", "valid"), "test": ("test", "testing")}
ENDINGS = (".json", ".csv")
CLASS_COLUMNS = ("class", "label", "name", "class_name")  # of a CSV file with one class a row
WANTED = "a JSON file {train: [...], validation: [...], test: [...]}, or a CSV file with the columns class and split"
Lists = dict[str, list[str]]


def split_called(name: object) -> str | None:
    """Return the split that a name means, in any case; None if it means none."""
    low = str(name).strip().lower()
    return next((split for split, names in SPELLINGS.items() if low in names), None)


def is_file_of_lists(split: str | Mapping[str, Any] | None) -> bool:
    """Return whether ``tasks.split`` names a file of class lists."""
    return isinstance(split, str) and split.lower().endswith(ENDINGS)


def split_folders(folder: Path, needed: Sequence[str] = SPLITS) -> dict[str, Path]:
    """Return the folders of the splits: ``train``, ``val`` (or ``validation``) and ``test``, with class folders inside.

    Empty where the subfolders are no splits: where none is named so, or others stand beside an incomplete set.

    Raises:
        DataError: One of ``needed`` is missing, one is there twice, or other folders stand beside them.
    """
    below = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    named = [(split_called(path.name), path) for path in below]
    splits = [(split, path) for split, path in named if split and any(one.is_dir() for one in path.iterdir())]
    found, names = dict(splits), ", ".join(path.name for _, path in splits)
    others = [path.name for path in below if path not in found.values()]
    missing = [split for split in needed if split not in found]
    if not found or (missing and others):
        return {}
    problem = f"has none for {missing[0]}" if missing else f"has others beside them ({some(others)})" if others else ""
    if len(splits) > len(found):
        problem = "has one of them twice"
    if problem:
        raise DataError(f"tasks.path: {folder} has folders of splits ({names}), and {problem}")
    return {split: found[split] for split in SPLITS if split in found}


def class_lists(split: str | Mapping[str, Any]) -> Lists:
    """Return the classes of each split from ``tasks.split``, lists or the path of a file of lists.

    Raises DataError for a file that is absent or no lists, and for lists that lack a split, or name a class twice.
    """
    if isinstance(split, str):
        path = Path(split)
        if not is_file_of_lists(split):
            raise DataError(f"tasks.split: '{split}' ends in neither {' nor '.join(ENDINGS)}; give {WANTED}")
        if not path.is_file():
            raise DataError(f"tasks.split: there is no file {path}; give {WANTED}")
        where = f"tasks.split: {path}"
        return _checked(_read_json(path) if path.suffix.lower() == ".json" else _read_csv(path), where)
    return _checked(split, "tasks.split")


def _checked(given: object, where: str) -> Lists:
    if not isinstance(given, Mapping):
        raise DataError(f"{where}: got {type(given).__name__}; give the classes of train, validation and test")
    lists: Lists = {}
    for name, classes in given.items():
        split = split_called(name)
        if split is None:
            raise DataError(f"{where}: {unknown('split', name, SPLITS)}")
        if split in lists:
            raise DataError(f"{where}: {split} is given twice, once as '{name}'")
        if not isinstance(classes, list | tuple) or any(isinstance(one, Mapping | list) for one in classes):
            raise DataError(f"{where}: {name} must be a list of classes")
        lists[split] = [str(one) for one in classes]
    if empty := [split for split in SPLITS if not lists.get(split)]:
        raise DataError(f"{where}: no class is listed for {' and '.join(empty)}")
    owners: dict[str, str] = {}
    for name, owner in ((name, split) for split in SPLITS for name in lists[split]):
        if name in owners:
            twice = f"twice in {owner}" if owners[name] == owner else f"in {owners[name]} and in {owner}"
            raise DataError(f"{where}: class '{name}' stands {twice}")
        owners[name] = owner
    return {split: lists[split] for split in SPLITS}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"tasks.split: {path}: not readable as JSON ({error}); give {WANTED}") from error


def _read_csv(path: Path) -> dict[str, list[str]]:
    """Read one class a row, with its split; or a column of classes for each split."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file, strict=True) if any(row)]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"tasks.split: {path}: not readable as CSV ({error}); give {WANTED}") from error
    head, *body = rows or [[]]
    wide = {name: place for place, name in enumerate(head) if split_called(name) is not None}
    if wide:
        return {name: [row[place] for row in body if place < len(row) and row[place]] for name, place in wide.items()}
    low = [name.lower() for name in head]
    named = [low.index(name) for name in CLASS_COLUMNS if name in low]
    if "split" not in low or not named:
        raise DataError(f"tasks.split: {path}: its columns are {', '.join(head) or 'none'}; give {WANTED}")
    lists: Lists = {}
    for number, row in enumerate(body, start=2):
        if len(row) != len(head):
            raise DataError(f"tasks.split: {path}: line {number} has {len(row)} cells, and the head {len(head)}")
        lists.setdefault(row[low.index("split")], []).append(row[named[0]])
    return lists


def digest_of(data: str, lists: Lists) -> str:
    """Return the digest of data with a digest of ``data`` and splits of the user's own."""
    return digest(f"{data} {json.dumps(lists)}".encode())[:16]


def by_column(classes: Iterable[str], values: Iterable[object], column: str, where: str) -> Lists:
    """Return the classes of each split from a column that says the split of every row.

    Args:
        classes: The class (or task) of each row.
        values: The cell of each row.
        column: The column's name.
        where: The table.

    Raises:
        DataError: A value is no split, a split has no row, or the rows of a class are in two.
    """
    owners: dict[str, str] = {}
    meant: dict[object, str | None] = {}
    for name, value in zip(classes, values, strict=True):
        split = meant.setdefault(value, split_called(value))
        if split is None:
            raise DataError(f"tasks.split: {where}: column '{column}': {unknown('split', value, SPLITS)}")
        if owners.setdefault(name, split) != split:
            raise DataError(
                f"tasks.split: {where}: column '{column}': rows of '{name}' are in {owners[name]} and in {split}; the "
                "splits of few-shot episodes have classes of their own"
            )
    if empty := [split for split in SPLITS if split not in owners.values()]:
        raise DataError(f"tasks.split: {where}: column '{column}' has no row for {' and '.join(empty)}")
    return {split: sorted(name for name, owner in owners.items() if owner == split) for split in SPLITS}


def groups_of(classes: Iterable[str], values: Iterable[str], where: str) -> dict[str, str]:
    """Return each class's group, from the class and the group of every row; raises DataError for a class in two."""
    groups: dict[str, str] = {}
    for name, group in zip(classes, values, strict=True):
        if groups.setdefault(name, group) != group:
            raise DataError(f"tasks.within: {where}: rows of class '{name}' are in '{groups[name]}' and in '{group}'")
    return groups


def chosen(lists: Lists, names: Sequence[str], where: str) -> tuple[Lists, tuple[str, ...]]:
    """Return the listed classes, sorted, and a note about classes of the data that no list has.

    Raises DataError for a listed class that the data do not have.
    """
    known = set(names)
    absent = [name for split in SPLITS for name in lists[split] if name not in known]
    if absent:
        near = difflib.get_close_matches(absent[0], names, n=1, cutoff=0.5)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        others = f", nor of {len(absent) - 1} others that are listed" if len(absent) > 1 else ""
        raise DataError(
            f"tasks.split: {where} has no example of class '{absent[0]}'{others}{hint} (its {len(names)} classes: "
            f"{some(names)})"
        )
    listed = {name for split in SPLITS for name in lists[split]}
    return {split: sorted(lists[split]) for split in SPLITS}, tuple(_not_listed(names, listed))


def _not_listed(names: Sequence[str], listed: set[str]) -> Iterator[str]:
    if left := [name for name in names if name not in listed]:
        yield f"{len(left)} of {len(names)} classes left out, since tasks.split does not list them: {some(left)}"
