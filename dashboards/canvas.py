"""The canvas of all figures. The first one imports matplotlib (0.7 s); no display is needed."""

from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS_PER_INCH = 110


def canvas(width: float, height: float) -> "Figure":
    """Return an empty figure, in inches, made without pyplot because threads would share pyplot's state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="tight")
    FigureCanvasAgg(figure)
    return figure


def panel(width: float, height: float) -> "tuple[Figure, Axes]":
    """Return an empty figure, in inches, with its one pair of axes."""
    figure = canvas(width, height)
    return figure, figure.add_subplot()


def name_axes(axes: "Axes", title: str, across: str, up: str) -> None:
    """Give axes their title and labels in the sizes that all figures use."""
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(across, fontsize=8)
    axes.set_ylabel(up, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)


def legend(axes: "Axes", *, columns: int = 1) -> None:
    """Put the legend beside the axes: within, it hides points, and looking for room takes seconds with many of them."""
    axes.legend(fontsize=8, ncols=columns, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)


def png(figure: "Figure") -> bytes:
    """Return a figure as the content of a PNG file."""
    return image(figure, "png")


def image(figure: "Figure", form: str) -> bytes:
    """Return a figure as the content of a file of the form ``png`` or ``svg``."""
    content = BytesIO()
    figure.savefig(content, dpi=DOTS_PER_INCH, format=form)
    return content.getvalue()
