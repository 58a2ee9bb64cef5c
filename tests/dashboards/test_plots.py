"""Every kind of plot shows the recorded numbers, knobs of a logarithmic range on logarithmic axes."""

import json
import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import distribution_to_json
from PIL import Image

from metaloom.dashboards import plots, queries
from metaloom.orchestrator.command_line import cli
from metaloom.orchestrator.proposing.importance import importances
from metaloom.workers.records import names as records
from metaloom.workers.records.search import SearchRecord
from tests.dashboards.conftest import Write, report, story

DISTRIBUTIONS = {
    "rate": optuna.distributions.FloatDistribution(1e-3, 1.0, log=True),
    "method": optuna.distributions.CategoricalDistribution(("maml", "reptile")),
    "depth": optuna.distributions.IntDistribution(1, 4),
}
KNOBS: dict[int, dict[str, Any]] = {
    0: {"rate": 0.001, "method": "maml", "depth": 2},
    1: {"rate": 0.01, "method": "reptile"},
    2: {"rate": 1.0, "method": "maml", "depth": 4},
    3: {"rate": 0.1, "method": "maml", "depth": 1},
}
VALUES = {0: 0.2, 1: 0.5, 2: 0.9, 3: 0.7}  # of the rate alone: its importance is the largest
SEARCHES = Path("searches")


def events(values: dict[int, float] = VALUES) -> list[tuple[str, int | None, dict[str, Any]]]:
    """Return the events of four finished trials with knobs of every kind."""
    told = story(values)
    for kind, trial, payload in told:
        if kind == records.TRIAL_SUGGESTED and trial is not None:
            given = {name: distribution_to_json(DISTRIBUTIONS[name]) for name in KNOBS[trial]}
            payload.update(knobs=KNOBS[trial], params=KNOBS[trial], distributions=given)
    return told


@pytest.fixture
def search(tmp_path: Path, write_search: Write) -> SearchRecord:
    write_search("first", events())
    return queries.search_record(tmp_path, "first")


def test_the_history_has_intervals_and_the_best_so_far(search: SearchRecord) -> None:
    (axes,) = plots.history_plot("first", search).axes
    (best,) = [line for line in axes.lines if line.get_label() == "best so far"]
    assert list(best.get_ydata()) == [0.2, 0.5, 0.9, 0.9]
    (points,) = axes.containers
    (bars,) = points.lines[2]
    ends = {round(x): (low, high) for (x, low), (_, high) in bars.get_segments()}
    assert ends[2] == pytest.approx((0.85, 0.95))  # as the report says


def test_curves_go_over_the_outer_steps(search: SearchRecord) -> None:
    (axes,) = plots.curves_plot("first", search).axes
    found = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]
    assert found == [([10, 20], [value / 2, value]) for value in VALUES.values()]
    assert axes.lines[2].get_label() == "trial 2 (best)"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["finished", "trial 2 (best)"]


def test_a_slice_has_a_panel_for_each_knob_and_log_axes_where_it_is_searched_so(search: SearchRecord) -> None:
    panels = {axes.get_xlabel(): axes for axes in plots.slice_plot("first", search).axes}
    assert list(panels) == ["depth", "method", "rate"]
    assert {knob: axes.get_xscale() for knob, axes in panels.items()} == {
        "depth": "linear",
        "method": "linear",
        "rate": "log",
    }
    (points,) = panels["rate"].collections
    assert points.get_offsets().tolist() == [[KNOBS[trial]["rate"], value] for trial, value in VALUES.items()]
    (of_depth,) = panels["depth"].collections
    assert len(of_depth.get_offsets()) == 3  # trial 1 has no such knob


def test_parallel_lines_stand_at_the_knobs_a_trial_has(search: SearchRecord) -> None:
    axes = plots.parallel_plot("first", search).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["depth", "method", "rate", "validation_accuracy"]
    lines = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines[: len(VALUES)]]
    third = (1 / 3, 2 / 3)
    assert lines[0] == ([0, 1, 2, 3], pytest.approx([third[0], 0.0, 0.0, 0.0]))  # by value, the lowest first
    assert lines[1] == ([1, 2, 3], pytest.approx([1.0, third[0], 3 / 7]))  # 0.01 is a third of the way in logarithms
    labels = {text.get_text() for text in axes.texts}
    assert {"maml", "reptile", "0.001", "1", "4"} <= labels


def test_the_pareto_front_is_that_of_the_search(tmp_path: Path, write_search: Write) -> None:
    told = events()
    sizes = {0: 5.0, 1: 9.0, 2: 7.0, 3: 6.0}
    for kind, trial, payload in told:
        if kind == records.TRIAL_REPORTED and trial is not None:
            payload["report"]["metrics"]["parameters"] = sizes[trial]
    aims = [
        {"metric": records.VALIDATION_ACCURACY, "direction": "maximize"},
        {"metric": "parameters", "direction": "minimize"},
    ]
    write_search("two", told, objectives=aims)
    (axes,) = plots.pareto_plot("two", queries.search_record(tmp_path, "two")).axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == (records.VALIDATION_ACCURACY, "parameters")
    (front,) = axes.lines
    assert list(zip(front.get_xdata(), front.get_ydata(), strict=True)) == [(0.2, 5.0), (0.7, 6.0), (0.9, 7.0)]
    assert len(axes.collections) == 4


def test_importances_are_those_of_optuna(search: SearchRecord) -> None:
    shares, left_out = importances("first", search)
    assert left_out == ["depth"] and set(shares) == {"rate", "method"}
    study = optuna.create_study(direction="maximize")
    for trial, value in VALUES.items():
        knobs = {name: KNOBS[trial][name] for name in shares}
        given = {name: DISTRIBUTIONS[name] for name in shares}
        study.add_trial(optuna.trial.create_trial(params=knobs, distributions=given, value=value))
    assert shares == pytest.approx(optuna.importance.get_param_importances(study))
    (axes,) = plots.importance_plot("first", search, shares).axes
    assert {bar.get_width() for bar in axes.patches} == set(shares.values())


@pytest.mark.parametrize("kind", ["history", "curves", "importance", "parallel", "slice"])
def test_a_plot_is_a_png_or_svg_file(
    tmp_path: Path, search: SearchRecord, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    for form in ("png", "svg"):
        file = tmp_path / f"plot.{form}"
        arguments = ["plot", "first", "--kind", kind, "--out", str(file), "--store", str(tmp_path), "--json"]
        assert cli.run(arguments) == 0
        out, err = capfd.readouterr()
        assert json.loads(out) == {"kind": kind, "file": str(file)}
        assert ("only some trials have depth" in err) == (kind == "importance")
    with Image.open(tmp_path / "plot.png") as image:
        assert min(image.size) > 100 and len(image.convert("L").getcolors(256) or []) > 10
    assert "<svg" in (tmp_path / "plot.svg").read_text()


def test_a_plot_has_a_name_by_default(
    tmp_path: Path, search: SearchRecord, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["plot", "first", "--store", str(tmp_path)]) == 0
    assert capfd.readouterr().out == "first-history.png\n" and Path("first-history.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["first", "--kind", "slices"], "did you mean 'slice'?"),
        (["first", "--out", "plot.pdf"], "plot.pdf has the ending '.pdf'; allowed are .png and .svg"),
        (["frist"], "did you mean 'first'"),
        (["first", "--kind", "pareto"], "needs a search of several objectives; it has one, validation_accuracy"),
        (["begun", "--kind", "curves"], "no trial has reported yet"),
        (["begun", "--kind", "importance"], "at least 2 finished trials of different values; 'begun' has 0"),
        (["plain", "--kind", "slice"], "needs a searched knob, and this search has none"),
        (["plain", "--kind", "importance"], "needs a searched knob that all finished trials have"),
        (["level", "--kind", "importance"], "'level' has 2 finished, with 1 different values"),
    ],
)
def test_what_cannot_be_drawn_is_refused_without_a_file(
    tmp_path: Path, write_search: Write, capfd: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    write_search("first", events())
    write_search("begun", [])
    write_search("plain", [(kind, trial, {**payload, "knobs": {}}) for kind, trial, payload in story({0: 0.1, 1: 0.2})])
    write_search("level", events({0: 0.5, 3: 0.5}))
    assert cli.run(["plot", *arguments, "--store", str(tmp_path)]) == 2
    assert told in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["searches"]


def test_a_value_that_is_no_number_is_left_out(tmp_path: Path, write_search: Write) -> None:
    told = events()
    told[3][2]["report"] = report(20, math.nan, finished=True)  # of trial 0
    write_search("odd", told)
    search = queries.search_record(tmp_path, "odd")
    for draw in (plots.history_plot, plots.curves_plot, plots.slice_plot, plots.parallel_plot):
        draw("odd", search)
    (axes,) = plots.curves_plot("odd", search).axes
    assert len(axes.lines) == 3
