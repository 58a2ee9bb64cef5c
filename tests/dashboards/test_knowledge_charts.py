"""Charts of meta-knowledge: every kind is drawn from the same facts as its figure, beside others and as differences."""

import json
import math
from functools import partial

import pytest
import torch

from metaloom.dashboards.charts.base import Chart, to_document
from metaloom.dashboards.knowledge_charts import comparing
from metaloom.dashboards.knowledge_charts.drawing import chart_of
from metaloom.dashboards.knowledge_charts.frames import is_chart, symlog, symlog_ticks
from metaloom.dashboards.knowledge_charts.graphs import path
from metaloom.dashboards.knowledge_facts import FACTS, LearnedFacts
from metaloom.dashboards.knowledge_facts.panels import (
    Bars,
    Edge,
    Heat,
    Histogram,
    Line,
    Lines,
    Panel,
    Rows,
)
from metaloom.dashboards.knowledge_facts.settings import learned_settings
from metaloom.dashboards.knowledge_facts.weights import separation
from metaloom.dashboards.knowledge_figures.drawing import figure_of
from tests.support.learned import EXAMPLES


def facts(*panels: Panel) -> LearnedFacts:
    return LearnedFacts("some", "Some words.", panels)


def drawn(*panels: Panel, others: tuple[LearnedFacts, ...] = (), signed: bool = False) -> Chart:
    chart = chart_of("Some", facts(*panels), others, signed=signed)
    assert chart is not None
    return chart


def test_every_kind_has_an_example() -> None:
    settings = {kind for kind, make in FACTS.items() if isinstance(make, partial) and make.func is learned_settings}
    assert set(FACTS) - set(EXAMPLES) <= settings - {"loss.settings"}  # one function, for the slots that have some
    assert set(EXAMPLES) <= set(FACTS)


@pytest.mark.parametrize("kind", sorted(EXAMPLES))
def test_every_kind_is_drawn_as_a_chart_with_its_table_and_as_a_figure(kind: str) -> None:
    found = FACTS[kind](EXAMPLES[kind]())
    assert found is not None and found.caption.endswith(".")
    assert figure_of(found).axes
    chart = chart_of("t", found)
    assert (chart is None) == (not any(map(is_chart, found.panels)))
    if chart is not None:
        document = to_document(chart)
        assert json.dumps(document, allow_nan=False)
        assert document["data"] and document["table"]["rows"]
        assert "legend" not in document["layout"], "charts.js has room for it above the axes, whose names lie below"
        axes = {name for name in document["layout"] if name.startswith("xaxis")}
        assert {trace["xaxis"] for trace in document["data"]} == {name.replace("axis", "") for name in axes}


def test_a_chart_has_the_numbers_of_its_facts() -> None:
    lines = Lines("", "step", "rate", (Line("a", (1.0, 2.0), (0.5, 0.25), "points"),))
    bars = Bars("", "", "size", ("one", "two"), (3.0, 4.0), (2.5, 4.0), (3.5, 5.0), lying=True)
    chart = drawn(lines, bars)
    curve, bar = chart.data
    assert (curve["x"], curve["y"], curve["mode"]) == ([1.0, 2.0], [0.5, 0.25], "lines+markers")
    assert (bar["x"], bar["y"]) == ([3.0, 4.0], ["one", "two"])
    assert (bar["error_x"]["array"], bar["error_x"]["arrayminus"]) == ([0.5, 1.0], [0.5, 0.0])
    rows = [tuple(row) for row in chart.table.rows]
    assert ("rate", "a", 2.0, 0.25, "") in rows and ("size", "two", None, 4.0, "4 to 5") in rows
    first, second = (chart.layout[name]["domain"] for name in ("yaxis", "yaxis2"))
    assert first[1] == 1.0 and second[0] == 0.0 and second[1] < first[0], "from above"


def test_two_trials_have_the_same_axes_and_colours() -> None:
    small, large = (Bars("", "", "size", ("a",), (value,)) for value in (1.0, 9.0))
    left, right = drawn(small, others=(facts(large),)), drawn(large, others=(facts(small),))
    assert left.layout["yaxis"]["range"] == right.layout["yaxis"]["range"]
    assert left.layout["yaxis"]["range"][0] < 0 < 9.0 < left.layout["yaxis"]["range"][1]
    dark, light = (Heat("", "x", "y", torch.tensor([[0.0, value]])) for value in (1.0, 4.0))
    (trace,) = drawn(dark, others=(facts(light),)).data
    assert (trace["zmin"], trace["zmax"]) == (0.0, 4.0)
    assert trace["xgap"] > 0 and trace["ygap"] > 0, "without gaps Plotly sets a style that the pages refuse"


def test_differences_are_of_the_numbers_of_one_name() -> None:
    one = facts(
        Lines("", "x", "y", (Line("a", (0.0, 1.0), (1.0, 2.0)), Line("gone", (0.0,), (1.0,)))),
        Bars("", "", "size", ("a", "b"), (1.0, 2.0)),
        Rows("", "value", "", ("a", "b"), (("start", ((1.0,), (1.0,))), ("learned", ((2.0,), (3.0, 4.0))))),
        Histogram("", "x", "n", (0.0, 1.0), (("all", (5.0,)),)),
        Heat("", "x", "y", torch.tensor([[1.0, 2.0]]), "share"),
    )
    other = facts(
        Lines("", "x", "y", (Line("a", (0.0, 1.0), (4.0, 2.5)), Line("new", (0.0,), (1.0,)))),
        Bars("", "", "size", ("b", "c"), (5.0, 2.0)),
        Rows("", "value", "", ("b", "a"), (("start", ((1.0,), (1.5,))), ("learned", ((3.0, 6.0), (2.0, 2.0))))),
        Histogram("", "x", "n", (0.0, 1.0), (("all", (7.0,)),)),
        Heat("", "x", "y", torch.tensor([[4.0, 0.0]]), "share"),
    )
    apart = comparing.difference(one, other)
    assert apart is not None
    lines, bars, rows, histogram, heat = apart.panels
    assert isinstance(lines, Lines) and [(curve.name, curve.y) for curve in lines.curves] == [("a", (3.0, 0.5))]
    assert isinstance(bars, Bars) and (bars.names, bars.values) == (("b",), (3.0,))
    assert isinstance(rows, Rows) and rows.groups == (("start", ((0.5,), (0.0,))), ("learned", ((), (0.0, 2.0))))
    assert isinstance(histogram, Histogram) and histogram.groups == (("all", (2.0,)),)
    assert isinstance(heat, Heat) and heat.values.tolist() == [[3.0, -2.0]]
    (trace,) = drawn(heat, signed=True).data
    assert (trace["zmin"], trace["zmax"]) == (-3.0, 3.0), "0 has the middle of the colours"


def test_what_has_nothing_in_common_has_no_difference() -> None:
    bars = facts(Bars("", "", "size", ("a",), (1.0,)))
    assert comparing.difference(bars, facts(Bars("", "", "size", ("b",), (1.0,)))) is None
    assert comparing.difference(bars, facts(Heat("", "x", "y", torch.zeros(1, 1)))) is None


def test_numbers_are_followed_over_the_outer_steps() -> None:
    by_step = {step: facts(Bars("", "", "size", ("a",), (float(step**2),))) for step in (4, 0, 2)}
    found = comparing.over_steps(by_step)
    assert found is not None
    (panel,) = found.panels
    assert isinstance(panel, Lines) and panel.curves == (Line("a", (0.0, 2.0, 4.0), (0.0, 4.0, 16.0), "points"),)
    assert comparing.over_steps({0: by_step[0]}) is None
    many = tuple(map(str, range(100)))
    crowded = {step: facts(Bars("", "", "size", many, (1.0,) * 100)) for step in (0, 1)}
    assert comparing.over_steps(crowded) is None


def test_the_shares_of_a_cells_operations_are_followed_by_edge() -> None:
    shares = FACTS["architecture.shares"](EXAMPLES["architecture.shares"]())
    assert shares is not None
    numbers = comparing.named_numbers(shares.panels[0])
    assert len(numbers) == 15 and math.isclose(sum(value for name, value in numbers.items() if "in to 1" in name), 1.0)
    assert "1 to out: conv3" in numbers


def test_a_logarithmic_axis_on_both_sides_of_0() -> None:
    assert [symlog(value, 0.001) for value in (0.0, 0.009, -0.009)] == pytest.approx([0.0, 1.0, -1.0])
    places, texts = symlog_ticks(0.001, 10.0)
    assert texts == ["-10", "-1", "-0.1", "-0.01", "-0.001", "0", "0.001", "0.01", "0.1", "1", "10"]
    assert places == sorted(places) and places[5] == 0.0


def test_an_edge_is_bent_around_the_nodes_that_it_passes() -> None:
    straight, around = path(Edge(0, 1, "skip")), path(Edge(0, 2, "skip"))
    assert set(straight[1]) == {0.0} and (straight[0][0], straight[0][-1]) == (0.0, 1.0)
    assert max(around[1]) == pytest.approx(0.32) and around[0][len(around[0]) // 2] == 1.0
    assert max(path(Edge(0, 3, "skip"))[1]) <= 0.0, "to alternating sides"


def test_the_separation_is_the_area_under_the_roc_curve() -> None:
    weights, wrong = torch.tensor([0.9, 0.5, 0.5, 0.1]), torch.tensor([False, False, True, True])
    # pairs of a clean and a wrong one: 0.9 > 0.5, 0.9 > 0.1, 0.5 = 0.5 (half), 0.5 > 0.1
    assert "a clean one has the larger weight in 88% of the pairs" in separation(weights, wrong)
    assert "their mean weight is 0.3, that of the others 0.7" in separation(weights, wrong)


def test_the_losses_of_clean_and_wrong_labels_are_counted_apart() -> None:
    found = FACTS["weighting.curve"](EXAMPLES["weighting.curve"]())
    assert found is not None
    histogram = found.panels[1]
    assert isinstance(histogram, Histogram)
    counts = {name: sum(each) for name, each in histogram.groups}
    assert counts == {"clean labels": 30.0, "wrong labels": 10.0}
    assert "Of 40 training examples 10 have a wrong label" in found.caption
