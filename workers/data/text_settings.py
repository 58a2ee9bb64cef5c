"""The settings of a user's texts: how they are read and divided into tokens, and the episodes that are made of them."""

from dataclasses import dataclass
from typing import Annotated, Literal

from metaloom.learners.domains import Bounds, Int
from metaloom.learners.errors import LearnerError
from metaloom.search_spaces.sections.few_shot import FewShotSettings, ShotsOrRange, WaysOrRange, Within
from metaloom.search_spaces.sections.tasks import Fraction, Queries, Split, TaskSettings, UserTaskSettings
from metaloom.workers.data.text_encoding import LENGTHS


@dataclass(frozen=True)
class TextSettings(TaskSettings):
    """How texts are read: one text and its label a row.

    Attributes:
        path: A table (CSV, Parquet, Arrow), a JSON file, or a folder with a file for each part (`train.csv`,
            `test.csv`). JSON is a list of rows, each `{"text": ..., "label": ...}` or `[text, label]`, or an object
            with such a list for each part, as CLINC150 has it; `.jsonl` has a row a line.
        text: The column (or key) of the text.
        label: The column (or key) of the label.
        parts: The parts of the file that are read, such as `[train]`; empty takes all.
        tokens: What a text is divided into: `words` (and punctuation marks), or `characters`.
        lower: Letters become small ones.
        length: How many tokens an example has; a longer text is cut off, a shorter one filled up. Null is 24 words,
            or 96 characters.
        least_count: How often a token has to stand in the training texts to be in the vocabulary; all others are one
            unknown token.
        most_tokens: The vocabulary has the most frequent ones, at most so many.
        vocabulary: Whose vocabulary the texts are read by: a bundle, whose network the learner starts from; or a file
            or folder of other texts. Null is that of the training texts.
        on_error: What to do with a row without a text or a label: refuse to start, or skip it and say so.
        separator: What stands between two cells of a CSV file; null finds it.
        encoding: The encoding of a CSV file; null finds UTF-8 and UTF-16.
    """

    path: str
    text: str = "text"
    label: str = "label"
    parts: tuple[str, ...] = ()
    tokens: Literal["words", "characters"] = "words"
    lower: bool = True
    length: Annotated[int | None, Int(2, 1024)] = None
    least_count: Annotated[int, Int(1, 100), Bounds(at_least=1)] = 2
    most_tokens: Annotated[int, Int(10, 100_000, log=True), Bounds(at_least=1)] = 20_000
    vocabulary: str | None = None
    on_error: Literal["refuse", "skip"] = "refuse"
    separator: str | None = None
    encoding: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.text == self.label:
            raise LearnerError(f"tasks.text: '{self.text}' is tasks.label too; name the column of the text")

    @property
    def places(self) -> int:
        """How many token numbers an example has."""
        return self.length or LENGTHS[self.tokens]


@dataclass(frozen=True)
class TextTasks(FewShotSettings, TextSettings):
    """Texts of the user's own as few-shot classes: the vocabulary is that of the training classes' texts.

    Attributes:
        validation_fraction: Fraction of the classes for meta-validation.
        test_fraction: Fraction of the classes for the test.
        split: Column that says which split a row's class is in: train, validation or test; or, of a JSON file, the key
            of an object with the classes of each, or with their groups, as CLINC150's `domain_split`; or a list of
            classes for each, or the path of a JSON or CSV file of such lists; null divides them by the fractions.
        within: Column of a group of classes within which the classes of an episode are drawn; or, of a JSON file, the
            key of an object with the classes of each group, as CLINC150's `domains`.
    """

    ways: WaysOrRange = 5
    shots: ShotsOrRange = 1
    queries: Queries = 15
    validation_fraction: Fraction = 0.2
    test_fraction: Fraction = 0.2
    split: Split = None
    within: Within = None


@dataclass(frozen=True)
class TextAsOneTask(UserTaskSettings, TextSettings):
    """Texts of the user's own as one labelled data set; parts of the file are its parts.

    Attributes:
        split: Column (or key) that says which part a row belongs to: train, meta, validation or test; null takes the
            parts of the file. Parts that nothing names are taken out of the training rows, by their fractions.
    """

    split: str | None = None
