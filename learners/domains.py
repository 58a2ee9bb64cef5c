"""What values a knob may take: one declaration serves the search, the hypergradient and the reader.

A domain annotates the field it describes, in a component's configuration::

    @dataclass(frozen=True)
    class SGDConfig:
        rate: Annotated[float | Learned, Real(1e-4, 1.0, log=True, per=RATE_SHAPES)] = 0.01

The search samples from it by default; the hypergradient maps the value to an unconstrained tensor by it, and back.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from metaloom.learners.errors import LearnerError

if TYPE_CHECKING:  # schedulers declare their settings by domains too, in processes that need no torch
    from torch import Tensor

NEARLY = 1e-8  # of a step: by how much rounding may miss a whole number of them
MARGIN = 1e-3  # how far from the end of its range a bounded value starts at least: at the end no gradient moves it


@dataclass(frozen=True)
class Real:
    """A real number in [low, high].

    ``low``, ``high`` and ``log`` bound and scale what is searched. A learned value may leave the range, which may be
    too narrow (Meta-SGD learns negative rates on purpose).

    Attributes:
        per: The granularities at which the knob may be learned, the first being the default; empty if it may not.
        positive: Whether a learned value is kept above zero, by learning its logarithm.
        bounded: Whether a learned value, such as a probability, is kept between low and high, by learning its logit.
        step: What is searched is low and so many steps above it; None searches every number between.
    """

    low: float
    high: float
    log: bool = False
    per: tuple[str, ...] = ("scalar",)
    positive: bool = False
    bounded: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise LearnerError(f"a Real's low must be below its high, got low={self.low}, high={self.high}")
        if self.log and self.low <= 0:
            raise LearnerError(f"a log Real's low must be above 0, got {self.low}")
        check_step(self)

    def steps_to(self, value: float) -> float:
        """Return the searched value that is nearest to another one."""
        return value if self.step is None else stepped(self.low, self.high, self.step, value)

    def searched_values(self) -> int:
        """Return how many values are searched: those at its steps, and of a range without any one of each unit."""
        return math.floor((self.high - self.low) / (self.step or 1) + NEARLY) + 1

    def unconstrained(self, value: float) -> float:
        """Map a value to the space in which the outer optimizer moves it."""
        if self.bounded:
            share = min(max((value - self.low) / (self.high - self.low), MARGIN), 1 - MARGIN)
            return math.log(share / (1 - share))
        return math.log(value) if self.positive else value

    def value(self, unconstrained: "Tensor") -> "Tensor":
        """Map back, differentiably; any shape."""
        if self.bounded:
            return self.low + (self.high - self.low) * unconstrained.sigmoid()
        return unconstrained.exp() if self.positive else unconstrained


@dataclass(frozen=True)
class Int:
    """A whole number in [low, high], or every ``step``-th of them. It can be fixed or searched, never learned."""

    low: int
    high: int
    log: bool = False
    step: int | None = None

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise LearnerError(f"an Int's low must not exceed its high, got low={self.low}, high={self.high}")
        if self.log and self.low < 1:
            raise LearnerError(f"a log Int's low must be at least 1, got {self.low}")
        check_step(self)

    def steps_to(self, value: float) -> int:
        """Return the searched value that is nearest to another one."""
        return round(value if self.step is None else stepped(self.low, self.high, self.step, value))

    def searched_values(self) -> int:
        """Return how many values are searched."""
        return (self.high - self.low) // (self.step or 1) + 1


def stepped(low: float, high: float, step: float, value: float) -> float:
    """Return the nearest to a value of low, low + step, ..., up to high; as Optuna computes them."""
    last = math.floor((high - low) / step + NEARLY)
    return min(low + min(max(round((value - low) / step), 0), last) * step, high)


def check_step(domain: Real | Int) -> None:
    """Refuse a step that is not above 0, is longer than the range, or is of a log range; raises LearnerError."""
    kind, step = type(domain).__name__, domain.step
    if step is None:
        return
    if not 0 < step <= domain.high - domain.low:
        raise LearnerError(f"a step must be above 0 and at most high - low ({domain.high - domain.low:g}), got {step}")
    if domain.log:
        raise LearnerError(f"a log {kind} has no step; drop one of them")


@dataclass(frozen=True)
class Bounds:
    """The bounds of every value of a number, fixed ones too; None does not bound. A domain says where to search."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def hold(self, value: float) -> bool:
        """Whether a value is within the bounds; a NaN is not if there is one."""
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        ends = ((name.replace("_", " "), end) for name, end in vars(self).items() if end is not None)
        return " and ".join(f"{name} {end}" for name, end in ends)


@dataclass(frozen=True)
class Added:
    """Marks a setting that came later than others: at its default it is left out of an experiment's digest.

    So the digests of searches that were begun before stay as they are.
    """


@dataclass(frozen=True)
class Choice:
    """One of some named options. Fixed or searched."""

    options: tuple[str, ...]


@dataclass(frozen=True)
class Word:
    """Several choices among the same options, written in a row: ``conv3|skip|avg3``. Fixed, or searched part by part.

    Attributes:
        options: What each part may be.
        lengths: The numbers of parts that a word may have; the first is searched by default.
        default: Each part of a word that is not searched.
        part: What a part is called in the names of its knobs.
        separator: Between two parts.
    """

    options: tuple[str, ...]
    lengths: tuple[int, ...]
    default: str
    part: str
    separator: str


@dataclass(frozen=True)
class Learned:
    """The third mode of a knob: the hypergradient moves it.

    Attributes:
        start: The value before the first outer step; None takes the field's default.
        per: ``scalar``, ``layer``, ``parameter``, ``step`` or ``layer_step``; None takes the domain's first.
    """

    start: float | None = None
    per: str | None = None
