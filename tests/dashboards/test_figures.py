"""Figures are drawn from the records, whatever of them is there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from metaloom.dashboards import figures
from metaloom.workers.records import names as records
from metaloom.workers.records.results import INNER_STEPS, PRESENTATIONS
from tests.dashboards.conftest import Write, episode, story

WriteEpisodes = Callable[[str, int, list[dict[str, Any]]], Path]


def test_a_search_is_drawn_with_its_best_trial(
    tmp_path: Path, write_search: Write, write_episodes: WriteEpisodes
) -> None:
    write_search("first", story({0: 0.7, 1: 0.9}))
    write_episodes("first", 1, [episode(1, "validation", n, 0.9) for n in range(5)])
    drawn = figures.draw_search(tmp_path, "first")
    files = [drawn.folder / "history.png", drawn.folder / "knobs.png", drawn.trials[1] / "adaptation.png"]
    for file in files:
        with Image.open(file) as image:
            assert min(image.size) > 200
            assert len(image.convert("L").getcolors(256) or []) > 10  # something is drawn on the white


def test_the_other_finished_trials_are_drawn_if_there_is_time(
    tmp_path: Path, write_search: Write, write_episodes: WriteEpisodes
) -> None:
    write_search("first", story({0: 0.7, 1: 0.9, 2: 0.8}))
    for trial in (0, 1):  # nothing is recorded of the last
        rows = [episode(trial, "validation", n, 0.5) for n in range(3)]
        write_episodes("first", trial, [{**row, "step": 20} for row in rows])
    assert set(figures.draw_search(tmp_path, "first").trials) == {1}
    assert set(figures.draw_search(tmp_path, "first", spare_s=60.0).trials) == {0, 1}
    assert figures.draw_trial(tmp_path, "first", 0, step=10) is None  # no episode of that step
    assert figures.adaptation_curve(tmp_path, "first", 0, step=20) == figures.adaptation_curve(tmp_path, "first", 0)


def test_a_search_without_a_value_is_drawn_empty(tmp_path: Path, write_search: Write) -> None:
    write_search("first", [])
    assert (figures.draw_search(tmp_path, "first").folder / "history.png").is_file()


def test_the_curve_is_the_mean_after_each_inner_step(
    tmp_path: Path, write_search: Write, write_episodes: WriteEpisodes
) -> None:
    write_search("first", [])
    write_episodes("first", 0, [episode(0, "validation", n, value) for n, value in enumerate((0.6, 0.8))])
    curve = figures.adaptation_curve(tmp_path, "first", 0)
    assert curve["mean"] == pytest.approx([0.2, 0.7])
    assert curve["mean"][1] - curve["low"][1] == pytest.approx(0.7)  # t of two episodes is 12.7: cut at 0 and 1
    assert curve["high"][1] == 1.0
    write_episodes("first", 0, [episode(0, "test", 0, 0.5)])
    curve = figures.adaptation_curve(tmp_path, "first", 0)
    assert (curve["phase"], curve["mean"][-1]) == (records.TEST, 0.5)


def test_the_curve_of_sequences_counts_the_earlier_examples_of_a_class(
    tmp_path: Path, write_search: Write, write_episodes: WriteEpisodes
) -> None:
    write_search("first", [])
    rows = [{**episode(0, "test", n, 0.8), "shots": 0, "accuracies": [0.25, 0.5, 0.75]} for n in range(2)]
    write_episodes("first", 0, rows)
    curve = figures.adaptation_curve(tmp_path, "first", 0)
    assert (curve["mean"], curve["curve"]) == ([0.25, 0.5, 0.75], PRESENTATIONS)
    write_episodes("first", 1, [{**episode(1, "test", 0, 0.5), "shots": 1}])
    assert figures.adaptation_curve(tmp_path, "first", 1)["curve"] == INNER_STEPS
