"""Ranges with steps: every sampler keeps to them, from a file to the trial, also after a kill."""

import math
from collections.abc import Mapping
from typing import Any

import pytest

from metaloom.learners.domains import Int, Real
from metaloom.learners.errors import LearnerError
from metaloom.orchestrator.proposing.samplers.base import distribution_of
from metaloom.orchestrator.proposing.study import real_bounds
from metaloom.search_spaces.errors import ExperimentError
from metaloom.search_spaces.experiment import Experiment
from metaloom.search_spaces.knobs.sampling import holds
from metaloom.search_spaces.loading import load_experiment
from metaloom.search_spaces.resolve import defaults, resolve, searched_knobs
from metaloom.search_spaces.sections.strategies import samplers
from metaloom.testing import bowls

RATES, STEPS = [0.1, 0.1 + 0.2, 0.1 + 2 * 0.2, 0.1 + 3 * 0.2], [2, 5, 8]


class Stepped:
    """A space of two stepped knobs."""

    knobs: Mapping[str, Any] = {}

    def __call__(self, suggest: Any) -> Any:
        suggest.value("rate", Real(0.1, 0.7, step=0.2))
        suggest.value("steps", Int(2, 8, step=3))
        return self


def judge(params: Mapping[str, Any]) -> float:
    return abs(float(params["rate"]) - 0.5) + abs(int(params["steps"]) - 5)


@pytest.mark.parametrize("sampler", [kind for kind in samplers() if kind != "botorch"])
def test_every_sampler_keeps_to_the_steps_also_after_a_kill(sampler: str) -> None:
    whole, killed = (bowls.Exploration({"kind": sampler}, define=Stepped(), judge=judge) for _ in range(2))
    count = 12 if sampler == "grid" else 16
    killed.run(count // 2)
    killed.kill()
    trials = whole.run(count)
    assert killed.run(count - count // 2) == trials
    for trial in trials:
        assert any(math.isclose(trial.params["rate"], rate, abs_tol=1e-12) for rate in RATES)
        assert trial.params["steps"] in STEPS
    if sampler == "grid":
        assert len({(round(one.params["rate"], 9), one.params["steps"]) for one in trials}) == 12


def experiment(search: Any, knob: str = "rate") -> Experiment:
    update = {"kind": "sgd", knob: {"search": search}}
    return load_experiment({"tasks": "sinusoid", "learner": {"method": "maml", "update": update}})


@pytest.mark.parametrize(
    ("knob", "search", "domain", "default"),
    [
        ("rate", {"low": 0.1, "high": 0.7, "step": 0.2}, Real(0.1, 0.1 + 3 * 0.2, step=0.2), 0.1 + 0.2),
        ("rate", {"low": 0.1, "high": 0.75, "step": 0.2, "default": 0.3}, Real(0.1, 0.1 + 3 * 0.2, step=0.2), 0.3),
        ("momentum", {"low": 0.0, "high": 0.9, "step": 0.3}, Real(0.0, 0.9, step=0.3), 0.0),
        ("steps", {"low": 1, "high": 10, "step": 4}, Int(1, 9, step=4), 5),
    ],
)
def test_a_range_with_steps_is_read(knob: str, search: Any, domain: Real | Int, default: float) -> None:
    read = experiment(search, knob)
    found = searched_knobs(read)[f"learner.update.{knob}"]
    assert isinstance(found, Real | Int)
    assert (found.step, found.log) == (domain.step, False)
    assert found.high == pytest.approx(domain.high)
    assert resolve(read, defaults(read)).learner["update"][knob] == pytest.approx(default)
    assert holds(found, found.steps_to(found.high))
    again = Experiment(**read.document)
    assert again.fingerprint() == read.fingerprint()


def test_from_python_a_domain_with_steps_is_the_same_search() -> None:
    update = {"kind": "sgd", "rate": Real(0.1, 0.7, step=0.2)}
    read = Experiment(tasks="sinusoid", learner={"method": "maml", "update": update})
    assert read.fingerprint() == experiment({"low": 0.1, "high": 0.7, "step": 0.2}).fingerprint()
    assert read.fingerprint() != experiment({"low": 0.1, "high": 0.7}).fingerprint()


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"low": 0.1, "high": 0.7, "step": 0}, r"rate\.search\.step: got 0(\.0)?; allowed: .*above 0"),
        ({"low": 0.1, "high": 0.7, "step": 0.9}, r"rate\.search\.step: got 0\.9, more than from low 0\.1 to high 0\.7"),
        ({"low": 0.1, "high": 0.7, "step": 0.1, "log": True}, r"rate\.search\.step: a log range has no step"),
        ({"low": 0.1, "high": 0.7, "step": 0.2, "default": 0.2}, r"search\.default: got 0\.2; .* in steps of 0\.2"),
        ({"low": 0.1, "high": 0.7, "stp": 0.2}, r"no part of a range is named 'stp'; did you mean 'step'\?"),
    ],
)
def test_a_wrong_step_is_refused(search: Any, message: str) -> None:
    with pytest.raises(ExperimentError, match=message):
        experiment(search)


def test_a_domain_refuses_a_wrong_step() -> None:
    for wrong in ({"step": -0.1}, {"step": 9.0}, {"step": 0.1, "log": True}):
        with pytest.raises(LearnerError, match="step"):
            Real(0.1, 0.7, **wrong)
    with pytest.raises(LearnerError, match="step"):
        Int(1, 5, step=9)


def test_a_value_between_two_steps_is_not_in_the_domain() -> None:
    domain = Real(0.1, 0.7, step=0.2)
    assert [holds(domain, value) for value in (0.1, 0.3, 0.7, 0.4, 0.9)] == [True, True, True, False, False]
    assert [holds(Int(2, 8, step=3), value) for value in (2, 5, 8, 3, 11)] == [True, True, True, False, False]


def test_a_population_leaves_a_stepped_knob_as_it_is_and_needs_another() -> None:
    from optuna.distributions import distribution_to_json

    assert real_bounds(distribution_to_json(distribution_of(Real(0.1, 0.7, step=0.2)))) is None
    assert real_bounds(distribution_to_json(distribution_of(Real(0.1, 0.7)))) == (0.1, 0.7, False)
    learner = {"method": "maml", "update": {"rate": {"search": {"low": 0.1, "high": 0.7, "step": 0.2}}}}
    with pytest.raises(ExperimentError, match="no continuous knob is searched"):
        load_experiment({"tasks": "sinusoid", "learner": learner, "search": {"scheduler": "pbt"}})
