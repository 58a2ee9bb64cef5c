"""The settings of a user's table: how it is read, and the episodes that are made of its rows."""

from dataclasses import dataclass, field
from typing import Literal

from metaloom.learners.errors import LearnerError, unknown
from metaloom.learners.task_kinds import CLASSIFICATION, TASK_KINDS
from metaloom.search_spaces.sections.few_shot import FewShotSettings, ShotsOrRange, WaysOrRange, Within
from metaloom.search_spaces.sections.tasks import Fraction, Queries, Split, TaskSettings, UserTaskSettings
from metaloom.workers.data.splits import is_file_of_lists
from metaloom.workers.data.table_files import TextFormat


@dataclass(frozen=True)
class TableSettings(TaskSettings):
    """How a table is read: Parquet, CSV or Arrow, one example a row.

    Attributes:
        path: The table's file.
        label: Column of the class, or of the target of a kind of task without classes.
        features: Feature columns; empty takes every column of numbers but the label and those that say what a row
            belongs to, and names the others.
        kind: The kind of task: classification of classes, or regression (or another kind without classes).
        standardize: Scale the features, and targets that are numbers, to mean 0 and deviation 1, by the training rows.
        on_error: What to do with a row with a missing or unreadable number: refuse to start, or skip it and say so.
        missing: What to do with a missing cell of a feature: null as ``on_error`` says; or fill it by the ``median`` or
            ``mean`` of the training rows, by ``constant``, or by the median and a further feature that says so
            (``indicator``). A missing text becomes a category of its own.
        constant: What ``missing: constant`` fills in.
        categories: What to do with columns of text: ``one_hot`` makes a feature of each value, ``target`` replaces a
            value by the mean target (for classes: by the frequency of each class) of its training rows.
        dates: What to do with columns of dates and times: ``numbers`` takes them as seconds.
        separator: What stands between two cells of a CSV file: one character, or ``tab``; null finds it in its first
            rows.
        decimal: The sign before the decimals in a CSV file; null finds it in its first rows.
        encoding: Of a CSV file, by Python's name, such as ``latin-1``; null takes UTF-8, or UTF-16 where it is found.
    """

    path: str
    label: str
    features: tuple[str, ...] = field(default=())
    kind: str = CLASSIFICATION.name
    standardize: bool = True
    on_error: Literal["refuse", "skip"] = "refuse"
    missing: Literal["refuse", "skip", "median", "mean", "constant", "indicator"] | None = None
    constant: float = 0.0
    categories: Literal["leave_out", "one_hot", "target"] = "leave_out"
    dates: Literal["leave_out", "numbers"] = "leave_out"
    separator: str | None = None
    decimal: Literal[".", ","] | None = None
    encoding: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            self.text_format.check()
        except ValueError as error:
            raise LearnerError(f"tasks.{error}") from None
        labelled = [name for name, kind in TASK_KINDS.items() if kind.labelled and not kind.in_order]
        if self.kind not in labelled:
            raise LearnerError(f"tasks.kind: {unknown('kind of task in a table', self.kind, labelled)}")

    @property
    def text_format(self) -> TextFormat:
        """How a CSV file is written, as far as it is given."""
        return TextFormat(self.separator, self.decimal, self.encoding)

    @property
    def has_classes(self) -> bool:
        """Whether the label column holds classes."""
        return TASK_KINDS[self.kind].has_classes


@dataclass(frozen=True)
class TableAsOneTask(UserTaskSettings, TableSettings):
    """The user's own table as one labelled data set: classification, or regression.

    Attributes:
        split: Column that says which part a row belongs to: train, meta, validation or test. Parts that it does not
            name are taken out of its training rows, by their fractions.
    """

    split: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.categories == "target" and self.label_noise:
            hidden = "the labels that tasks.label_noise hides"
            raise LearnerError(f"tasks.categories: target would read {hidden}; use one_hot")


@dataclass(frozen=True)
class TableTasks(FewShotSettings, TableSettings):
    """The user's own table as few-shot classes, or as one regression task per value of a column.

    Attributes:
        task: Column that says which task a row belongs to; required where the label is no class.
        validation_fraction: Fraction of the classes (or tasks) for meta-validation.
        test_fraction: Fraction of the classes (or tasks) for the test.
        split: Column that says which split a row's class (or task) is in: train, validation or test; or a list of
            classes for each, or the path of a JSON or CSV file of such lists; null divides them by the fractions.
        within: Column of a group of classes, such as a genus, within which the classes of an episode are drawn.
    """

    task: str | None = None
    ways: WaysOrRange = 5
    shots: ShotsOrRange = 1
    queries: Queries = 15
    validation_fraction: Fraction = 0.2
    test_fraction: Fraction = 0.2
    split: Split = None
    within: Within = None

    def columns_beside(self) -> dict[str, str]:
        """Return the columns that say what a class or task belongs to, by the setting that names each."""
        named = {"split": None if is_file_of_lists(self.split) else self.split, "within": self.within}
        return {setting: name for setting, name in named.items() if isinstance(name, str)}
