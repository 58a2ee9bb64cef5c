"""The columns of an episode's row, declared once: schema, filters, tables and pages derive from them."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: As it is stored, and named in ``--where``.
        kind: Type of its values.
        doc: Its meaning.
        shown: Whether it is in the table that ``metaloom episodes`` prints.
    """

    name: str
    kind: Literal["text", "int64", "int32", "float64", "int64 list", "float64 list"]
    doc: str
    shown: bool = False


_LOSSES = "query loss before adaptation and after each inner step; null if not measured (in training, all but the last)"
_NORM = "norm of the outer step's hypergradient before clipping; null outside training"
COLUMNS = (
    Column("search", "text", "name of the search"),
    Column("trial", "int64", "number of the trial; null with `--stage`", shown=True),
    Column("phase", "text", "`train`, `validation` or `test`", shown=True),
    Column("step", "int64", "outer steps done when the episode was played", shown=True),
    Column("episode", "int64", "number of the episode in its split", shown=True),
    Column("seed", "int64", "the seed it was drawn with"),
    Column("source", "text", "name of the task source; of several, the data set"),
    Column("class_ids", "int64 list", "ids of its classes; empty in regression"),
    Column("sample_ids", "int64 list", "ids of its samples: the support set's, those without labels, the queries'"),
    Column("ways", "int32", "number of classes, 0 in regression"),
    Column("shots", "int32", "support samples per class (all of them in regression)", shown=True),
    Column("queries", "int32", "query samples per class, on average (all of them in regression)"),
    Column("query_counts", "int64 list", "queries of each class, in the order of `class_ids`; empty if equally many"),
    Column("losses", "float64 list", _LOSSES),
    Column("accuracies", "float64 list", "query accuracy likewise; empty in regression"),
    Column("loss_before", "float64", "the first of `losses`", shown=True),
    Column("loss_after", "float64", "the last of `losses`", shown=True),
    Column("accuracy_before", "float64", "the first of `accuracies`; null in regression", shown=True),
    Column("accuracy_after", "float64", "the last of `accuracies`; null in regression", shown=True),
    Column("setting", "text", "`inductive`, `semi-supervised` or `transductive`"),
    Column("batch_norm", "text", "batch-norm mode, or `none`"),
    Column("hypergradient_norm", "float64", _NORM, shown=True),
    Column("seconds", "float64", "time for the episode: its share of a batch of episodes", shown=True),
)
EPISODE_COLUMNS = tuple(column.name for column in COLUMNS)
EPISODE_COLUMNS_SHOWN = tuple(column.name for column in COLUMNS if column.shown)
