"""A value by a number: the mean of a search's finished trials at each number that they tried, a line for each group."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from metaloom.dashboards.canvas import legend, name_axes, panel
from metaloom.learners.errors import BadInput
from metaloom.workers.records.results import mean_interval
from metaloom.workers.records.search import SearchRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curves = Mapping[str, Mapping[int, Sequence[float]]]


def has_two_numbers(curves: Curves) -> bool:
    """Whether two numbers were tried at least."""
    return len({number for by_number in curves.values() for number in by_number}) > 1


def number_figure(name: str, search: SearchRecord, curves: Curves, *, across: str, lacking: str) -> "Figure":
    """Draw the mean value by the number, and its interval over trials where there are several.

    Args:
        name: Of the search.
        curves: The values of the trials, by the label of a line and by the number.
        across: What the numbers count.
        lacking: The error's text where fewer than two numbers were tried.

    Raises:
        BadInput: Fewer than two numbers were tried.
    """
    if not has_two_numbers(curves) or search.settings is None:
        raise BadInput(lacking)
    figure, axes = panel(6.0, 4.0)
    for label, by_number in curves.items():
        each = [mean_interval(values) if len(values) > 1 else (values[0],) * 3 for values in by_number.values()]
        means, lows, highs = zip(*each, strict=True)
        axes.plot(list(by_number), means, marker="o", label=label)
        axes.fill_between(list(by_number), lows, highs, alpha=0.2)
    axes.set_xticks(sorted({number for by_number in curves.values() for number in by_number}))
    metric = search.settings.objectives[0].metric
    name_axes(axes, f"search {name}", across, metric.replace("_", " "))
    legend(axes)
    return figure
