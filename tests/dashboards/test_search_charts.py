"""The charts of a search show its recorded numbers, in their traces and in their tables."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from metaloom.dashboards import queries
from metaloom.dashboards.analysis import ImportanceEstimate, KnobImportance
from metaloom.dashboards.charts.base import Chart, ChartSource, to_document
from metaloom.dashboards.charts.registry import charts_of
from metaloom.dashboards.charts.search import contour, curves, differences, endings
from metaloom.dashboards.episode_scan import QueryError
from metaloom.dashboards.store_reader import OpenStore
from metaloom.orchestrator.analysis import SearchAnalysis
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.results import mean_interval
from metaloom.workers.records.search import SearchRecord
from tests.dashboards.conftest import SUGGESTED, Write, report, story
from tests.dashboards.test_plots import KNOBS, VALUES, events

AIMS = [
    {"metric": records.VALIDATION_ACCURACY, "direction": "maximize"},
    {"metric": "parameters", "direction": "minimize"},
]
SIZES = {0: 5.0, 1: 9.0, 2: 7.0, 3: 6.0}
STOP = "not in the best 1/2 of 5 trials at rung 10"


def with_other_endings() -> list[tuple[str, int | None, dict[str, Any]]]:
    """Return the events of four finished trials, a stopped one and two failed ones."""
    told = events()
    load = {"knobs": KNOBS[0], **SUGGESTED}
    told += [
        (records.TRIAL_SUGGESTED, 4, load),
        (records.TRIAL_STARTED, 4, {"attempt": 1, "worker": ""}),
        (records.TRIAL_REPORTED, 4, {"report": report(10, 0.05)}),
        (records.TRIAL_STOPPED, 4, {"step": 10, "reason": STOP, "values": {records.VALIDATION_ACCURACY: 0.05}}),
    ]
    for number, reason in ((5, "ValueError: too small"), (6, "ValueError: too large")):
        told += [
            (records.TRIAL_SUGGESTED, number, load),
            (records.TRIAL_STARTED, number, {"attempt": 1, "worker": ""}),
            (records.TRIAL_FAILED, number, {"reason": reason, "traceback": "", "step": 0}),
        ]
    return told


@pytest.fixture
def source(tmp_path: Path, write_search: Write) -> ChartSource:
    """Return a search of seven trials, whose scheduler has rungs at 10 and 20."""
    write_search("first", with_other_endings(), scheduler={"kind": "asha", "reduction_factor": 2, "grace_steps": 10})
    return ChartSource(OpenStore(tmp_path), "first", analysis=SearchAnalysis())


def drawn(source: ChartSource, key: str, **asked: str) -> Chart:
    (kind,) = [one for one in charts_of("search") if one.key == key]
    chart = kind.draw(ChartSource(source.store, source.name, None, asked, source.analysis))
    assert chart is not None
    return chart


def named(chart: Chart, name: str) -> Mapping[str, Any]:
    (trace,) = [one for one in chart.data if one["name"] == name]
    return trace


def test_the_objective_has_the_values_the_intervals_and_the_best_so_far(source: ChartSource) -> None:
    chart = drawn(source, "objective")
    shown = {row["id"]: row for row in queries.search_summary(source.store.path, "first")["trials"]}
    finished = named(chart, "finished")
    assert finished["x"] == [0, 1, 2, 3] and finished["y"] == [shown[number]["value"] for number in range(4)]
    above = [value + more for value, more in zip(finished["y"], finished["error_y"]["array"], strict=True)]
    assert above == pytest.approx([shown[number]["interval"][1] for number in range(4)])
    assert named(chart, "stopped")["y"] == [0.05] and STOP in named(chart, "stopped")["text"][0]
    assert named(chart, "best so far")["y"] == [0.2, 0.5, 0.9, 0.9]
    assert [row[:4] for row in chart.table.rows] == [
        (number, number, one["state"], one["value"]) for number, one in shown.items() if one["value"] is not None
    ]


def test_the_objective_over_time_stands_at_the_last_reports(source: ChartSource) -> None:
    chart = drawn(source, "objective", over="time")
    # events are a second apart, and time counts from the start of the first trial on: five events a trial
    assert named(chart, "finished")["x"] == [2.0, 7.0, 12.0, 17.0]
    assert [choice.name for choice in chart.choices] == ["over"]  # there is one objective


def test_baselines_are_lines_where_they_measure_the_same(tmp_path: Path, write_search: Write) -> None:
    evaluations = {"maml": ("accuracy", 0.6), "mean": ("loss", 0.3)}
    told = events() + [
        (
            records.BASELINE,
            None,
            {"method": name, "evaluation": {"metric": metric, "mean": mean, "interval": [0.5, 0.7]}},
        )
        for name, (metric, mean) in evaluations.items()
    ]
    write_search("first", told)
    chart = drawn(ChartSource(OpenStore(tmp_path), "first"), "objective")
    assert named(chart, "baseline maml, test")["y"] == [0.6, 0.6]
    assert ("baseline maml", None, "tested", 0.6, 0.5, 0.7, None) in chart.table.rows
    assert not any("mean" in str(one["name"]) for one in chart.data)


def test_curves_have_every_report_the_rungs_and_the_reasons(source: ChartSource) -> None:
    chart = drawn(source, "curves")
    lines = named(chart, "finished")
    expected = [(number, step, value) for number, one in VALUES.items() for step, value in ((10, one / 2), (20, one))]
    found = zip(lines["customdata"], lines["x"], lines["y"], strict=True)
    assert [point for point in found if point[0] is not None] == expected
    assert named(chart, "trial 2 (best)")["y"] == [0.45, 0.9]
    assert named(chart, "its 95% interval")["y"] == pytest.approx([0.5, 0.95, 0.85, 0.4])
    assert [shape["x0"] for shape in chart.layout["shapes"]] == [10, 20]
    assert STOP in named(chart, "stopped, last report")["text"][0]
    assert (4, "stopped", 10, 1, 0.05, 10, STOP) in chart.table.rows


def test_long_curves_are_thinned_and_keep_their_ends() -> None:
    curve = [(step, float(step)) for step in range(100)]
    assert curves.thinning(50_000, 20_000) == 3 and curves.thinning(20_000, 20_000) == 1
    thin = curves.thinned(curve, 3)
    assert thin[0] == curve[0] and thin[-1] == curve[-1] and len(thin) == 34
    assert curves.thinned(curve[:1], 3) == curve[:1]


def test_the_timeline_has_a_bar_for_each_run(source: ChartSource) -> None:
    chart = drawn(source, "timeline")
    assert {one["name"]: len(one["y"]) for one in chart.data if one["type"] == "bar"} == {
        "finished": 4, "stopped": 1, "failed": 2,
    }  # fmt: skip
    assert named(chart, "finished")["x"] == [3000.0] * 4  # milliseconds, as Plotly's dates have them
    assert [row[0] for row in chart.table.rows] == list(range(7))
    assert set(named(drawn(source, "timeline", over="spent"), "finished")["x"]) == {3.0}
    assert drawn(source, "timeline", rows="trial").layout["yaxis"]["categoryarray"][-1] == "trial 0"


def test_parallel_lines_stand_where_the_plot_has_them(source: ChartSource) -> None:
    chart = drawn(source, "parallel")
    axes = {one["name"]: one for one in chart.layout["meta"]["axes"]}
    assert list(axes) == ["depth", "method", "rate", records.VALIDATION_ACCURACY]
    assert axes["rate"]["kind"] == "log" and axes["rate"]["ends"] == (0.001, 1.0)
    assert axes["rate"]["heights"] == pytest.approx([0.0, 1 / 3, 1.0, 2 / 3, 0.0])
    assert axes["method"]["options"] == ["maml", "reptile"] and axes["depth"]["heights"][1] is None
    assert chart.layout["meta"]["trials"] == [0, 1, 2, 3, 4]
    lines = [pair for one in chart.data for pair in zip(one["customdata"], one["x"], strict=True)]
    assert [at for number, at in lines if number == 1] == [1, 2, 3]  # it has no depth
    best = named(chart, "trial 2 (best)")
    assert best["y"] == [1.0, 0.0, 1.0, 1.0, None]
    assert chart.table.rows[1] == (1, "finished", None, "reptile", 0.01, 0.5)


def test_slices_have_a_panel_a_knob_with_its_axis(source: ChartSource) -> None:
    chart = drawn(source, "slices")
    axes = [chart.layout[f"xaxis{mark}"] for mark in ("", "2", "3")]
    assert [one["title"]["text"] for one in axes] == ["depth", "method", "rate"]
    assert [one["type"] for one in axes] == ["linear", "category", "log"]
    rates = [one for one in chart.data if one["xaxis"] == "x3" and one["name"] == "finished"]
    assert rates[0]["x"] == [0.001, 0.01, 1.0, 0.1] and rates[0]["y"] == list(VALUES.values())
    one = drawn(source, "slices", knob="depth")
    assert named(one, "finished")["customdata" if "customdata" in named(one, "finished") else "x"] == [2, 4, 1]
    assert one.table.rows[0] == (0, "finished", 2, 0.2, pytest.approx(0.15), pytest.approx(0.25))
    with pytest.raises(QueryError, match="did you mean 'depth'"):
        drawn(source, "slices", knob="dept")


def test_contours_need_numbers_at_enough_places(source: ChartSource) -> None:
    chart = drawn(source, "contour", x="rate", y="depth")
    assert [one["type"] for one in chart.data] == ["scatter", "scatter"]
    assert chart.note == "Contours need trials at 8 different places; there are 3."
    assert chart.layout["xaxis"]["type"] == "log"
    assert "no number" in drawn(source, "contour", x="rate", y="method").note
    same = drawn(source, "contour", x="rate", y="rate")  # the other control has just taken it
    assert [choice.chosen for choice in same.choices] == ["rate", "depth"]


def test_between_trials_on_a_plane_the_contour_is_the_plane() -> None:
    places = [(x, y) for x in (0.0, 1.0, 4.0) for y in (-1.0, 2.0, 3.0)]
    grid = contour.between(places, [3 * x - 2 * y + 1 for x, y in places])
    assert grid is not None
    lows, highs, heights = grid
    assert (lows, highs) == ((0.0, -1.0), (4.0, 3.0))
    last = contour.GRID - 1
    for row, line in enumerate(heights):
        for column, height in enumerate(line):
            assert height == pytest.approx(3 * 4 * column / last - 2 * (-1 + 4 * row / last) + 1)
    assert contour.between([(one, 2 * one) for one in range(9)], [0.0] * 9) is None


@pytest.fixture
def two_aims(tmp_path: Path, write_search: Write) -> ChartSource:
    told = events()
    for kind, trial, payload in told:
        if kind == records.TRIAL_REPORTED and trial is not None:
            payload["report"]["metrics"]["parameters"] = SIZES[trial]
    write_search("two", told, objectives=AIMS, constraints=[{"metric": "parameters", "max": 8.0}])
    return ChartSource(OpenStore(tmp_path), "two", analysis=SearchAnalysis())


def test_the_front_is_that_of_the_search(two_aims: ChartSource) -> None:
    chart = drawn(two_aims, "pareto")
    search = two_aims.store.record("two")
    front = [one.number for one in ranking.pareto_front(search)]
    assert front == queries.search_summary(two_aims.store.path, "two")["pareto"]
    assert [row[0] for row in chart.table.rows if row[2] == "Pareto front"] == front == [0, 2, 3]
    assert named(chart, "front of 3 trials")["x"] == [0.2, 0.7, 0.9]
    assert named(chart, "breaks a constraint")["y"] == [9.0]
    assert next(row for row in chart.table.rows if row[0] == 1)[-1] == 1.0
    swapped = drawn(two_aims, "pareto", x="parameters")
    assert swapped.layout["yaxis"]["title"]["text"] == "validation accuracy"


def test_another_objective_can_be_chosen(two_aims: ChartSource) -> None:
    chart = drawn(two_aims, "objective", objective="parameters")
    assert named(chart, "finished")["y"] == list(SIZES.values())
    assert named(chart, "best so far")["y"] == [5.0, 5.0, 5.0]  # trial 1 breaks the constraint
    assert "error_y" not in named(chart, "best so far")
    with pytest.raises(QueryError, match="did you mean 'parameters'"):
        drawn(two_aims, "objective", objective="parameter")


def test_one_objective_has_no_front(source: ChartSource) -> None:
    (kind,) = [one for one in charts_of("search") if one.key == "pareto"]
    assert kind.draw(source) is None


def test_differences_are_those_of_the_same_episodes(source: ChartSource) -> None:
    chart = drawn(source, "differences")
    trials = source.store.record("first").trials
    ours = trials[2].reports[-1].scores
    for number, state, *ends, _ in chart.table.rows:
        theirs = trials[number].reports[-1].scores
        assert ends == list(mean_interval([a - b for a, b in zip(ours, theirs, strict=True)]))
        assert state == trials[number].state
    assert [row[0] for row in chart.table.rows] == [3, 1, 0, 4]  # the finished ones first
    assert [row[0] for row in drawn(source, "differences", reference="4").table.rows] == [2, 3, 1, 0]
    with pytest.raises(QueryError, match="reference"):
        drawn(source, "differences", reference="5")  # it has no scores


def test_smaller_losses_are_better(tmp_path: Path, write_search: Write) -> None:
    told = story({0: 0.4, 1: 0.1})
    for kind, _, payload in told:
        if kind == records.TRIAL_REPORTED:
            metrics = payload["report"]["metrics"]
            metrics[records.VALIDATION_LOSS] = metrics.pop(records.VALIDATION_ACCURACY)
        elif kind == records.TRIAL_FINISHED:
            payload["values"] = {records.VALIDATION_LOSS: payload["value"]}
    write_search("loss", told, objectives=[{"metric": records.VALIDATION_LOSS, "direction": "minimize"}])
    source = ChartSource(OpenStore(tmp_path), "loss")
    ((number, _, mean, *_),) = drawn(source, "differences").table.rows
    assert number == 0 and mean == pytest.approx(0.3)
    assert named(drawn(source, "objective"), "best so far")["y"] == [0.4, 0.1]


def test_endings_are_counted(source: ChartSource) -> None:
    chart = drawn(source, "endings")
    assert [row[:4] for row in chart.table.rows] == [
        ("finished", 4, 4 / 7, "0, 1, 2, 3"),
        ("stopped at rung 10", 1, 1 / 7, "4"),
        ("failed: ValueError", 2, 2 / 7, "5, 6"),
    ]
    assert sum(sum(one["x"]) for one in chart.data) == 7
    without = ChartSource(source.store, source.name)
    assert [row[0] for row in drawn(without, "endings").table.rows][1] == "stopped at step 10"


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("trial 3, outer step 20: the outer loss is nan. Try a smaller rate", "the outer loss"),
        ("trial 3 ran out of memory (tried 5 GB). Try fewer", "ran out of memory"),
        ("its worker was lost 3 times; the last time: killed", "its worker was lost 3 times"),
        ("ValueError: 3 is too small", "ValueError"),
        (None, "no reason"),
    ],
)
def test_failures_are_named_by_their_kinds(source: ChartSource, reason: str | None, kind: str) -> None:
    trial = source.store.record("first").trials[5]
    trial.reason = reason
    assert endings.ending_of(trial, ()) == f"failed: {kind}"


def test_many_endings_are_counted_together(source: ChartSource) -> None:
    search = source.store.record("first")
    for step in range(20):
        trial = search.trials[4]
        copy = type(trial)(100 + step, state=records.FAILED, reason=f"Error{step}: it")
        search.trials[100 + step] = copy
    found = endings.endings(list(search.trials.values()), ())["failed"]
    assert len(found) == endings.MOST_KINDS and sum(map(len, found.values())) == 22
    assert "failed: other endings" in found


class Fixed(SearchAnalysis):
    """Importances of which one of three seeds is evaluated."""

    def importances(self, name: str, search: SearchRecord, *, metric: str, method: str) -> ImportanceEstimate:
        """Return the same for every search."""
        knobs = (KnobImportance("rate", 0.25, None, (0.25,)), KnobImportance("method", 0.75, 0.1, (0.7, 0.8)))
        return ImportanceEstimate(knobs, ("depth",), 4, 1, 3, f"{method} of {metric}")


def test_importances_are_bars_with_their_errors(source: ChartSource) -> None:
    chart = drawn(ChartSource(source.store, source.name, analysis=Fixed()), "importances", method="fanova")
    (bars,) = chart.data
    assert bars["y"] == ["method", "rate"] and bars["x"] == [0.75, 0.25] and bars["error_x"]["array"] == [0.1, None]
    assert "depth" in chart.note and "1 of 3 seeds" in chart.note and "fanova of validation_accuracy" in chart.note
    assert to_document(chart)["again_s"] == chart.again_s == 1.5


def test_what_is_too_little_is_said(tmp_path: Path, write_search: Write) -> None:
    write_search("level", events({0: 0.5, 3: 0.5}))
    source = ChartSource(OpenStore(tmp_path), "level", analysis=SearchAnalysis())
    assert "at least 2 finished trials of different values" in drawn(source, "importances").note


@pytest.mark.parametrize("kind", charts_of("search"), ids=lambda kind: kind.key)
def test_nothing_and_odd_values_are_drawn_without_an_error(tmp_path: Path, write_search: Write, kind: Any) -> None:
    analysis = SearchAnalysis()
    write_search("begun", [])
    write_search("plain", [(kind, trial, {**load, "knobs": {}}) for kind, trial, load in story({0: 0.1, 1: 0.2})])
    odd = events()
    odd[3][2]["report"] = report(20, math.nan, finished=True)
    write_search("odd", odd)
    store = OpenStore(tmp_path)
    assert kind.draw(ChartSource(store, "begun", analysis=analysis)) is None
    for name in ("plain", "odd"):
        chart = kind.draw(ChartSource(store, name, analysis=analysis))
        assert chart is None or to_document(chart)["table"]["rows"]


def test_differences_end_after_ten(source: ChartSource) -> None:
    trials = [one for one in source.store.record("first").trials.values() if one.reports]
    assert len(differences.differences(trials[0], trials * 5)) == differences.NEXT
