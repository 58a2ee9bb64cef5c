"""What many data sets are worth: how well trials do by the number of data sets that they were trained on."""

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from metaloom.dashboards.by_number import has_two_numbers, number_figure
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.search import SearchRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def sets_values(search: SearchRecord) -> dict[str, dict[int, list[float]]]:
    """Return the values of finished trials by their method, and by how many data sets they were trained on."""
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for trial in ranking.ranked(search, records.FINISHED):
        value, number = ranking.value(search, trial), 0 if trial.config is None else _trained_on(trial.config.tasks)
        if trial.config is not None and number and value is not None:
            found[str(trial.config.learner.get("method") or "custom")][number].append(value)
    return {name: dict(sorted(by_number.items())) for name, by_number in sorted(found.items())}


def _trained_on(tasks: Mapping[str, Any]) -> int:
    if "sources" not in tasks:
        return 0
    from metaloom.workers.data.dividing import number_trained_on  # torch: only where there are many data sets

    return number_trained_on(tasks)


def sets_plot(name: str, search: SearchRecord) -> "Figure":
    """Draw the mean value by the number of data sets, and its interval over trials; a line for each method.

    Raises BadInput where fewer than two numbers were tried.
    """
    return number_figure(
        name,
        search,
        sets_values(search),
        across="data sets trained on",
        lacking=(
            f"--kind sets: the finished trials of '{name}' have not tried two numbers of training data sets; search "
            "tasks.weights of source: many (docs/many.md)"
        ),
    )


def shows_sets(search: SearchRecord) -> bool:
    """Whether finished trials have tried two numbers of data sets at least."""
    return has_two_numbers(sets_values(search))
