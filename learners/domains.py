"""What values a knob may take: one declaration serves the search, the hypergradient and the reader.

A domain annotates the field it describes, in a component's configuration::

    @dataclass(frozen=True)
    class SGDConfig:
        rate: Annotated[float | Learned, Real(1e-4, 1.0, log=True, per=RATE_SHAPES)] = 0.01

The search samples from it by default; the hypergradient maps the value to an unconstrained tensor by it, and back.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from metaloom.learners.errors import LearnerError

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
    """

    low: float
    high: float
    log: bool = False
    per: tuple[str, ...] = ("scalar",)
    positive: bool = False
    bounded: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise LearnerError(f"a Real's low must be below its high, got low={self.low}, high={self.high}")
        if self.log and self.low <= 0:
            raise LearnerError(f"a log Real's low must be above 0, got {self.low}")

    def unconstrained(self, value: float) -> float:
        """Map a value to the space in which the outer optimizer moves it."""
        if self.bounded:
            share = min(max((value - self.low) / (self.high - self.low), MARGIN), 1 - MARGIN)
            return math.log(share / (1 - share))
        return math.log(value) if self.positive else value

    def value(self, unconstrained: Tensor) -> Tensor:
        """Map back, differentiably; any shape."""
        if self.bounded:
            return self.low + (self.high - self.low) * torch.sigmoid(unconstrained)
        return torch.exp(unconstrained) if self.positive else unconstrained


@dataclass(frozen=True)
class Int:
    """A whole number in [low, high]. It can be fixed or searched, never learned."""

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise LearnerError(f"an Int's low must not exceed its high, got low={self.low}, high={self.high}")
        if self.log and self.low < 1:
            raise LearnerError(f"a log Int's low must be at least 1, got {self.low}")


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
