"""What a figure of meta-knowledge says, without a way to draw it: numbers with names, pictures, tables and graphs.

The functions of ``FACTS`` make them; figures (``knowledge_figures``) and the charts of pages draw them, and print their
numbers as tables. All numbers are plain floats, except where a picture or a matrix is a tensor.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

Numbers = tuple[float, ...]


def numbers(values: Tensor) -> Numbers:
    """Return a tensor's numbers in their order."""
    return tuple(values.detach().double().flatten().tolist())


@dataclass(frozen=True)
class Line:
    """One line: y over x. ``style`` is ``line``, ``dashed``, ``thin``, ``points`` (a line with its points) or ``step``.

    Curves of one ``group`` have one colour; each is its own group without one.
    """

    name: str
    x: Numbers
    y: Numbers
    style: str = "line"
    group: str = ""


@dataclass(frozen=True)
class NamedPoint:
    """A point that is named on a plane of lines, such as a goal; ``symbol`` is ``o``, ``*`` or ``x``."""

    name: str
    x: float
    y: float
    symbol: str = "o"


@dataclass(frozen=True)
class Lines:
    """Curves on one pair of axes.

    Attributes:
        title: Of the panel; empty where it is the figure's only one.
        across: What x is.
        up: What y is.
        curves: In the order of the legend.
        linear: Where the x axis is logarithmic on both sides of 0: below this size it is linear. None is linear.
        level: A horizontal line.
        low: The least y that the axis shows.
        high: The largest y that the axis shows.
        marks: Named points.
        plane: Whether x and y have one scale.
        whole: Whether x counts something.
    """

    title: str
    across: str
    up: str
    curves: tuple[Line, ...]
    linear: float | None = None
    level: float | None = None
    low: float | None = None
    high: float | None = None
    marks: tuple[NamedPoint, ...] = ()
    plane: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Bars:
    """A number for each name, with a range where it is a mean over several.

    Attributes:
        title: Of the panel.
        across: What the names are.
        up: What the numbers are.
        names: One a bar.
        values: One a bar.
        lows: The lower end of each range; empty without ranges.
        highs: The upper end of each range.
        lying: Whether the bars lie, as those of layers do, which have long names.
    """

    title: str
    across: str
    up: str
    names: tuple[str, ...]
    values: Numbers
    lows: Numbers = ()
    highs: Numbers = ()
    lying: bool = False


@dataclass(frozen=True)
class Histogram:
    """How many of each group's examples lie between two edges; ``edges`` has one number more than each count."""

    title: str
    across: str
    up: str
    edges: Numbers
    groups: tuple[tuple[str, Numbers], ...]


@dataclass(frozen=True)
class Points:
    """A cloud of points, with a class for each of them where it is known (-1: it is not). ``symbol``: o, ``.`` or X."""

    name: str
    x: Numbers
    y: Numbers
    classes: tuple[int, ...] = ()
    symbol: str = "o"


@dataclass(frozen=True)
class Plane:
    """Clouds of points on one pair of axes; ``ways`` counts the classes."""

    title: str
    across: str
    up: str
    clouds: tuple[Points, ...]
    ways: int = 2


@dataclass(frozen=True)
class Rows:
    """Numbers in named rows: of each name the numbers of each group, such as where a setting started and where it is.

    ``standing`` has the names on the x axis. ``level`` is a line at the number that changes nothing.
    """

    title: str
    across: str
    up: str
    names: tuple[str, ...]
    groups: tuple[tuple[str, tuple[Numbers, ...]], ...]
    level: float | None = None
    standing: bool = False


@dataclass(frozen=True)
class Heat:
    """A matrix as colours: ``values`` [rows, columns], NaN where there is nothing.

    Attributes:
        title: Of the panel.
        across: What a column is.
        up: What a row is.
        values: The numbers.
        scale: What they are; empty where the caption says it.
        xs: The place of each column; empty for 0, 1, 2 ...
        ys: The place of each row, upwards; empty for rows from above.
        texts: A text for each number; empty without them.
        marks: Named points.
        columns: The name of each column; empty for their numbers.
        lines: The name of each row; empty for their numbers.
    """

    title: str
    across: str
    up: str
    values: Tensor
    scale: str = ""
    xs: Numbers = ()
    ys: Numbers = ()
    texts: tuple[tuple[str, ...], ...] = ()
    marks: tuple[NamedPoint, ...] = ()
    columns: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sheet:
    """A table of texts; ``widths`` are fractions of the whole."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    widths: Numbers = ()


@dataclass(frozen=True)
class Images:
    """Pictures in rows: each row has a name and pictures [n, height, width] or [n, height, width, 3] in [0, 1]."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, Tensor], ...]


@dataclass(frozen=True)
class Edge:
    """An arrow of a graph, with its operation and the share that it has of a mixture (None: there is none)."""

    start: int
    end: int
    operation: str
    share: float | None = None


@dataclass(frozen=True)
class CellGraph:
    """Nodes from an input to an output, and the arrows between them."""

    title: str
    nodes: tuple[str, ...]
    edges: tuple[Edge, ...]


Panel = Lines | Bars | Histogram | Plane | Rows | Heat | Sheet | Images | CellGraph


@dataclass(frozen=True)
class LearnedFacts:
    """What was learned in one respect.

    Attributes:
        name: Lower-case letters, digits and hyphens: the file name of its picture.
        caption: One or two sentences with its numbers.
        panels: What is drawn.
        beside: Whether the panels stand side by side on the same axes, not below one another.
    """

    name: str
    caption: str
    panels: Sequence[Panel]
    beside: bool = False
