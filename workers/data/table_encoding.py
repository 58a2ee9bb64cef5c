"""Turns a table's columns into numbers: fitted by scikit-learn on training rows, and kept as numbers and texts.

What a transformer has fitted is a JSON document in a bundle, never a pickle. It is applied by a look-up, so that a new
table needs no scikit-learn, and gets what the transformer itself would give.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from metaloom.learners.errors import unknown
from metaloom.workers.data.base import DataError, some
from metaloom.workers.data.class_table import Rows
from metaloom.workers.data.streams import FOLDS, fixed_generator
from metaloom.workers.data.table_kinds import (
    CATEGORY,
    DATE,
    NUMBER,
    VECTOR,
    Feature,
    NotAFeature,
    as_asked,
)

_LOG = logging.getLogger("metaloom.data")
ONE_HOT, TARGET = "one_hot", "target"
INDICATOR = "indicator"
STRATEGIES = {"median": "median", "mean": "mean", "constant": "constant", INDICATOR: "median"}
CROSS_FITTED_FOLDS = 5  # scikit-learn's default
MISSING_TEXT = "missing"  # names the feature of a missing category
_KINDS = (NUMBER, DATE, CATEGORY, VECTOR)


@dataclass(frozen=True)
class FittedColumn:
    """How a column becomes features.

    Attributes:
        column: Its name.
        kind: What it holds: ``number``, ``date``, ``category`` or ``vector``.
        names: Of the features it becomes.
        fills: Whether a missing cell is filled, not refused.
        fill: The number in place of a missing cell, one for each component; empty for categories.
        indicator: Whether its last feature says if the cell was missing.
        categories: The texts of a category; a missing one is empty.
        codes: The features of each of these; empty: 1 at its place (one-hot).
        unknown: The features of any other text; empty: 0.
    """

    column: str
    kind: str
    names: tuple[str, ...]
    fills: bool = False
    fill: tuple[float, ...] = ()
    indicator: bool = False
    categories: tuple[str, ...] = ()
    codes: tuple[tuple[float, ...], ...] = ()
    unknown: tuple[float, ...] = ()

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Read it from JSON; raises DataError for anything else."""
        try:
            values: dict[str, Any] = {
                name: tuple(one) if isinstance(one, list) else one for name, one in document.items()
            }
            column = cls(**values)
            column = replace(column, codes=tuple(tuple(map(float, code)) for code in column.codes))
        except (AttributeError, TypeError, ValueError) as error:
            raise DataError(f"the task's columns are not what this metaloom can read ({error})") from error
        if column.kind not in _KINDS:
            raise DataError(f"the task's columns are not what this metaloom can read (a column of {column.kind!r})")
        return column

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values, without what is at its default."""
        given = asdict(self)
        kept = {name: value for name, value in given.items() if value not in ((), False)}
        return {name: _listed(value) for name, value in kept.items()}

    def features(self, column: Feature) -> NDArray[np.float64]:
        """Return the features of a column's cells, [rows, len(names)]; raises DataError for vectors of another size."""
        is_empty = column.kind == NUMBER and bool(column.missing.all())
        if column.kind != self.kind and not is_empty:
            raise DataError(f"column '{self.column}' is a {column.kind} ({column.described}), not a {self.kind}")
        if self.kind == CATEGORY:
            return self._of_texts(column.values)
        width = len(self.names) - self.indicator
        cells = column.values.reshape(len(column.values), -1)
        cells = np.full((len(cells), width), np.nan) if is_empty else cells
        if cells.shape[1] != width:
            raise DataError(f"column '{self.column}' has {cells.shape[1]} numbers a row, and {width} are wanted")
        missing = np.isnan(cells)
        filled = np.where(missing, np.asarray(self.fill or [0.0] * width), cells)
        marks = missing.any(1, keepdims=True).astype(np.float64)
        return np.concatenate([filled, marks], axis=1) if self.indicator else filled

    def _of_texts(self, texts: NDArray[Any]) -> NDArray[np.float64]:
        codes = np.array(self.codes) if self.codes else np.eye(len(self.categories))
        known = np.vstack([codes, self.unknown or np.zeros(codes.shape[1])])
        places = {text: place for place, text in enumerate(self.categories)}
        return np.asarray(known[[places.get(text, len(codes)) for text in texts.tolist()]], dtype=np.float64)


def _listed(value: Any) -> Any:
    return [_listed(one) for one in value] if isinstance(value, tuple) else value


def names_of(column: Feature) -> tuple[str, ...]:
    """Return the names of the features that a column of numbers, dates or vectors becomes as it is."""
    if column.kind != VECTOR:
        return (column.name,)
    return tuple(f"{column.name}[{place}]" for place in range(column.values.shape[1]))


def encoded_table(documents: Sequence[Mapping[str, Any]], table: Any) -> NDArray[np.float64]:
    """Return the features of an Arrow table by the columns that a task's shape keeps: [rows, features].

    Raises DataError for a column that is absent or of another kind, and for a missing cell where none is filled.
    """
    columns = []
    for one in (fitted := list(map(FittedColumn.of, documents))):
        if one.column not in table.column_names:
            raise DataError(unknown("column", one.column, table.column_names))
        try:
            column = as_asked(one.column, table.column(one.column), is_category=one.kind == CATEGORY)
        except NotAFeature as why:
            raise DataError(f"column '{one.column}' cannot be read: its cells {why}") from why
        refused = column.unusable | (column.missing & (not one.fills))
        if refused.any():
            raise DataError(f"column '{one.column}': row {int(refused.argmax())} is missing or no number")
        columns.append(column)
    for told in unknown_texts(fitted, columns):
        _LOG.warning("%s", told)
    return encoded(fitted, columns)


def unknown_texts(fitted: Sequence[FittedColumn], columns: Sequence[Feature]) -> Iterator[str]:
    """Name the texts of categories that training did not have, and what they become."""
    for one, column in zip(fitted, columns, strict=True):
        new = sorted(set(column.values) - set(one.categories)) if one.kind == CATEGORY else []
        if new:
            becomes = "the mean target" if one.unknown else "0 in each feature of the column"
            listed = some([repr(text) if text else "a missing value" for text in new])
            yield f"column '{one.column}': training did not have {listed}, taken as {becomes}"


def encoded(fitted: Sequence[FittedColumn], columns: Sequence[Feature]) -> NDArray[np.float64]:
    """Return the features of columns, each by what was fitted for it: [rows, features]."""
    return np.concatenate([one.features(column) for one, column in zip(fitted, columns, strict=True)], axis=1)


def fit(
    columns: Sequence[Feature], train: Rows, labels: NDArray[Any], *, missing: str, constant: float, by: str
) -> tuple[list[FittedColumn], NDArray[np.float64]]:
    """Fit what the columns become on training rows; return it with the features of all rows [rows, features].

    Args:
        columns: The feature columns; each has a value in some training row.
        train: The training rows.
        labels: Classes or targets [rows], for the target encoding.
        missing: How missing cells are filled: a key of ``STRATEGIES``, or anything else where none is.
        constant: What ``constant`` fills in.
        by: ``one_hot`` or ``target``.
    """
    fitted = []
    for column in columns:
        known = column.kept(train)
        one = _fit_numbers(known, missing, constant)
        if column.kind == CATEGORY:
            one = _fit_one_hot(known) if by == ONE_HOT else _fit_target(known, labels[train])
        fitted.append(replace(one, fills=missing in STRATEGIES))
    parts = [one.features(column) for one, column in zip(fitted, columns, strict=True)]
    for column, part in zip(columns, parts, strict=True):
        if column.kind == CATEGORY and by == TARGET:
            part[train] = _cross_fitted(column.kept(train), labels[train])
    return fitted, np.concatenate(parts, axis=1)


def _fit_numbers(known: Feature, missing: str, constant: float) -> FittedColumn:
    if known.kind == CATEGORY:
        return FittedColumn(known.name, known.kind, ())
    names = names_of(known)
    if missing not in STRATEGIES:
        return FittedColumn(known.name, known.kind, names)
    from sklearn.impute import SimpleImputer

    imputer = SimpleImputer(strategy=STRATEGIES[missing], fill_value=constant, keep_empty_features=True)
    imputer.fit(known.values.reshape(len(known.values), -1))
    has_indicator = missing == INDICATOR and bool(known.missing.any())
    names += (f"{known.name} is missing",) if has_indicator else ()
    fill = tuple(map(float, imputer.statistics_))
    return FittedColumn(known.name, known.kind, names, fill=fill, indicator=has_indicator)


def _fit_one_hot(known: Feature) -> FittedColumn:
    from sklearn.preprocessing import OneHotEncoder

    (categories,) = OneHotEncoder(handle_unknown="ignore").fit(known.values[:, None]).categories_
    names = tuple(f"{known.name}={text or MISSING_TEXT}" for text in categories)
    return FittedColumn(known.name, known.kind, names, categories=tuple(categories.tolist()))


def _fit_target(known: Feature, labels: NDArray[Any]) -> FittedColumn:
    """Replace a category by the mean target of its rows, drawn to that of all rows where they are few.

    Of more than two classes there is one target each: whether a row is of it.
    """
    from sklearn.preprocessing import TargetEncoder

    names, targets = _targets(labels)
    encoders = [TargetEncoder(target_type="continuous").fit(known.values[:, None], one) for one in targets.T]
    codes = np.stack([encoder.encodings_[0] for encoder in encoders], axis=1)  # [categories, targets]
    return FittedColumn(
        known.name,
        known.kind,
        tuple(f"{known.name} by {name}" for name in names),
        categories=tuple(encoders[0].categories_[0].tolist()),
        codes=tuple(map(tuple, codes.tolist())),
        unknown=tuple(float(encoder.target_mean_) for encoder in encoders),
    )


def _targets(labels: NDArray[Any]) -> tuple[list[str], NDArray[np.float64]]:
    """Return names and values [rows, targets] of what a category is encoded by."""
    if labels.dtype.kind == "f":
        return ["target"], labels[:, None]
    texts = labels.astype(str)
    classes = np.unique(texts)
    shown = classes[1:] if len(classes) == 2 else classes
    return shown.tolist(), (texts[:, None] == shown).astype(np.float64)


def _cross_fitted(known: Feature, labels: NDArray[Any]) -> NDArray[np.float64]:
    """Return the target encoding of training rows, each by the other folds: its own target is no part of it.

    Raises DataError for one row.
    """
    if len(labels) < 2:
        raise DataError("tasks.categories: target needs two training rows or more; use one_hot")
    names, targets = _targets(labels)
    found = np.empty((len(labels), len(names)))
    order = fixed_generator(0, FOLDS).permutation(len(labels))
    for fold in range(min(CROSS_FITTED_FOLDS, len(labels))):
        held, others = order[fold::CROSS_FITTED_FOLDS], np.setdiff1d(order, order[fold::CROSS_FITTED_FOLDS])
        for place, target in enumerate(targets.T):
            found[held, place] = _fit_target(known.kept(others), target[others])._of_texts(known.values[held])[:, 0]
    return found
