"""Recipes under the user's values, choices among methods, and the plain settings that come out."""

import itertools
import json
from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaloom import Experiment
from metaloom.learners import ESTIMATORS, METHODS, SLOTS, InnerConfig
from metaloom.learners.domains import Choice, Int
from metaloom.learners.fields import fields_of, make_config
from metaloom.learners.outer import OuterConfig
from metaloom.search_spaces.resolve import Given, Suggest, baseline, baseline_name, defaults, resolve, searched_knobs


def resolved(learner, tasks="glyphs", **sections):
    experiment = Experiment(tasks=tasks, learner=learner, **sections)
    return resolve(experiment, defaults(experiment))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_resolves_to_complete_json(method):
    result = resolved(method)
    assert json.loads(json.dumps(vars(result))) == vars(result)
    assert result.learner["method"] == method
    for name, slot in SLOTS.items():
        if name in result.learner:
            component = slot.registry[result.learner[name].pop("kind")]
            make_config(component.Config, result.learner[name], name)
            assert set(result.learner[name]) == {field.name for field in fields(component.Config)}
    make_config(InnerConfig, result.inner, "inner")
    estimator = result.outer.pop("hypergradient")
    kind = estimator.pop("kind")
    if kind != "auto":
        make_config(ESTIMATORS[kind].Config, estimator, "hypergradient")
    make_config(OuterConfig, result.outer, "outer")
    assert set(result.learner) - {"method", *SLOTS} == set()


@pytest.mark.parametrize("method", METHODS)
def test_every_recipe_arrives(method):
    result = resolved(method)
    for slot, settings_of_slot in METHODS[method].learner.items():
        for name, value in settings_of_slot.items():
            got = result.learner[slot][name]
            assert got == value or got["learn"].items() >= value["learn"].items()
    for name, value in METHODS[method].inner.items():
        assert result.inner[name] == value
    for name, value in METHODS[method].outer.items():
        assert result.outer[name] == value or result.outer[name].items() >= value.items()


@pytest.mark.parametrize("slot", SLOTS)
def test_every_component_can_be_read(slot):
    for component in SLOTS[slot].registry.values():
        fields_of(component.Config)


def test_the_users_values_win_over_the_recipes():
    update = resolved({"method": "meta_sgd", "update": {"rate": 0.1}}).learner["update"]
    assert (update["rate"], update["start_spread"], update["steps"]) == (0.1, 0.905, 1)
    update = resolved({"method": "meta_sgd", "update": {"rate": {"learn": {"start": 0.2}}}}).learner["update"]
    assert update["rate"] == {"learn": {"start": 0.2, "per": "parameter"}}


def test_another_kind_replaces_the_recipes_component():
    update = resolved({"method": "meta_sgd", "update": {"kind": "adam"}}).learner["update"]
    assert (update["kind"], update["rate"], update["steps"], update["start_spread"]) == ("adam", 0.001, 5, 0.0)
    weighting = {"method": "meta_weight_net", "weighting": "uniform"}
    assert resolved(weighting, "digits").learner["weighting"] == {"kind": "uniform"}


def test_one_word_learns_a_slot():
    assert resolved({"initialization": "learn"}).learner["initialization"] == {"kind": "learned"}
    learner = {"initialization": "learn", "weighting": {"learn": {"hidden": 7}}}
    assert resolved(learner).learner["weighting"].items() >= {"kind": "meta_weight_net", "hidden": 7}.items()


def test_regression_is_judged_by_the_squared_error():
    assert resolved("maml", "sinusoid").learner["loss"] == {"kind": "mse"}
    table = {"source": "table", "path": "x.csv", "label": "y", "kind": "regression", "task": "t"}
    assert resolved("maml", table).learner["loss"] == {"kind": "mse"}
    assert resolved("maml").learner["loss"]["kind"] == "cross_entropy"


def test_what_takes_no_steps_has_no_update():
    assert "update" not in resolved("prototypical").learner
    assert "update" in resolved("joint_pretraining").learner


CONDITIONAL = {
    "search": [
        {"method": "maml", "update": {"rate": "search", "steps": {"search": [1, 3]}}},
        {"method": "maml", "weighting": {"search": ["uniform", {"kind": "focal", "gamma": "search"}, "learn"]}},
        {"search": [{"method": "anil", "update": {"steps": "search"}}, "prototypical"]},
        {
            "initialization": "learn",
            "update": {"kind": {"search": ["sgd", "adam"]}, "rate": {"search": [0.1, "learn"]}},
        },
    ]
}


def test_names_of_knobs_say_where_they_live():
    experiment = Experiment(
        tasks={"source": "glyphs", "shots": "search"}, learner=CONDITIONAL, outer={"rate": "search"}
    )
    assert list(searched_knobs(experiment)) == [
        "tasks.shots",
        "learner",
        "learner[maml(update.rate=search; update.steps=search)].update.rate",
        "learner[maml(update.rate=search; update.steps=search)].update.steps",
        "learner[maml(weighting=search)].weighting",
        "learner[maml(weighting=search)].weighting[focal].gamma",
        "learner[search]",
        "learner[search][anil].update.steps",
        "learner[own].update",
        "learner[own].update[sgd].rate",
        "learner[own].update[adam].rate",
        "outer.rate",
    ]


class Drawn(Suggest):
    """Draws from hypothesis, and refuses to be asked twice."""

    def __init__(self, data):
        self.data, self.asked = data, {}

    def value(self, name, domain):
        assert name not in self.asked
        if isinstance(domain, Choice):
            drawn = st.sampled_from(domain.options)
        else:
            drawn = (st.integers if isinstance(domain, Int) else st.floats)(domain.low, domain.high)
        self.asked[name] = value = self.data.draw(drawn)
        return value


@settings(deadline=None)
@given(st.data())
def test_any_suggestion_resolves_to_a_whole_trial_and_replays(data):
    experiment = Experiment(tasks="glyphs", learner=CONDITIONAL, outer={"rate": "search"}, inner={"proximal": "search"})
    suggest = Drawn(data)
    result = resolve(experiment, suggest)
    assert result.knobs == suggest.asked
    assert set(result.knobs) <= set(searched_knobs(experiment))
    assert '"search"' not in json.dumps([result.learner, result.inner, result.outer])
    replayed = resolve(experiment, Given(json.loads(json.dumps(result.knobs)), defaults(experiment)))
    assert replayed == result


def test_given_falls_back_where_a_value_does_not_fit():
    experiment = Experiment(tasks="glyphs", learner={"method": "maml", "update": {"rate": "search", "steps": "search"}})
    knobs = {"learner.update.rate": 7.0, "learner.update.steps": 2, "unheard.of": 1}
    result = resolve(experiment, Given(knobs, defaults(experiment)))
    assert result.knobs == {"learner.update.rate": 0.01, "learner.update.steps": 2}


def test_the_recipe_of_the_chosen_method_fills_inner_and_outer():
    experiment = Experiment(tasks="glyphs", learner={"search": ["reptile", "imaml"]}, outer={"steps": 3})
    for method in ("reptile", "imaml"):
        result = resolve(experiment, Given({"learner": method}, defaults(experiment)))
        recipe = METHODS[method]
        assert result.outer["hypergradient"]["kind"] == recipe.outer["hypergradient"]["kind"]
        assert result.outer["steps"] == 3
        assert result.inner["proximal"] == recipe.inner.get("proximal", 0.0)


def test_an_estimator_may_be_searched_with_its_settings():
    estimators = {"search": ["unroll", {"kind": "neumann", "terms": {"search": [3, 9]}}]}
    experiment = Experiment(tasks="glyphs", learner="imaml", outer={"hypergradient": estimators})
    knobs = searched_knobs(experiment)
    assert list(knobs) == ["outer.hypergradient", "outer.hypergradient[neumann].terms"]
    given_knobs = {"outer.hypergradient": "neumann", "outer.hypergradient[neumann].terms": "9"}
    result = resolve(experiment, Given(given_knobs, defaults(experiment)))
    assert result.outer["hypergradient"].items() >= {"kind": "neumann", "terms": 9}.items()


def test_equal_experiments_resolve_equally_in_any_process():
    experiment = Experiment(tasks="glyphs", learner=CONDITIONAL)
    assert resolve(experiment, defaults(experiment)) == resolve(experiment, defaults(experiment))


def test_a_resolved_trial_does_not_share_its_lists():
    experiment = Experiment(tasks="glyphs", learner={"method": "maml", "architecture": {"kind": "mlp", "hidden": [3]}})
    first, second = (resolve(experiment, defaults(experiment)) for _ in range(2))
    first.learner["architecture"]["hidden"].append(4)
    assert second.learner["architecture"]["hidden"] == [3]


@pytest.mark.parametrize("method", ["nearest_neighbour", "fine_tuning", "joint_pretraining"])
def test_a_baseline_keeps_the_tasks_and_the_network(method):
    architecture = {"kind": "conv4", "channels": {"search": {"low": 8, "high": 16, "default": 12}}}
    experiment = Experiment(
        tasks={"source": "glyphs", "ways": 7},
        learner={"search": [{"method": "maml", "architecture": architecture}, "prototypical"]},
        outer={"steps": 9, "rate": "search", "hypergradient": "unroll", "validate_every": 3},
    )
    result = baseline(experiment, method)
    assert result.learner["method"] == method
    network = result.learner.get("architecture", {})
    used = {} if method == "nearest_neighbour" else {"kind": "conv4", "channels": 12}  # that solver has no network
    assert {name: network.get(name) for name in used} == used and bool(network) == bool(used)
    assert result.tasks["ways"] == 7 and result.knobs == {}
    assert result.outer["steps"] == METHODS[method].outer.get("steps", 9)
    assert result.outer["validate_every"] == 3
    assert result.outer["rate"] == 0.001


def test_a_baseline_learns_nothing_with_the_experiment():
    """It would be no baseline: of the network and the loss it keeps what is not learned."""
    learned_loss = {"kind": "cross_entropy", "label_smoothing": "learn"}
    for slot, filled in (("loss", "ml3"), ("loss", [learned_loss, "cross_entropy"]), ("architecture", "cells")):
        experiment = Experiment(tasks={"source": "digits", "flat": False}, learner={"method": "darts", slot: filled})
        kept = baseline(experiment, "cross_entropy").learner
        assert (kept["loss"], kept["architecture"]["kind"]) == (
            {"kind": "cross_entropy", "label_smoothing": 0.0},
            "mlp",
        )


def test_a_baseline_may_be_written_out():
    experiment = Experiment(tasks={"source": "digits", "flat": False}, learner={"method": "darts"}, outer={"steps": 9})
    asked = {"method": "cross_entropy", "architecture": {"kind": "convnet", "channels": 8}, "weighting": "focal"}
    result = baseline(experiment, asked)
    assert baseline_name(asked) == "cross_entropy, architecture=convnet, weighting=focal"
    assert (result.learner["method"], result.outer["steps"]) == ("cross_entropy", 9)
    assert (result.learner["architecture"]["channels"], result.learner["weighting"]["kind"]) == (8, "focal")


def test_a_baseline_of_given_knobs_is_the_experiment_with_the_others_at_their_defaults():
    update = {"rate": {"search": {"low": 0.01, "high": 1.0, "default": 0.1}}, "steps": {"search": [1, 2]}}
    experiment = Experiment(tasks="glyphs", learner={"method": "maml", "update": update}, outer={"steps": 9})
    result = baseline(experiment, {"learner.update.steps": 2})
    assert result.knobs == {"learner.update.rate": 0.1, "learner.update.steps": "2"}
    assert (result.learner["method"], result.learner["update"]["steps"], result.outer["steps"]) == ("maml", 2, 9)


def test_baselines_are_named_by_their_method_or_their_knobs():
    given_knobs = {"learner.update.rate": 0.5, "learner.loss": "mse"}
    asked = ["fine_tuning", given_knobs, {}]
    assert [baseline_name(one) for one in asked] == [
        "fine_tuning",
        "learner.update.rate=0.5, learner.loss=mse",
        "defaults",
    ]


def test_every_option_of_a_grid_is_reached():
    learner = {"search": [{"method": "maml", "update": {"steps": {"search": [1, 2]}}}, "prototypical"]}
    experiment = Experiment(tasks="glyphs", learner=learner, outer={"meta_batch": {"search": [1, 4]}})
    seen = set()
    for method, steps, tasks in itertools.product(("maml", "prototypical"), ("1", "2"), ("1", "4")):
        knobs = {"learner": method, "learner[maml].update.steps": steps, "outer.meta_batch": tasks}
        seen.add(tuple(resolve(experiment, Given(knobs, defaults(experiment))).knobs.items()))
    assert len(seen) == 6
