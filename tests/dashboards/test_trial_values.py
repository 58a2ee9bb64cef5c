"""Values and knobs stand where their distributions and reports put them; pairs of scores give one difference."""

import math
from pathlib import Path

import pytest

from metaloom.dashboards import queries, trial_values
from metaloom.workers.records.results import mean_interval, paired_interval
from tests.dashboards.conftest import Write
from tests.dashboards.test_plots import events


def test_values_and_knobs_of_trials(tmp_path: Path, write_search: Write) -> None:
    write_search("first", events())
    search = queries.search_record(tmp_path, "first")
    trials = trial_values.valued(search)
    assert [trial_values.value_of(search, one) for one in trials] == [0.2, 0.5, 0.9, 0.7]
    assert math.isnan(trial_values.value_of(search, trials[0], "parameters"))
    assert trial_values.valued(search, "parameters") == []
    assert trial_values.interval_of(trials[0], "validation_accuracy") == pytest.approx((0.15, 0.25))
    assert trial_values.interval_of(trials[0], "parameters") is None
    assert trial_values.searched_knobs(trials) == ["depth", "method", "rate"]
    assert trial_values.places(trials, "rate") == pytest.approx({0: 0, 1: 1 / 3, 2: 1, 3: 2 / 3})
    assert trial_values.scaled(trials, "method") == {0: 0, 1: 1, 2: 0, 3: 0}
    assert trial_values.knob_values(trials, "depth") == {0: 2, 2: 4, 3: 1}


def test_the_best_up_to_each_place() -> None:
    assert trial_values.running_best([0.2, 0.5, 0.1], maximize=True) == [0.2, 0.5, 0.5]
    assert trial_values.running_best([0.2, 0.5, 0.1], maximize=False) == [0.2, 0.2, 0.1]
    assert trial_values.running_best([], maximize=True) == []


def test_a_paired_difference_is_that_of_the_differences() -> None:
    ours, theirs = (0.5, 0.75, 1.0), (0.25, 0.75, 0.5)
    assert paired_interval(ours, theirs) == mean_interval([0.25, 0.0, 0.5])
    assert paired_interval(ours, theirs, sign=-1) == mean_interval([-0.25, -0.0, -0.5])
    with pytest.raises(ValueError, match="zip"):
        paired_interval(ours, theirs[:2])
