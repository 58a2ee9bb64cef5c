"""The document of ``metaloom data``: what is in a user's data, and what would be used."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any


@dataclass(frozen=True, kw_only=True)
class ColumnRow:
    """A column of a table that ``metaloom data`` looks at."""

    name: Annotated[str, "only of a table: a column's name"]
    type: Annotated[str, "what it holds"]
    distinct: Annotated[int, "how many different values it has"]
    missing: Annotated[int, "how many cells are missing, or cannot be read"]
    examples: Annotated[tuple[str, ...], "its first values"]
    use: Annotated[str, "`label`, `feature`, `text` (sentences, for `source: text`) or `left out`"]
    why: Annotated[str | None, "only where it is left out: why, and the setting that takes it"] = None


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """A class of the data that ``metaloom data`` looks at."""

    name: Annotated[str, "the class: a value of the label's column, or a folder"]
    examples: Annotated[int, "its rows, or images"]


@dataclass(frozen=True, kw_only=True)
class DataSetRow:
    """A data set of an experiment that ``metaloom data`` looks at."""

    name: Annotated[str, "only of an experiment: a data set, as its episodes name it"]
    kind: Annotated[str, "only there: the kind of its tasks"]
    inputs: Annotated[tuple[int, ...], "only there: the shape of one example, before it is made to fit the others"]
    classes: Annotated[int | None, "only there: the number of its classes; null where tasks are drawn without end"]
    examples: Annotated[int | None, "only there: the number of its examples; likewise"]
    splits: Annotated[tuple[str, ...], "only there: of `train`, `validation` and `test` those that it serves"]
    share: Annotated[float | None, "only there: its share of the training episodes; null where it is the only one"]


@dataclass(frozen=True, kw_only=True)
class DataRow:
    """What is in a table, a folder of images or the data sets of an experiment: the document of ``metaloom data``."""

    path: Annotated[str, "the file or folder"]
    kind: Annotated[str, "`table`, `folder` or `experiment`"]
    examples: Annotated[int, "the number of rows or images"]
    form: Annotated[
        Mapping[str, Any],
        "of a CSV file `separator`, `decimal` and `encoding`; of a folder `endings` (with their counts), and of a "
        "sample of its images `sizes` and `modes`",
    ]
    columns: tuple[ColumnRow, ...]
    classes: tuple[ClassRow, ...]
    notes: Annotated[tuple[str, ...], "what else to know, such as files that are left out"]
    tasks: Annotated[Mapping[str, Any] | None, "a `tasks` section that reads it; null where the label is not known"]
    sets: tuple[DataSetRow, ...] | None = None
