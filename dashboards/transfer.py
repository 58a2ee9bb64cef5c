"""The transfer curve of a search: how well trials do by the number of layers that they take from a bundle."""

from collections import defaultdict
from typing import TYPE_CHECKING

from metaloom.dashboards.by_number import has_two_numbers, number_figure
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.search import SearchRecord

if TYPE_CHECKING:
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
    return number_figure(
        name,
        search,
        transfer_values(search),
        across="layers taken from the bundle",
        lacking=(
            f"--kind transfer: the finished trials of '{name}' have not tried two numbers of layers; search "
            "learner.initialization.layers of a bundle (docs/pretraining.md)"
        ),
    )


def shows_transfer(search: SearchRecord) -> bool:
    """Whether finished trials have tried two numbers of layers at least."""
    return has_two_numbers(transfer_values(search))
