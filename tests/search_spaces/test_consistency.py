"""What contradicts something else is refused, with what to do about it."""

import itertools

import pytest

from metaloom import Experiment
from metaloom.learners import ESTIMATORS, METHODS
from metaloom.search_spaces.consistency import grid_size
from metaloom.search_spaces.errors import ExperimentError
from metaloom.search_spaces.sections.settings import Objective
from metaloom.workers.records import names as records


def complaint(**sections) -> str:
    with pytest.raises(ExperimentError) as caught:
        Experiment(**{"tasks": "glyphs", "learner": "maml", **sections})
    assert len(caught.value.problems) == 1, caught.value
    return str(caught.value)


def sound(**sections) -> Experiment:
    return Experiment(**{"tasks": "glyphs", "learner": "maml", **sections})


RATE = {"method": "maml", "update": {"rate": {"search": [0.1, "learn"]}}}
BLIND_TO_RATES = [kind for kind, estimator in ESTIMATORS.items() if not estimator.gives_signal("update")]


@pytest.mark.parametrize("kind", BLIND_TO_RATES)
def test_an_estimator_that_gives_a_learned_rate_no_signal_is_refused(kind):
    message = complaint(learner=RATE, outer={"hypergradient": kind})
    assert f"{kind} gives no signal to learner." in message
    assert "learner.update.rate[learn], which " in message
    assert "learned; choose one of auto, " in message and "or fix or search it" in message


def test_first_order_is_among_the_blind():
    assert {"first_order", "displacement"} <= set(BLIND_TO_RATES)


def test_a_start_that_is_declared_to_have_a_signal_is_let_through():
    assert "truncated gives no signal to learner.initialization" in complaint(outer={"hypergradient": "truncated"})
    sound(outer={"hypergradient": {"kind": "truncated", "first_order_start": True}})


def test_a_recipes_estimator_is_checked_too():
    learner = {"method": "first_order_maml", "update": {"rate": "learn"}}
    assert "first_order gives no signal to learner.update.rate" in complaint(learner=learner)
    sound(learner=learner, outer={"hypergradient": "unroll"})


def test_a_learned_weighting_needs_a_signal():
    learner = {"method": "maml", "weighting": "learn"}
    assert "no signal to learner.weighting" in complaint(learner=learner, outer={"hypergradient": "first_order"})


@pytest.mark.parametrize("kind", ["conjugate_gradient", "neumann"])
def test_an_implicit_gradient_of_the_initialization_needs_a_proximal_term(kind):
    message = complaint(outer={"hypergradient": {"search": ["unroll", kind]}})
    assert message.startswith(f"outer.hypergradient.search[1]: {kind} gives no signal to learner.initialization")
    assert "inner.proximal above 0" in message
    sound(outer={"hypergradient": kind}, inner={"proximal": 0.1})
    sound(outer={"hypergradient": kind}, inner={"proximal": "search"})
    sound(outer={"hypergradient": kind}, learner={"initialization": "random", "weighting": "learn"})


def test_any_member_of_a_choice_is_checked():
    learner = {"search": ["maml", "meta_sgd"]}
    message = complaint(learner=learner, outer={"hypergradient": {"search": ["unroll", "first_order"]}})
    assert message.startswith(
        "outer.hypergradient.search[1]: first_order gives no signal to learner[meta_sgd].update.rate"
    )


@pytest.mark.parametrize("method", METHODS)
def test_every_recipe_agrees_with_itself(method):
    sound(learner=method)


def test_without_inner_steps_any_estimator_will_do():
    learner = {"method": "prototypical", "prediction": {"temperature": "learn"}}
    sound(learner=learner, outer={"hypergradient": "first_order"})


def test_a_grid_over_a_continuous_knob():
    message = complaint(learner={"method": "maml", "update": {"rate": "search"}}, search={"sampler": "grid"})
    assert "a grid cannot hold every value of a continuous knob (learner.update.rate); give a list" in message


def test_a_grid_over_nothing_or_too_much():
    assert "grid has nothing to search" in complaint(search={"sampler": "grid"})
    update = {"steps": "search", "evaluation_steps": "search"}
    learner = {"method": "maml", "update": update, "architecture": {"kind": "conv4", "channels": "search"}}
    assert "points, more than 100000" in complaint(learner=learner, search={"sampler": "grid"})


def test_the_size_of_a_grid_over_conditional_knobs():
    learner = {"search": [{"method": "maml", "update": {"steps": {"search": [1, 2, 3]}}}, "prototypical"]}
    experiment = sound(
        learner=learner, outer={"meta_batch": {"search": {"low": 1, "high": 4}}}, search={"sampler": "grid"}
    )
    assert grid_size(experiment.space) == (3 + 1) * 4


def test_cmaes_takes_a_number_and_one_objective():
    options = {"method": "maml", "update": {"adapt": "search"}}
    assert "cmaes adapts numbers, and only options are searched (learner.update.adapt)" in complaint(
        learner=options, search={"sampler": "cmaes"}
    )
    sound(learner={"method": "maml", "update": {"rate": "search", "adapt": "search"}}, search={"sampler": "cmaes"})
    numbers = {"method": "maml", "update": {"rate": "search"}}
    several = {"sampler": "cmaes", "objectives": ["validation_accuracy", "seconds"]}
    assert "cmaes takes one objective" in complaint(learner=numbers, search=several)
    sound(learner=numbers, search={"sampler": "cmaes"})


@pytest.mark.parametrize("kind", ["asha", "hyperband", "median", "paired"])
def test_several_objectives_and_a_scheduler(kind):
    search = {"scheduler": kind, "objectives": ["validation_accuracy", "parameters"]}
    assert f"{kind} ranks trials by one objective" in complaint(search=search)


def test_pbt_needs_a_population_with_something_to_perturb():
    rate = {"rate": "search"}
    pbt = {"scheduler": "pbt"}
    sound(outer=rate, search=pbt)
    assert "no continuous knob is searched" in complaint(search=pbt)
    assert "at least 4 trials, got search.trials 2" in complaint(outer=rate, search={**pbt, "trials": 2})
    learner = {"method": "maml", "architecture": {"kind": "conv4", "channels": "search"}}
    assert "same shape; fix learner.architecture.channels" in complaint(learner=learner, outer=rate, search=pbt)


def test_paired_needs_the_same_episodes():
    tasks = {"source": "glyphs", "shots": {"search": [1, 5]}}
    assert "the tasks are searched (tasks.shots)" in complaint(tasks=tasks, search={"scheduler": "paired"})


@pytest.mark.parametrize("part", ["objectives", "constraints"])
def test_regression_has_no_accuracy(part):
    one = {"objectives": "validation_accuracy", "constraints": {"metric": "validation_accuracy", "min": 0.5}}[part]
    assert "regression has no validation_accuracy; judge by validation_loss" in complaint(
        tasks="sinusoid", search={part: [one]}
    )


def test_objectives_are_metrics_that_trials_report():
    metrics = Objective.model_fields["metric"].annotation.__args__
    assert set(metrics) >= records.MAXIMIZED
    for metric in metrics:
        direction = Objective.model_validate(metric).direction
        assert (direction == "maximize") == (metric in records.MAXIMIZED)


@pytest.mark.parametrize(
    ("sampler", "scheduler"),
    itertools.product(
        ["random", "tpe", "gp", "nsga2", "evolution"], ["none", "asha", "hyperband", "median", "paired", None]
    ),
)
def test_every_sampler_goes_with_every_scheduler(sampler, scheduler):
    search = sound(outer={"rate": "search"}, search={"sampler": sampler, "scheduler": scheduler}).search
    assert search.sampler["kind"] == sampler and search.scheduler["kind"] == (scheduler or "none")


def test_sizes_are_read_as_bytes():
    assert sound(resources={"memory": "1.5GB"}).resources.memory == 1_500_000_000
    assert sound(resources={"memory": "2 GiB"}).resources.memory == 2 * 2**30
    assert sound(resources={"memory": 1000}).resources.memory == 1000


def test_an_estimator_that_the_inner_loop_cannot_have_is_not_advised():
    told = complaint(learner="first_order_maml", outer={"hypergradient": "one_step"})
    assert "choose one of auto" in told and "evolution_strategies" in told
    assert "persistent_evolution_strategies" not in told


@pytest.mark.parametrize(("kind", "name"), [("adam", "beta1"), ("adamw", "beta2"), ("rmsprop", "smoothing")])
def test_what_a_running_mean_keeps_is_a_share(kind, name):
    for wrong in (1.03, -0.1):
        message = complaint(learner={"method": "maml", "update": {"kind": kind, name: wrong}})
        assert message.startswith(f"learner.update.{name}: ") and str(wrong) in message
