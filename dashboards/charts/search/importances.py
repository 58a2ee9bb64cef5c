"""How much of the objective's variation each searched knob explains, by Optuna, with the error over seeds."""

from typing import Any

from metaloom.dashboards.analysis import METHODS, ImportanceEstimate
from metaloom.dashboards.charts.base import Chart, ChartChoice, ChartKind, ChartSource, ChartTable
from metaloom.dashboards.charts.palette import BLUE, GREY
from metaloom.dashboards.charts.trial_points import choice, objective_choice, readable, shown

AGAIN_S = 1.5


def draw(source: ChartSource) -> Chart | None:
    """Draw the importances; while further seeds are evaluated the browser asks again."""
    search = source.store.record(source.name)
    if source.analysis is None or not search.trials:
        return None
    aim = objective_choice(source, search)
    method = choice(source, "method", "By", list(METHODS.items()), next(iter(METHODS)))
    found = source.analysis.importances(source.name, search, metric=aim.chosen, method=method.chosen)
    choices = (method, *shown(aim))
    if found.problem:
        return _nothing(found.problem, choices)
    ordered = sorted(found.knobs, key=lambda one: -one.share)
    bars = {
        "type": "bar",
        "orientation": "h",
        "name": "importance",
        "x": [one.share for one in ordered],
        "y": [one.knob for one in ordered],
        "error_x": {"type": "data", "array": [one.error for one in ordered], "color": GREY},
        "hovertemplate": "%{y}: %{x}<extra></extra>",
        "marker": {"color": BLUE},
    }
    names = [one.knob for one in ordered]
    layout = {
        "height": 140 + 28 * len(ordered),
        "xaxis": {"title": {"text": f"importance for {readable(aim.chosen)}"}, "rangemode": "tozero"},
        "yaxis": {"type": "category", "categoryorder": "array", "categoryarray": names[::-1]},
    }
    rows = [(one.knob, one.share, one.error, len(one.by_seed)) for one in ordered]
    table = ChartTable(("knob", "importance", "standard deviation over seeds", "seeds"), rows)
    again = AGAIN_S if found.seeds < found.asked else None
    return Chart("Importance of the knobs", [bars], layout, table, _note(found), choices, again)


def _nothing(problem: str, choices: tuple[ChartChoice, ...]) -> Chart:
    layout: dict[str, Any] = {"height": 80, "xaxis": {"visible": False}, "yaxis": {"visible": False}}
    return Chart(
        "Importance of the knobs", [], layout, ChartTable(("what is missing",), [(problem,)]), problem, choices
    )


def _note(found: ImportanceEstimate) -> str:
    lines = [f"{found.how}, of {found.trials} finished trials.", "Bars of error are one standard deviation over seeds."]
    if found.seeds < found.asked:
        lines.append(f"{found.seeds} of {found.asked} seeds are evaluated so far.")
    if found.left_out:
        lines.append(f"Left out, because only some trials have them: {', '.join(found.left_out)}.")
    return " ".join(lines)


# not live: each finished trial would have all seeds evaluated again, beside the search
CHART = ChartKind("importances", "Importance of the knobs", draw, live=False, order=50, apart=True)
