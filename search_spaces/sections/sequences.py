"""Sequences of the examples of any few-shot source: one after another, each with the label of the one before.

``tasks: {source: glyphs, episodes: sequences, ways: 5, length: 50}``. Their settings are derived from those of the
source's few-shot episodes: without the sizes of these, and with the length.
"""

import dataclasses
from dataclasses import MISSING, dataclass, field, make_dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, get_type_hints

from metaloom.learners.domains import Bounds, Int
from metaloom.learners.errors import LearnerError
from metaloom.learners.fields import fields_of
from metaloom.learners.task_kinds import SEQUENCE
from metaloom.search_spaces.sections.few_shot import EVALUATED, SIZES, FewShotSettings
from metaloom.search_spaces.sections.tasks import DERIVED, TaskSettings, Ways

SEQUENCES = "sequences"
# settings of few-shot episodes alone
NOT_THEIRS = frozenset({*EVALUATED, "evaluation", "class_features", "kind", "task"})
Length = Annotated[int, Int(4, 10_000), Bounds(at_least=4)]


@dataclass(frozen=True)
class SequenceSettings(TaskSettings):
    """What sequences have.

    Attributes:
        episodes: ``sequences``: every example is answered, and its label comes with the next one.
        ways: Classes of a sequence; which has which label is drawn for each.
        length: Examples of a sequence; each class has equally many, in a random order.
    """

    episodes: Literal["sequences"] = field(default="sequences", kw_only=True)
    ways: Ways = field(default=5, kw_only=True)
    length: Length = field(default=50, kw_only=True)

    task_kind: ClassVar[str] = SEQUENCE.name
    makes: ClassVar[str] = SEQUENCES
    derived_from: ClassVar[Any] = FewShotSettings

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length % self.ways or self.length < 2 * self.ways:
            below = max(2, self.length // self.ways) * self.ways
            near = " or ".join(str(one) for one in (below, below + self.ways))
            raise LearnerError(
                f"tasks.length: got {self.length}; {self.ways} classes have equally many examples each, at least two, "
                f"so take {near}"
            )
        self.few_shot()

    def few_shot(self) -> Any:
        """Return the settings of few-shot episodes that hold a sequence's examples; raises LearnerError."""
        shared = [name for name in fields_of(self.derived_from) if name not in NOT_THEIRS]
        each = self.length // self.ways
        return self.derived_from(
            **{name: getattr(self, name) for name in shared}, ways=self.ways, shots=each - 1, queries=1
        )


@cache
def sequence_form(of: type) -> type | None:
    """Derive the settings of sequences from those of few-shot episodes; None of a source without few-shot classes."""
    if not set(SIZES) <= set(fields_of(of)) or not issubclass(of, FewShotSettings):
        return None
    hints = get_type_hints(of, include_extras=True)
    shared = [_declared(one, hints[one.name]) for one in dataclasses.fields(of) if one.name not in NOT_THEIRS]
    form = make_dataclass(
        f"{of.__name__}InSequences", shared, bases=(SequenceSettings,), frozen=True, namespace={"derived_from": of}
    )
    form.__doc__ = (of.__doc__ or "").partition("\n\n")[0]
    return form


def _declared(one: "dataclasses.Field[Any]", hint: Any) -> tuple[str, Any, Any]:
    if one.default_factory is not MISSING:
        return one.name, hint, field(default_factory=one.default_factory, kw_only=True)
    return one.name, hint, field(default=one.default, kw_only=True)


DERIVED[SEQUENCES] = sequence_form
