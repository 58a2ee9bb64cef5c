"""What is asked of a search's episodes: the fields of the page's form, each a condition, and the order of the rows."""

import ast
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from urllib.parse import urlencode

from metaloom.dashboards.episode_scan import in_phase
from metaloom.dashboards.episodes.bounds import BOUNDED, MayHold, anything, may_hold
from metaloom.dashboards.filters import ACCURACIES, COUNTS, fits, parse_filter, tree_of
from metaloom.learners.errors import BadInput, shown, unknown
from metaloom.workers.records import names as records
from metaloom.workers.records.episode import EPISODE_COLUMNS

# The fields with a least and a greatest value: the field's name to the column and the sign of its condition.
RANGES = {
    f"{column}_{end}": (column, sign)
    for column in ("step", "accuracy_after", "loss_after")
    for end, sign in (("least", ">="), ("most", "<="))
}
FIELDS = ("trial", "phase", *RANGES, "seed", "classes", "where", "sort")
WHOLE = ("step", "seed")  # columns of whole numbers
DESCENDING = "-"


class FieldError(BadInput):
    """A field of the form that cannot be read."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field, self.message = field, message


@dataclass(frozen=True)
class EpisodeQuestion:
    """Which episodes are asked for, and in which order.

    Attributes:
        trial: Of this trial alone; None: of all.
        phase: Of this phase alone; None: of all.
        classes: Only episodes that hold all of these classes, by their ids.
        texts: Conditions in the language of ``metaloom episodes --where``, which must all hold.
        sort: A column of ``BOUNDED``, with a minus before it for the greatest first; empty: as they were played.
        given: The fields of the form as they were given, for links.
    """

    trial: int | None = None
    phase: str | None = None
    classes: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()
    sort: str = ""
    given: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> "EpisodeQuestion":
        """Read the fields of the form; raises FieldError, or FilterError for the field ``where``."""
        given = {name: fields[name].strip() for name in FIELDS if fields.get(name, "").strip()}
        phase, sort = given.get("phase"), given.get("sort", "")
        if phase is not None and phase not in records.PHASES:
            raise FieldError("phase", unknown("phase", phase, records.PHASES))
        if sort and sort.removeprefix(DESCENDING) not in BOUNDED:
            raise FieldError("sort", unknown("column", sort.removeprefix(DESCENDING), BOUNDED))
        ranges = [
            f"{column} {sign} {_number(name, given[name], column)}"
            for name, (column, sign) in RANGES.items()
            if name in given
        ]
        seed = [f"seed == {_number('seed', given['seed'], 'seed')}"] if "seed" in given else []
        texts = (*ranges, *seed, *([given["where"]] if "where" in given else []))
        trial = int(_number("trial", given["trial"], "step")) if "trial" in given else None
        question = cls(trial, phase, _classes(given.get("classes", "")), texts, sort, tuple(given.items()))
        question.check()
        return question

    def check(self) -> None:
        """Refuse conditions that cannot be read, or compare values of different kinds, before any part is read."""
        import pyarrow as pa
        import pyarrow.dataset as ds

        from metaloom.workers.records.episode_schema import EPISODE_SCHEMA

        try:
            ds.dataset(EPISODE_SCHEMA.empty_table()).count_rows(filter=self.condition)
        except pa.ArrowException as error:
            kinds = "such as a text with a number, or a list with one of them"
            raise FieldError("where", f"it compares values of different kinds, {kinds}") from error

    @cached_property
    def condition(self) -> Any:
        """The conditions but that of the classes, as a pyarrow expression; raises FilterError."""
        condition = in_phase(self.phase)
        for text in self.texts:
            condition &= parse_filter(text, EPISODE_COLUMNS)
        return condition

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns that its conditions read."""
        named = {node.id for text in self.texts for node in ast.walk(tree_of(text)) if isinstance(node, ast.Name)}
        counts = COUNTS if named & {*ACCURACIES} else ()
        return tuple(sorted({"phase", *named, *counts}))

    @property
    def asked_of(self) -> tuple[Any, ...]:
        """All that decides which rows meet it."""
        return self.trial, self.phase, self.classes, self.texts

    @property
    def keeps_all(self) -> bool:
        """Whether every row of its trials meets it, apart from the phase."""
        return not self.texts and not self.classes

    @cached_property
    def may_hold(self) -> MayHold:
        """Which parts can hold a row that meets it."""
        each = [may_hold(tree_of(text)) for text in self.texts] or [anything]
        phase = self.phase

        def holds(trial: int, facts: Any) -> bool:
            is_phase = phase is None or any(one == phase for one, _ in facts.phases)
            return is_phase and facts.rows > 0 and all(one(trial, facts) for one in each)

        return holds

    def address(self, **changes: Any) -> str:
        """Return the query string of it, with some fields changed; an empty value leaves a field out."""
        fields = {**dict(self.given), **{name: str(value) for name, value in changes.items()}}
        return urlencode({name: value for name, value in fields.items() if value != ""})

    def with_condition(self, text: str) -> "EpisodeQuestion":
        """Return the question with one more condition."""
        return replace(self, texts=(*self.texts, text))


def _number(field: str, text: str, column: str) -> str:
    """Return a number as the language of conditions writes it; raises FieldError."""
    try:
        value = ast.literal_eval(text)
        if isinstance(value, bool) or not isinstance(value, int if column in WHOLE else int | float):
            raise ValueError(text)
        if not fits(value) or not math.isfinite(value):
            raise ValueError(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as problem:
        kind = "a whole number" if column in WHOLE else "a number"
        raise FieldError(field, f"got {shown(text)}; allowed: {kind}, such as 0") from problem
    return repr(value)


def _classes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(one) for one in text.replace(",", " ").split())
    except ValueError as problem:
        allowed = "the ids of classes, such as 3, 17"
        raise FieldError("classes", f"got {shown(text)}; allowed: {allowed}") from problem
