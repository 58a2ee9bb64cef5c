"""What describes the classes of few-shot episodes: a table with one row a class, or their names.

A class is an example of a task of its own (``TaskShape.class_features``): a table of classes is read, filled and
standardized as a table of examples is, and a bundle reads a new one by the numbers of training. Those are fitted to the
classes of meta-train.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError, shown, unknown
from metaloom.learners.fields import make_config
from metaloom.learners.task_kinds import CLASSIFICATION
from metaloom.workers.data.base import DataError, some
from metaloom.workers.data.class_table import ClassTable, Rows
from metaloom.workers.data.labels import as_known
from metaloom.workers.data.table_columns import Columns, read_columns
from metaloom.workers.data.table_encoding import STRATEGIES, encoded
from metaloom.workers.data.table_features import cell_rules, features_of, kept_columns, kept_rules, with_features
from metaloom.workers.data.table_files import read_table
from metaloom.workers.data.table_kinds import NUMBER, Feature
from metaloom.workers.data.table_settings import TableSettings

FIELD = "tasks.class_features"
CLASS, COLUMNS, ABSENT, NAMES, WIDTH = "class", "columns", "absent", "names", "width"
HASHING = "hashing"
LETTERS = (2, 4)  # of the pieces of a name that are hashed
OF_TABLE = ("path", "standardize", "missing", "constant", "categories", "separator", "decimal", "encoding")
OF_NAMES = (NAMES, WIDTH)
WANTED = "{path: FILE, class: COLUMN}, a table with one row a class, or {names: hashing}"


@dataclass(frozen=True)
class ClassFeatures:
    """What is known of the classes of a source.

    Attributes:
        values: float32 [classes, features], in the order of the source's classes.
        task: What they are made of.
        notes: What the user is told of them.
    """

    values: NDArray[np.float32]
    task: TaskShape
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Return the digest of the numbers, which tells whether they have changed."""
        return hashlib.sha256(np.ascontiguousarray(self.values).tobytes()).hexdigest()[:16]


@dataclass(frozen=True)
class HashedNames:
    """The names of the classes, as counts of their pieces, of length 1.

    ``width`` is how many numbers a name becomes.
    """

    width: int

    def of(self, table: ClassTable, kept: TaskShape | None = None) -> ClassFeatures:
        """Return the features of the classes of a source."""
        return ClassFeatures(hashed(originals(table), self.width), hashed_task(self.width))


@dataclass(frozen=True)
class DescribedClasses:
    """A table with one row a class.

    Attributes:
        config: How it is read; ``label`` is the column of the class.
        absent: The number that stands for a missing one.
        columns: The table, where a source has it already.
    """

    config: TableSettings
    absent: float | None = None
    columns: Columns | None = None

    def of(self, table: ClassTable, kept: TaskShape | None = None) -> ClassFeatures:
        """Return the features of the classes of a source, by the numbers of a training or fitted to its own classes.

        Raises DataError if the table cannot be read, lacks a class, or has one twice.
        """
        try:
            read = _without(self._read(kept), self.absent, self.config)
            place = self._places(read.label, originals(table))
            first, last = table.ends["train"]
            x, about, remarks = features_of(read, place[first:last], self.config, kept)
        except DataError as error:
            raise DataError(_in_our_terms(str(error))) from error
        shape = TaskShape(CLASSIFICATION.name, (x.shape[1],), 0)
        filled = [f"the classes have {line}" for line in remarks if re.match(r"\d+ missing", line)]
        noun = "1 feature describes" if x.shape[1] == 1 else f"{x.shape[1]} features describe"
        notes = (f"{noun} a class: {some(about['features'])}", *filled)
        return ClassFeatures(x[place], with_features(shape, about), notes)

    def _read(self, kept: TaskShape | None) -> Columns:
        if self.columns is not None:
            return self.columns
        if not Path(self.config.path).is_file():
            raise DataError(f"{FIELD}: there is no file {self.config.path}")
        rules = cell_rules(self.config)
        rules = replace(rules, advice=f"{FIELD}.missing: median fills missing cells", leaves_out_numbering=False)
        rules = rules if kept is None else kept_rules(kept, rules)
        rules = rules if self.absent is None else replace(rules, missing="fill")
        return read_columns(Path(self.config.path), rules, label=self.config.label)

    def _places(self, label: NDArray[Any], names: Sequence[str]) -> Rows:
        """Return the row of each class."""
        known = as_known(label, names).tolist()
        rows = {name: row for row, name in enumerate(known)}
        where = f"{FIELD}: {self.config.path}"
        if len(rows) < len(known):
            twice = next(name for name in known if known.count(name) > 1)
            raise DataError(f"{where}: class '{twice}' has {known.count(twice)} rows; give one a class")
        if missing := sorted({name for name in names if name not in rows}):
            raise DataError(
                f"{where}: column '{self.config.label}' has no row for {len(missing)} of {len(set(names))} classes "
                f"({some(missing)}); it has {some(known)}"
            )
        return np.array([rows[name] for name in names], dtype=np.int64)


Described = HashedNames | DescribedClasses


def described(given: Mapping[str, Any] | None) -> Described | None:
    """Return what describes the classes by the setting ``class_features``; None where nothing does.

    Raises DataError for settings that do not fit together.
    """
    if given is None:
        return None
    if NAMES in given:
        return _hashing(given)
    allowed = (*OF_TABLE, CLASS, COLUMNS, ABSENT)
    for name in given:
        if name not in allowed:
            raise DataError(f"{FIELD}: {unknown('setting of it', name, (*allowed, *OF_NAMES))}")
    if missing := [name for name in ("path", CLASS) if name not in given]:
        raise DataError(f"{FIELD}: {' and '.join(missing)} not given; give {WANTED}")
    absent = given.get(ABSENT)
    if absent is not None and (isinstance(absent, bool) or not isinstance(absent, int | float)):
        raise DataError(
            f"{FIELD}.{ABSENT}: got {shown(absent)}; allowed: a number that stands for a missing one, or null"
        )
    settings = {name: value for name, value in given.items() if name in OF_TABLE}
    settings |= {"label": given[CLASS], "features": given.get(COLUMNS) or ()}
    try:
        config = make_config(TableSettings, settings, FIELD, "it")
    except LearnerError as error:
        raise DataError(_in_our_terms(str(error))) from error
    return DescribedClasses(config, None if absent is None else float(absent))


def _hashing(given: Mapping[str, Any]) -> HashedNames:
    for name in given:
        if name not in OF_NAMES:
            raise DataError(f"{FIELD}: {unknown('setting of names', name, OF_NAMES)}")
    width = given.get(WIDTH, 512)
    if given[NAMES] != HASHING:
        raise DataError(f"{FIELD}.{NAMES}: {unknown('way to read names', given[NAMES], [HASHING])}")
    if isinstance(width, bool) or not isinstance(width, int) or width < 1:
        raise DataError(f"{FIELD}.{WIDTH}: got {shown(width)}; allowed: a whole number, at least 1")
    return HashedNames(width)


def originals(table: ClassTable) -> list[str]:
    """Return the name of each class; of a turned one the name of that which it was turned from."""
    names = zip(table.names, table.turns.tolist(), strict=True)
    return [name.rsplit(" ", 1)[0] if turns else name for name, turns in names]


def hashed_task(width: int) -> TaskShape:
    """Return what a class is where names are hashed."""
    return TaskShape(CLASSIFICATION.name, (width,), 0, columns=({"kind": HASHING, "width": width},))


def is_hashed(task: TaskShape) -> bool:
    """Return whether a class is described by its name alone."""
    return not task.features and any(one.get("kind") == HASHING for one in task.columns)


def hashed(names: Sequence[str], width: int) -> NDArray[np.float32]:
    """Return names as counts of their words' pieces of two to four letters, hashed, of length 1: [names, width]."""
    from sklearn.feature_extraction.text import HashingVectorizer

    words = [re.sub(r"[\W_]+", " ", name).strip() for name in names]
    vectorizer = HashingVectorizer(n_features=width, analyzer="char_wb", ngram_range=LETTERS, norm="l2")
    return np.asarray(vectorizer.transform(words).toarray(), dtype=np.float32)


def read_new(path: Path, task: TaskShape, settings: Mapping[str, Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Read a table of new classes: the label of each, and its features [classes, features], not standardized yet.

    Args:
        path: The table.
        task: What a class is to a learner.
        settings: How the classes of training were described.

    Raises:
        DataError: It has no column of classes, or lacks one of the learner's; file and column are named.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    own = {name: value for name, value in settings.items() if name in OF_TABLE}
    config = make_config(TableSettings, {**own, "path": str(path), "label": str(settings.get(CLASS, CLASS))}, FIELD)
    if is_hashed(task):
        names = read_table(path, as_text=(config.label,), text_format=config.text_format)
        if config.label not in names.column_names:
            raise DataError(f"{path}: {unknown('column', config.label, names.column_names)}")
        labels = np.array(names.column(config.label).to_pylist())
        return labels, hashed(list(map(str, labels)), task.inputs[0])
    rules = replace(cell_rules(config), advice="fill it in, or leave the class out", leaves_out_numbering=False)
    absent = settings.get(ABSENT)
    rules = kept_rules(task, rules) if absent is None else replace(kept_rules(task, rules), missing="fill")
    try:
        read = _without(read_columns(path, rules, label=config.label), absent, config)
        return read.label, encoded(kept_columns(task), read.features)
    except DataError as error:
        message = str(error).replace("tasks.label", f"column '{config.label}'").replace("tasks.features: ", "")
        raise DataError(message if str(path) in message else f"{path}: {message}") from error


def table_of(names: Sequence[str], columns: Mapping[str, NDArray[Any]]) -> Columns:
    """Return columns of numbers [classes], or of vectors [classes, width], as a table of classes that was read."""
    nothing = np.zeros(len(names), dtype=bool)
    features = tuple(
        Feature(name, NUMBER if values.ndim == 1 else "vector", values.astype(np.float64), "number", nothing)
        for name, values in columns.items()
    )
    return Columns(features, np.array(names), None, {}, (), len(names))


def _without(read: Columns, absent: float | None, config: TableSettings) -> Columns:
    """Take a number for a missing cell; raises DataError where none may be missing."""
    if absent is None:
        return read
    marked = [
        replace(one, values=np.where(one.values == absent, np.nan, one.values)) if one.values.dtype.kind == "f" else one
        for one in read.features
    ]
    cells = [f"class '{read.label[row]}', column '{one.name}'" for one in marked for row in np.flatnonzero(one.missing)]
    if cells and config.missing not in STRATEGIES:
        raise DataError(
            f"{FIELD}: {config.path}: a value that is missing ({absent:g} or empty) in {some(cells)}; "
            f"{FIELD}.missing: median fills it"
        )
    return replace(read, features=tuple(marked))


def _in_our_terms(message: str) -> str:
    """Name the settings of a table of classes, where a message names those of a table."""
    message = message.replace("tasks.label", f"{FIELD}.{CLASS}").replace("tasks.features", f"{FIELD}.{COLUMNS}")
    message = message.replace(f"{FIELD}.label", f"{FIELD}.{CLASS}").replace(f"{FIELD}.features", f"{FIELD}.{COLUMNS}")
    return message if message.startswith(FIELD) else f"{FIELD}: {message}"
