"""Settings that were called otherwise are still read, noted once, and searched under the name that was given."""

import logging

import pytest

from metaloom.search_spaces.errors import ExperimentError
from metaloom.search_spaces.experiment import Experiment
from metaloom.search_spaces.loading import load_experiment
from metaloom.search_spaces.resolve import Given, baseline, defaults, resolve, searched_knobs
from metaloom.search_spaces.sections.loops import note_old_name

BASE = {"tasks": "sinusoid", "learner": "maml"}


def of(outer, *overrides):
    return load_experiment({**BASE, "outer": outer}, overrides)


@pytest.mark.parametrize(
    ("outer", "overrides"),
    [
        ({"tasks": 7}, ()),
        ({"meta_batch": 7}, ()),
        ({}, ("outer.tasks=7",)),
        ({"tasks": 3}, ("outer.tasks=7",)),
        ({"tasks": 3}, ("outer.meta_batch=7",)),
        ({"meta_batch": 3}, ("outer.tasks=7",)),
    ],
)
def test_both_names_mean_the_same(outer, overrides):
    experiment = of(outer, *overrides)
    resolved = resolve(experiment, defaults(experiment)).outer
    assert resolved["meta_batch"] == 7 and "tasks" not in resolved
    assert experiment.fingerprint() == Experiment(**BASE, outer={"meta_batch": 7}).fingerprint()


def test_both_at_once_are_refused():
    with pytest.raises(ExperimentError, match=r"outer\.tasks: the old name of outer\.meta_batch, which is given too"):
        of({"tasks": 1, "meta_batch": 1})


def test_a_knob_keeps_the_name_that_it_was_recorded_under():
    experiment = of({"tasks": "search"})
    assert list(searched_knobs(experiment)) == ["outer.tasks"]
    assert resolve(experiment, Given({"outer.tasks": 9}, defaults(experiment))).outer["meta_batch"] == 9
    assert list(searched_knobs(of({"meta_batch": "search"}))) == ["outer.meta_batch"]


@pytest.mark.parametrize(("searched", "given"), [("meta_batch", "tasks"), ("tasks", "meta_batch")])
def test_a_baseline_may_set_a_knob_by_either_name(searched, given):
    experiment = Experiment(**BASE, outer={searched: {"search": [1, 2]}}, search={"baselines": [{f"outer.{given}": 2}]})
    (asked,) = experiment.search.baselines
    assert baseline(experiment, asked).outer["meta_batch"] == 2


def test_a_wrong_value_is_told_where_it_was_given():
    with pytest.raises(ExperimentError, match=r"outer\.tasks: got 0; allowed: a whole number, at least 1"):
        of({"tasks": 0})


def test_the_digest_is_that_of_version_0_1():
    assert of({"tasks": 7}).fingerprint() == FIXED
    assert of({"tasks": {"search": [1, 2]}}).fingerprint() == SEARCHED


def test_the_note_is_printed_once(caplog):
    note_old_name.cache_clear()
    with caplog.at_level(logging.WARNING, "metaloom"):
        of({"tasks": 7})
        of({"tasks": 8})
    assert [one.getMessage() for one in caplog.records] == [
        "outer.tasks is now called outer.meta_batch; the old name goes on being read"
    ]


# as `metaloom` 0.1.0 computed them
FIXED = "18833908f8bb463069c03b433b4718fc15cacfa4204084c0fd4383f0c6ac2375"
SEARCHED = "8cc3e5aaa22fa9a7f87f8726be220eb3a14f98f0345de9dbd2e891e66f3d80e3"
