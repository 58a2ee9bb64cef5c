"""The transfer curve of a search: how well trials do by the number of layers that they take from a bundle."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from metaloom.dashboards.canvas import legend, name_axes, panel
from metaloom.learners.errors import BadInput
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.results import mean_interval
from metaloom.workers.records.search import SearchRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KIND, FROZEN, MOVED = "bundle", "frozen", "fine-tuned"


def transfer_values(search: SearchRecord) -> dict[str, dict[int, list[float]]]:
    """Return the values of finished trials by whether what was taken moves, and by how many layers were taken."""
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for trial in ranking.ranked(search, records.FINISHED):
        start = {} if trial.config is None else trial.config.learner.get("initialization") or {}
        value, layers = ranking.value(search, trial), start.get("layers")
        if KIND in start and layers is not None and value is not None:
            found[FROZEN if start.get("freeze") else MOVED][int(layers)].append(value)
    return {name: dict(sorted(by_layers.items())) for name, by_layers in sorted(found.items())}


def transfer_plot(name: str, search: SearchRecord) -> "Figure":
    """Draw the mean value by the number of layers, and its interval over trials; one line for frozen layers.

    Raises BadInput where fewer than two numbers were tried.
    """
    curves = transfer_values(search)
    if not shows_transfer(search) or search.settings is None:
        raise BadInput(
            f"--kind transfer: the finished trials of '{name}' have not tried two numbers of layers; search "
            "learner.initialization.layers of a bundle (docs/pretraining.md)"
        )
    figure, axes = panel(6.0, 4.0)
    draw_by_number(axes, curves)
    metric = search.settings.objectives[0].metric
    name_axes(axes, f"search {name}", "layers taken from the bundle", metric.replace("_", " "))
    legend(axes)
    return figure


def draw_by_number(axes: "Axes", curves: Mapping[str, Mapping[int, Sequence[float]]]) -> None:
    """Draw, for each line, the mean of the values at each number, and its interval where there are several."""
    for label, by_number in curves.items():
        each = [mean_interval(values) if len(values) > 1 else (values[0],) * 3 for values in by_number.values()]
        means, lows, highs = zip(*each, strict=True)
        axes.plot(list(by_number), means, marker="o", label=label)
        axes.fill_between(list(by_number), lows, highs, alpha=0.2)
    axes.set_xticks(sorted({number for by_number in curves.values() for number in by_number}))


def shows_transfer(search: SearchRecord) -> bool:
    """Whether finished trials have tried two numbers of layers at least."""
    return len({layers for by_layers in transfer_values(search).values() for layers in by_layers}) > 1
