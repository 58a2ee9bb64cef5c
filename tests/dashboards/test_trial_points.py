"""What the charts of trials share: axes that show the usual values, and what an empty chart says."""

from metaloom.dashboards.charts.base import ChartKind
from metaloom.dashboards.charts.registry import charts
from metaloom.dashboards.charts.search import endings
from metaloom.dashboards.charts.trial_points import framed, whole_numbers
from metaloom.workers.records import names as records


def test_an_axis_shows_the_usual_values_and_says_how_many_are_far_beyond() -> None:
    usual = [0.1 * one for one in range(1, 21)]
    axis, told = framed({"title": "loss"}, [*usual, 5e14, float("nan"), float("inf")])
    assert axis["title"] == "loss" and axis["range"][0] < 0.1 and 2.0 < axis["range"][1] < 2.2
    assert told == "1 value is far beyond the axis; a double click shows all."
    assert framed({}, [*usual, 5e14, -5e14])[1].startswith("2 values are far beyond")
    assert framed({}, [*usual, 5.0]) == ({}, "")  # wide, but all can be told apart
    assert framed({}, []) == framed({}, [0.5] * 9 + [7.0]) == ({}, "")


def test_few_whole_numbers_have_a_tick_each() -> None:
    assert whole_numbers({}, [0, 3]) == {"dtick": 1}
    assert whole_numbers({}, [0, 1000]) == whole_numbers({}, []) == {}


def test_every_chart_says_what_it_is_drawn_of() -> None:
    silent = ChartKind("", "", lambda source: None).needs
    always = {"importances"}  # has a note of its own
    assert [kind.key for kind in charts().values() if kind.needs == silent and kind.key not in always] == []


def test_the_number_of_an_ending_stands_beside_its_bar() -> None:
    assert endings._bars(records.FAILED, {})["textposition"] == "outside"
