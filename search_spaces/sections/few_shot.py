"""The settings of few-shot episodes: what they look like in training, and what in validation and test."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from metaloom.learners.domains import Added, Bounds, Int, Real
from metaloom.learners.errors import LearnerError, shown, unknown
from metaloom.learners.fields import Unfit, fields_of, literal
from metaloom.search_spaces.sections.tasks import TASK_SOURCES, TaskSettings, settings_of

TRAIN = "train"
SIZES = ("ways", "shots", "queries")
UNLABELLED, DISTRACTORS = "unlabelled", "distractors"
QUERY_BALANCE, DIRICHLET = "query_balance", "dirichlet"
EVALUATED = (*SIZES, UNLABELLED, DISTRACTORS, QUERY_BALANCE)  # what `evaluation` may name
# a number, or a range [least, most] from which every outer step draws its own
WaysOrRange = Annotated[int | tuple[Annotated[int, Bounds(at_least=2)], ...], Int(2, 1000), Bounds(at_least=2)]
ShotsOrRange = Annotated[int | tuple[Annotated[int, Bounds(at_least=0)], ...], Int(1, 1000), Bounds(at_least=0)]
Evaluated = Annotated[Mapping[str, Any] | None, Added()]
Within = Annotated[str | None, Added()]
ClassFeatures = Annotated[Mapping[str, Any] | None, Added()]
SeenFraction = Annotated[float, Real(0.0, 1.0, per=()), Bounds(at_least=0, below=1), Added()]
OnTooFew = Annotated[Literal["refuse", "leave_out"], Added()]
Whole = Annotated[Literal["train", "validation", "test"] | None, Added()]
Balance = Annotated[Mapping[str, Any] | None, Added()]
Unlabelled = Annotated[int, Int(0, 1000), Bounds(at_least=0), Added()]


@dataclass(frozen=True)
class FewShotSettings(TaskSettings):
    """What few-shot sources have.

    Attributes:
        ways: Classes of an episode; a range [least, most] draws the number for each outer step of the training.
        shots: Support examples of each class of an episode; a range likewise. 0 leaves what describes the classes.
        evaluation: The `ways`, `shots` and `queries` of validation and test, and their `unlabelled` and `distractors`,
            as far as they differ from those of the training.
        within: What the classes of an episode have in common, so that they are drawn within one group, such as an
            alphabet; null draws them from all of a split. Without a split of one's own, whole groups are divided.
        on_too_few: What to do with a class that has fewer examples than an episode takes of it: refuse to start, or
            leave it out and say how many there are. A group with too few classes likewise.
        unlabelled: Examples of each class that an episode has without their labels, beside its support set, for methods
            that learn from them too.
        distractors: Further classes of an episode, of which it has unlabelled examples alone.
        class_features: What describes each class itself, for methods that need no example of it: a table with one row
            a class (`{path: classes.csv, class: COLUMN}`), or the names of the classes (`{names: hashing}`).
        query_balance: How the queries divide among the classes of an episode: `{dirichlet: 2}` draws the classes'
            shares from a Dirichlet distribution with this alpha, the total staying ways times `queries`; null gives
            each class `queries`.
        seen_fraction: Fraction of the examples of each training class that training leaves out, so that a test of
            training classes and new ones together (`metaloom evaluate --generalized`) has examples of the first.
        whole: The split that all classes belong to, so that the others are empty: what the source `many` gives to a
            data set that it trains on, validates on or tests as a whole.
    """

    evaluation: Evaluated = field(default=None, kw_only=True)
    on_too_few: OnTooFew = field(default="refuse", kw_only=True)
    unlabelled: Unlabelled = field(default=0, kw_only=True)
    distractors: Unlabelled = field(default=0, kw_only=True)
    query_balance: Balance = field(default=None, kw_only=True)
    class_features: ClassFeatures = field(default=None, kw_only=True)
    seen_fraction: SeenFraction = field(default=0.0, kw_only=True)
    whole: Whole = field(default=None, kw_only=True)

    @property
    def describes_classes(self) -> bool:
        """Whether episodes say what describes each class."""
        return self.class_features is not None

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.evaluation or {}
        for name, value in given.items():
            self._check_evaluated(name, value)
        self._check_distractors(given)
        self._check_shots(given)
        _alpha_of(self.query_balance, f"tasks.{QUERY_BALANCE}")
        for name in ("ways", "shots"):
            value = getattr(self, name)
            if isinstance(value, int):
                continue
            if len(value) != 2 or value[0] >= value[1]:
                raise LearnerError(f"tasks.{name}: got {shown(list(value))}; a range is [least, most], such as [2, 10]")
            if name not in given:
                raise LearnerError(
                    f"tasks.evaluation: tasks.{name} is a range, so say what validation and test take: "
                    f"evaluation: {{{name}: {value[0]}}}"
                )

    def _check_distractors(self, given: Mapping[str, Any]) -> None:
        for where, own in (("tasks.distractors", {}), ("tasks.evaluation: distractors", given)):
            classes, each = (own.get(name, getattr(self, name)) for name in (DISTRACTORS, UNLABELLED))
            if classes and not each:
                raise LearnerError(
                    f"{where}: {classes} classes without a label have tasks.unlabelled examples each, which is 0; "
                    "set tasks.unlabelled"
                )

    def _check_shots(self, given: Mapping[str, Any]) -> None:
        """Refuse episodes without examples of classes that nothing describes, and a test that only these can have."""
        if self.seen_fraction and not self.describes_classes:
            raise LearnerError(
                f"tasks.seen_fraction: got {self.seen_fraction:g}; it tests classes with and without examples "
                "together, which takes tasks.class_features; leave it out"
            )
        if self.seen_fraction and (self.unlabelled or self.query_balance is not None):
            other = UNLABELLED if self.unlabelled else "query_balance"
            raise LearnerError(
                f"tasks.seen_fraction: tasks.{other} draws from all examples of a class, those that are held out too; "
                "leave one of them out"
            )
        for where, shots in (("shots", getattr(self, "shots", 1)), ("evaluation", given.get("shots", 1))):
            least = shots if isinstance(shots, int) else min(shots, default=1)
            if least < 1 and not self.describes_classes:
                raise LearnerError(
                    f"tasks.{where}: got {shown(shots)} shots; allowed: a whole number, at least 1, or 0 where "
                    "tasks.class_features describes the classes"
                )

    def _check_evaluated(self, name: str, value: object) -> None:
        config: Any = self
        declared = fields_of(config.__class__)
        if name not in EVALUATED:
            raise LearnerError(f"tasks.evaluation: {unknown('setting of it', name, EVALUATED)}")
        try:
            literal(replace(declared[name], items=None), value)
        except Unfit as error:
            raise LearnerError(f"tasks.evaluation: {name}: {error}") from None
        if name == QUERY_BALANCE:
            _alpha_of(value, f"tasks.evaluation: {name}")


def _alpha_of(balance: Any, where: str) -> float:
    """Return the alpha of ``{dirichlet: alpha}``, 0 for None; raises LearnerError."""
    if balance is None:
        return 0.0
    example = f"give {{{DIRICHLET}: 2}}, or null for equally many queries of each class"
    for name in balance:
        if name != DIRICHLET:
            raise LearnerError(f"{where}: {unknown('setting of it', name, (DIRICHLET,))}; {example}")
    alpha = balance.get(DIRICHLET)
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < float("inf"):
        raise LearnerError(f"{where}: {DIRICHLET}: got {shown(alpha)}; allowed: a number above 0; {example}")
    return float(alpha)


def with_evaluation(tasks: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, Any]:
    """Return a resolved tasks section whose validation and test episodes have these ``ways``, ``shots``, ``queries``.

    Raises LearnerError if the source's episodes have no such sizes.
    """
    if not sizes:
        return dict(tasks)
    source, episodes = tasks["source"], tasks.get("episodes")
    if not _is_few_shot(settings_of(source, episodes)):
        others = ", ".join(name for name, config in TASK_SOURCES.items() if _is_few_shot(config))
        of_its_own = f" with episodes: {episodes}" if _is_few_shot(TASK_SOURCES[source]) else ""
        raise LearnerError(
            f"{', '.join(sizes)}: {source}{of_its_own} has test episodes of one kind; those of {others} have sizes"
            + (" (with episodes: few_shot)" if of_its_own else "")
        )
    return {**tasks, "evaluation": {**(tasks.get("evaluation") or {}), **sizes}}


def unlabelled_of(tasks: Mapping[str, Any]) -> str:
    """Return the setting by which a resolved tasks section asks for examples without labels; empty if none does."""
    for name in getattr(TASK_SOURCES.get(str(tasks.get("source"))), "members", ()):
        if any(isinstance(one, Mapping) and unlabelled_of(one) for one in tasks.get(name) or ()):
            return f"tasks.{name}"
    if tasks.get(UNLABELLED):
        return f"tasks.{UNLABELLED}"
    return f"tasks.evaluation.{UNLABELLED}" if (tasks.get("evaluation") or {}).get(UNLABELLED) else ""


def balance_of(tasks: Mapping[str, Any]) -> str:
    """Return the setting by which a resolved tasks section asks for unequal queries; empty if none does."""
    if tasks.get(QUERY_BALANCE):
        return f"tasks.{QUERY_BALANCE}"
    return f"tasks.evaluation.{QUERY_BALANCE}" if (tasks.get("evaluation") or {}).get(QUERY_BALANCE) else ""


def changed_sizes(tasks: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, int]:
    """Return those of the sizes, in a fixed order, that are not those of the section's own test episodes."""
    own = {**tasks, **(tasks.get("evaluation") or {})}
    return {name: sizes[name] for name in SIZES if name in sizes and sizes[name] != own.get(name)}


def _is_few_shot(config: Any) -> bool:
    return config is not None and "evaluation" in fields_of(config)


@dataclass(frozen=True)
class Protocol:
    """What the episodes of a split look like; ways and shots are [least, most].

    ``field`` is the setting that says so, for messages; ``unlabelled`` examples are of each class, and of each of the
    ``distractors``, which are classes of no label. ``dirichlet`` is the alpha of the classes' shares of the queries; 0
    gives each ``queries``.
    """

    ways: tuple[int, int]
    shots: tuple[int, int]
    queries: int
    field: str = ""
    unlabelled: int = 0
    distractors: int = 0
    dirichlet: float = 0.0

    @classmethod
    def of(cls, config: Any, split: str) -> "Protocol":
        """Read a source's settings, which may be without ``evaluation`` and ways."""
        given = {} if split == TRAIN else getattr(config, "evaluation", None) or {}
        sizes = {name: given.get(name, getattr(config, name, 1)) for name in SIZES}
        ways, shots = (_range(sizes[name]) for name in ("ways", "shots"))
        apart = [int(given.get(name, getattr(config, name, 0))) for name in (UNLABELLED, DISTRACTORS)]
        alpha = _alpha_of(given.get(QUERY_BALANCE, getattr(config, QUERY_BALANCE, None)), QUERY_BALANCE)
        return cls(ways, shots, int(sizes["queries"]), "tasks.evaluation" if given else "", apart[0], apart[1], alpha)

    @property
    def varies(self) -> bool:
        """Whether ways or shots are drawn."""
        return self.ways[0] < self.ways[1] or self.shots[0] < self.shots[1]

    @property
    def examples(self) -> int:
        """The most examples that an episode takes of a class."""
        return self.shots[1] + self.queries + self.unlabelled

    @property
    def classes(self) -> int:
        """The most classes that an episode takes, of those with a label and of the others."""
        return self.ways[1] + self.distractors


def _range(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])
