"""A user's new task for ``metaloom adapt``: images in folders, rows of a table, or texts, as arrays.

Files are read as the task sources read theirs: images are scaled to the learner's size, and a table's feature columns
are those of its training table. The bundle scales the values themselves.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaloom.learners.episode import TaskShape
from metaloom.learners.networks.tokens import token_count
from metaloom.orchestrator.errors import TaskError
from metaloom.workers.data.base import DataError, some
from metaloom.workers.data.labels import as_known
from metaloom.workers.data.picture_files import class_files
from metaloom.workers.data.series_arrays import as_inputs
from metaloom.workers.data.series_files import ENDINGS as SERIES
from metaloom.workers.data.series_files import read_series
from metaloom.workers.data.table_columns import CellRules, read_columns
from metaloom.workers.data.table_encoding import FittedColumn, encoded, names_of, unknown_texts
from metaloom.workers.data.table_features import kept_columns, kept_rules
from metaloom.workers.data.table_files import TABLES, TextFormat, is_table
from metaloom.workers.data.text_files import TextColumns, read_texts, usable
from metaloom.workers.data.user_files import ENDINGS, is_hidden, is_picture, left_out, read_picture
from metaloom.workers.search_card import is_of_searches

DEFAULT_LABEL, DEFAULT_TEXT = "label", "text"
logger = logging.getLogger("metaloom")


@dataclass(frozen=True)
class TaskExamples:
    """Examples from files.

    Attributes:
        names: The file or row of each example.
        x: [examples, *inputs], 8-bit images or float64 features; texts [examples].
        y: Labels or targets [labelled examples]; None if there are none.
        labelled: Which examples have one [examples]; None where all or none have.
    """

    names: list[str]
    x: NDArray[Any]
    y: NDArray[Any] | None
    labelled: NDArray[np.bool_] | None = None

    def of_labelled(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the values [examples] of the labelled examples alone."""
        return values if self.labelled is None else values[self.labelled]


def check_support(
    support: Path | None, unlabelled: Path | None = None, classes: Path | None = None, *, is_saved: bool
) -> None:
    """Refuse a support set beside a model that has one, and a bundle without one; raises TaskError.

    ``classes`` is a table of classes, which stands for a support set.
    """
    for option, given in (("--support", support), ("--unlabelled", unlabelled), ("--classes", classes)):
        if is_saved and given is not None:
            raise TaskError(f"{option}: this model is adapted already; leave it out, or give the bundle itself")
    if support is not None and classes is not None:
        raise TaskError("--classes: a bundle takes --support, examples of the classes, or --classes; give one")
    if not is_saved and (support or classes) is None:
        raise TaskError(
            "--support: a bundle adapts to labelled examples first: give class folders, or a table; a learner that "
            "was trained on what describes classes takes --classes"
        )


def check_examples(bundle: Path, task: TaskShape) -> None:
    """Refuse a bundle that learns from no examples: it holds the settings of searches; raises TaskError."""
    if is_of_searches(task):
        raise TaskError(
            f"{bundle} holds the settings of searches, and adapts to no examples; use it with "
            f"'metaloom search FILE --search-from {bundle}'"
        )


def check_classes(classes: Path, task: TaskShape) -> None:
    """Refuse a table of classes for a learner that does not use what describes a class; raises TaskError."""
    if task.class_features is None:
        raise TaskError(
            f"--classes {classes}: this learner was trained on examples of its classes, without tasks.class_features; "
            "give --support"
        )


def accuracy(predicted: NDArray[Any], labels: NDArray[Any], known: NDArray[Any]) -> float:
    """Return the fraction of right predictions [queries]; ``labels`` are compared by value with the ``known`` ones."""
    return float((predicted.astype(str) == as_known(labels, known)).mean())


def unseen(labels: NDArray[Any], known: NDArray[Any]) -> str:
    """Say which labels are none of the support set's ``known`` ones, so that no prediction can be right; or nothing."""
    found = as_known(labels, known)
    others, counts = np.unique(found[~np.isin(found, known.astype(str))], return_counts=True)
    if not len(others):
        return ""
    named = some([f"'{label}' ({count})" for label, count in zip(others, counts, strict=True)])
    return (
        f"{counts.sum()} of {len(labels)} labelled queries have a label that the support set lacks, so that none of "
        f"their predictions can be right: {named}; the accuracy counts them as wrong"
    )


@dataclass(frozen=True)
class Reader:
    """Reads examples in the form of a bundle's learner.

    Attributes:
        tasks: The task section of its training.
        label: A table's label column; None: that of its training table, or ``label``.
        invert: Invert images: the glyphs and Omniglot have light strokes on black.
    """

    task: TaskShape
    tasks: Mapping[str, Any]
    label: str | None = None
    invert: bool = False

    def support(self, path: Path) -> TaskExamples:
        """Read labelled examples; raises BadInput if they are not labelled or cannot be read."""
        examples = self._read(path, is_query=False)
        if examples.y is None:
            advice = f"a table with a column '{self._label()}' (--label names another one)"
            raise TaskError(f"--support {path}: no labels: give a folder with one folder per class, or {advice}")
        return examples

    def unlabelled(self, path: Path) -> NDArray[Any]:
        """Read examples for the adaptation without their labels, which are ignored where there are some."""
        return self._read(path, is_query=True).x

    def query(self, path: Path) -> TaskExamples:
        """Read the examples to predict; labels are optional, also of single rows, and are used for a score."""
        return self._read(path, is_query=True)

    def _read(self, path: Path, *, is_query: bool) -> TaskExamples:
        if token_count(self.task):
            return self._texts(path, is_query=is_query)
        if len(self.task.inputs) == 2 and path.suffix.lower() in SERIES:
            return self._series(path)
        if path.is_dir():
            return self._folder(path)
        if is_table(path):
            return self._table(path, is_query=is_query)
        if path.suffix.lower() in ENDINGS:
            return TaskExamples([path.name], np.stack([self._picture(path)]), None)
        if not path.exists():
            raise TaskError(f"there is no file and no folder {path}")
        raise TaskError(f"{path}: give a folder of images, or a table ({', '.join(TABLES)})")

    def _series(self, path: Path) -> TaskExamples:
        """Read a file of labelled series, as the archive's files are read in training."""
        try:
            found = read_series(path)
            settings = str(self.tasks.get("normalize", "as_given")), bool(self.tasks.get("level"))
            x = as_inputs(found.series, self.task, *settings, str(path))
        except DataError as problem:
            raise TaskError(str(problem).removeprefix("tasks.path: ")) from problem
        return TaskExamples([f"series {row + 1}" for row in range(len(x))], x, np.array(found.labels))

    def _folder(self, folder: Path) -> TaskExamples:
        if any(child.is_dir() and not is_hidden(child.name) for child in folder.iterdir()):
            files = class_files(folder)
            pairs = [(label, file) for label, images_of_class in files.items() for file in images_of_class]
            labels: NDArray[Any] | None = np.array([label for label, _ in pairs])
        else:
            pairs = [("", file) for file in sorted(folder.iterdir()) if is_picture(file)]
            if not pairs:
                raise TaskError(f"{folder}: no image in it ({', '.join(ENDINGS)})")
            labels = None
        for told in left_out(folder, [str(file) for _, file in pairs]):
            logger.warning("%s: %s", folder, told)
        images = np.stack([self._picture(file) for _, file in pairs])
        return TaskExamples([str(file.relative_to(folder)) for _, file in pairs], images, labels)

    def _picture(self, file: Path) -> NDArray[np.uint8]:
        """Return one image, uint8 [*inputs]."""
        channels, *sides = self.task.inputs
        if len(sides) != 2 or sides[0] != sides[1] or channels not in (1, 3):
            shape = " x ".join(map(str, self.task.inputs))
            raise TaskError(f"{file}: this learner takes {shape} numbers, not images; give a table")
        picture = read_picture(file, size=sides[0], color=channels == 3, where=str(file))
        return 255 - picture if self.invert else picture

    def _table(self, path: Path, *, is_query: bool) -> TaskExamples:
        label, fitted = self._label(), kept_columns(self.task)
        given = TextFormat(*(self.tasks.get(name) for name in ("separator", "decimal", "encoding")))
        rules = kept_rules(self.task, CellRules(text_format=given, advice="fill them in, or leave such rows out"))
        classes = self.task.task_kind.has_classes
        read = read_columns(
            path, rules, label=label, has_classes=classes, may_lack_label=True, may_miss_labels=is_query
        )
        plain = fitted or [FittedColumn(one.name, one.kind, names_of(one)) for one in read.features]
        for told in unknown_texts(plain, read.features):
            logger.warning("%s: %s", path, told)
        x, wanted = encoded(plain, read.features), int(np.prod(self.task.inputs))
        if self.task.parameters:
            return self._states(path, x, [one.name for one in read.features], is_query=is_query)
        if x.shape[1] != wanted:
            hint = (
                "" if read.label is not None else f", and no column '{label}': --label names another one as the label"
            )
            raise TaskError(f"{path}: {x.shape[1]} feature columns; this learner takes {wanted}{hint}")
        names, labels = [f"row {row}" for row in range(len(x))], read.label
        return TaskExamples(names, x, labels if labels is not None and len(labels) else None, read.labelled)

    def _states(self, path: Path, x: NDArray[Any], names: list[str], *, is_query: bool) -> TaskExamples:
        """Return states, and in a support set the task's parameters, which are the columns of their names."""
        parameters, wanted = self.task.parameters, int(np.prod(self.task.inputs))
        missing = [name for name in parameters if name not in names and not is_query]
        states = [place for place, name in enumerate(names) if name not in parameters]
        if missing or len(states) != wanted:
            told = f"no column '{missing[0]}'" if missing else f"{len(states)} columns beside these"
            raise TaskError(
                f"{path}: {told}; a row of the support set is a starting state ({wanted} columns, in the order of the "
                f"environment) and its task: {', '.join(parameters)}"
            )
        task = None if is_query else x[:, [names.index(name) for name in parameters]]
        return TaskExamples([f"row {row}" for row in range(len(x))], x[:, states], task)

    def _texts(self, path: Path, *, is_query: bool) -> TaskExamples:
        """Read texts; labels are optional in queries, also of single rows."""
        if not path.exists():
            raise TaskError(f"there is no file and no folder {path}")
        given = TextFormat(self.tasks.get("separator"), None, self.tasks.get("encoding"))
        column = str(self.tasks.get("text") or DEFAULT_TEXT)
        columns = TextColumns(column, self._label(), may_lack_label=True, text_format=given)
        try:
            read, _ = usable(read_texts(path, columns), columns, skip=False, where=path)
        except DataError as problem:
            raise TaskError(str(problem).removeprefix("tasks.path: ")) from problem
        labelled = np.array([label is not None for label in read.labels], dtype=bool)
        if not is_query and labelled.any() and not labelled.all():
            raise TaskError(f"--support {path}: no label in {read.places[int(labelled.argmin())]}; leave it out")
        texts = np.array(read.texts, dtype=object)
        labels = np.array([label.strip() for label in read.labels if label is not None])
        return TaskExamples(read.places, texts, labels if len(labels) else None, None if labelled.all() else labelled)

    def _label(self) -> str:
        return self.label or str(self.tasks.get("label") or DEFAULT_LABEL)
