"""A method's recipe is checked as an experiment is: what a package misspells is not left out without a word."""

import pytest

from metaloom import Experiment
from metaloom.learners import METHODS, Recipe
from metaloom.learners.task_kinds import TASK_KINDS
from metaloom.search_spaces.errors import ExperimentError
from metaloom.search_spaces.sections.space import faults, slot_catalogues


@pytest.mark.parametrize("kind", sorted(TASK_KINDS))
@pytest.mark.parametrize("name", METHODS)
def test_every_recipe_means_something(name, kind):
    assert faults(METHODS[name], slot_catalogues(TASK_KINDS[kind])) == []


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ({"learner": {"weihting": {"kind": "focal"}}}, "learner.weihting: no slot is named 'weihting'; did you mean"),
        ({"learner": {"weighting": {"kind": "focl"}}}, "learner.weighting.kind: no weighting is named 'focl'; did"),
        ({"learner": {"weighting": {"kind": "focal", "gama": 1.0}}}, "learner.weighting.gama: no setting of focal"),
        ({"learner": {"weighting": {"kind": "focal", "gamma": "a"}}}, "learner.weighting.gamma: "),
        ({"learner": {"weighting": "focal"}}, "learner.weighting: got the text 'focal'; give a mapping, such as {"),
        ({"inner": {"proximl": 1.0}}, "inner.proximl: no setting of the inner loop is named 'proximl'; did you mean"),
        ({"outer": {"hypergradent": "unroll"}}, "outer.hypergradent: no setting of the outer loop is named"),
        ({"outer": {"hypergradient": {"kind": "unrol"}}}, "outer.hypergradient.kind: no hypergradient estimator"),
    ],
)
def test_what_a_recipe_misspells_is_said_of_the_method_that_is_asked_for(monkeypatch, recipe, told):
    monkeypatch.setitem(METHODS._entries, "ours", Recipe(summary="", paper="", **recipe))
    with pytest.raises(ExperimentError) as caught:
        Experiment(tasks="glyphs", learner={"method": "ours", "initialization": "learn"})
    first = caught.value.problems[0]
    assert first.path == ("learner", "method")
    assert f"the recipe of 'ours' is wrong: {told}" in first.message
