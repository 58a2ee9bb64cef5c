"""The charts of a trial hold the numbers of its records."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import metaloom
from metaloom.dashboards import queries
from metaloom.dashboards.charts.base import Chart, ChartSource, to_document
from metaloom.dashboards.charts.registry import charts_of
from metaloom.dashboards.charts.trial import adaptation, diagnostics, hypergradient, learning, memory, time_split
from metaloom.dashboards.episode_scan import QueryError
from metaloom.dashboards.figures import adaptation_curve
from metaloom.dashboards.store_reader import OpenStore
from metaloom.dashboards.trial_episodes import NormOfStep
from metaloom.workers.records.trial import Report

EXPERIMENT: dict[str, Any] = {
    "tasks": {"source": "sinusoid", "shots": 5, "queries": 5},
    "learner": {
        "method": "imaml",
        "architecture": {"kind": "mlp", "hidden": [8]},
        "update": {"rate": 0.1, "steps": 4},
    },
    "outer": {
        "steps": 6,
        "meta_batch": 2,
        "validate_every": 2,
        "validation_episodes": 5,
        "test_episodes": 4,
        "clip": 0.5,
    },
    "search": {"trials": 1},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenStore]:
    folder = tmp_path_factory.mktemp("charts") / "store"
    metaloom.train(EXPERIMENT, name="one", store=folder, executor="inline")
    yield OpenStore(folder)


def drawn(store: OpenStore, kind: Any, **asked: str) -> Chart:
    chart = kind.draw(ChartSource(store, "one", 0, asked))
    assert isinstance(chart, Chart)
    return chart


def reports_of(store: OpenStore) -> list[Report]:
    return store.record("one").trials[0].reports


def traces(chart: Chart) -> dict[str, Any]:
    return {trace["name"]: trace for trace in chart.data if "name" in trace}


def test_every_chart_is_of_this_folder_and_says_the_same_as_text(store: OpenStore) -> None:
    kinds = charts_of("trial")
    assert {kind.key for kind in kinds} >= {"trial-learning", "trial-adaptation", "trial-time", "trial-memory"}
    for kind in kinds:
        chart = kind.draw(ChartSource(store, "one", 0))
        assert chart is not None, kind.key
        assert all(len(row) == len(chart.table.heads) for row in chart.table.rows)
        assert to_document(chart)["table"]["rows"], kind.key
        with pytest.raises(QueryError, match=r"search 'one' has no trial 7 \(it has 0 to 0\)"):
            kind.draw(ChartSource(store, "one", 7))


@pytest.mark.parametrize("across", ["outer steps", "episodes"])
def test_learning_curves(store: OpenStore, across: str) -> None:
    chart, reports = drawn(store, learning.CHART, across=across), reports_of(store)
    line = traces(chart)["validation loss"]
    assert list(line["x"]) == [one.step if across == "outer steps" else one.episodes for one in reports]
    assert line["y"] == [one.metrics["validation_loss"] for one in reports]
    assert traces(chart)["training loss"]["y"] == [one.metrics["train_loss"] for one in reports]
    band = chart.data[0]
    assert band["y"][:3] == [one.interval[1] for one in reports]
    assert band["y"][3:] == [one.interval[0] for one in reversed(reports)]
    assert chart.table.rows[2][:3] == [6, reports[2].episodes, reports[2].seconds]


def test_adaptation_is_that_of_the_figure_at_each_step(store: OpenStore) -> None:
    chart = drawn(store, adaptation.CHART, phase="validation", step="4")
    assert [(one.name, one.chosen) for one in chart.choices] == [("phase", "validation"), ("step", "4")]
    assert [value for value, _ in chart.choices[1].options] == ["2", "4", "6"]
    assert chart.note.startswith("Mean of 5 validation episodes at outer step 4")
    other = drawn(store, adaptation.CHART, phase="validation", step="6")
    assert traces(chart)["query loss"]["y"] != traces(other)["query loss"]["y"]
    newest = drawn(store, adaptation.CHART, phase="nonsense", step="-3")
    figure = adaptation_curve(store.path, "one", 0)
    assert traces(newest)["query loss"]["y"] == figure["mean"]
    assert [row[2:4] for row in newest.table.rows] == [
        list(pair) for pair in zip(figure["low"], figure["high"], strict=True)
    ]


def test_the_norm_of_each_outer_step_is_that_of_its_episodes(store: OpenStore) -> None:
    chart = drawn(store, hypergradient.CHART)
    rows = queries.episode_rows(store.path, "one", trial=0, phase="train", limit=None).rows
    norms = {row["step"]: row["hypergradient_norm"] for row in rows}
    assert dict(zip(traces(chart)["norm"]["x"], traces(chart)["norm"]["y"], strict=True)) == norms
    share = sum(norm > 0.5 for norm in norms.values()) / 6
    assert chart.note == f"{share:.1%} of the outer steps were clipped to 0.5."


def test_many_norms_are_put_together() -> None:
    norms = [NormOfStep(step, float(step)) for step in range(2501)]
    bins = hypergradient.binned(norms, 1000)
    assert len(bins) == 834 and [len(one) for one in bins[:2]] == [3, 3] and len(bins[-1]) == 2
    assert [one for run in bins for one in run] == norms
    assert hypergradient.share_clipped(norms, 2000.0) == 500 / 2501


def test_the_estimators_numbers_are_those_of_the_reports(store: OpenStore) -> None:
    chart, reports = drawn(store, diagnostics.CHART), reports_of(store)
    for name in ("residual", "inner_gradient_norm"):
        expected = [one.metrics[f"hypergradient_{name}"] for one in reports]
        assert traces(chart)[name.replace("_", " ")]["y"] == expected
    assert "conjugate_gradient" in chart.note


def test_the_time_adds_up_to_that_of_the_trial(store: OpenStore) -> None:
    chart, last = drawn(store, time_split.CHART), reports_of(store)[-1]
    *_, total = chart.table.rows
    assert total[0] == "all" and sum(total[1:]) == pytest.approx(last.metrics["seconds"])
    assert total[2] == pytest.approx(last.metrics["inner_seconds"])


def test_the_peak_is_in_mebibytes_and_absent_before(store: OpenStore, tmp_path: Path) -> None:
    chart, reports = drawn(store, memory.CHART), reports_of(store)
    assert traces(chart)["process"]["y"] == [one.metrics["peak_bytes"] / 2**20 for one in reports]
    assert "ran on cpu" in chart.note


def test_a_store_of_an_earlier_version_is_drawn_too(tmp_path: Path) -> None:
    stored = Path(__file__).resolve().parents[1] / "fixtures" / "stored_0_1" / "store"
    old = OpenStore(shutil.copytree(stored, tmp_path / "store"))  # a reader of a journal leaves files beside it
    name = next(row.name for row in old.listed() if row.value is not None)
    number = next(trial.number for trial in old.record(name).trials.values() if trial.reports)
    found = {kind.key: kind.draw(ChartSource(old, name, number)) for kind in charts_of("trial")}
    assert found["trial-learning"] is not None and found["trial-memory"] is None
    split = found["trial-time"]
    assert split is not None and "earlier version" in split.note
