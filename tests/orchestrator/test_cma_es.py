"""CMA-ES by branch: each adapts to its own optimum, by the ranks of its own trials, and survives what is degenerate."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import TrialState

from metaloom.learners.errors import BadInput
from metaloom.orchestrator.proposing.samplers.cma_es import BranchCMAES
from metaloom.orchestrator.proposing.study import OptunaSuggest
from metaloom.testing import bowls

CMAES = {"kind": "cmaes"}


class Numbers:
    """Resolves a space of the given numbers: (low, high, log), or (low, high) of a whole one."""

    knobs: Mapping[str, Any] = {}

    def __init__(self, **ranges: tuple[Any, ...]) -> None:
        self._ranges = ranges

    def __call__(self, suggest: Any) -> Any:
        for name, (low, high, *log) in self._ranges.items():
            suggest.real(name, low, high, *log) if log else suggest.integer(name, low, high, False)
        return self


def sampler(seed: int, define: Callable[[Any], Any]) -> BranchCMAES:
    """Return the sampler with its choices drawn at random."""
    at_random = optuna.samplers.RandomSampler(seed=seed)
    return BranchCMAES(seed=seed, define=define, independent=at_random, startup_trials=1, sigma=1 / 6)


def test_each_branch_adapts_a_shared_knob_to_its_own_optimum() -> None:
    """Under the two methods the best rate is 250 times another: one distribution for both would fit neither."""
    study = optuna.create_study()
    for number in range(160):
        study.sampler = sampler(number, bowls.Bowls())
        trial = study.ask()
        asked = OptunaSuggest(trial, {})
        bowls.Bowls()(asked)
        study.tell(trial, bowls.loss(asked.params))
    for method, best in (("flat", bowls.FLAT_RATE), ("deep", bowls.BEST["rate"])):
        rates = [math.log10(one.params["rate"]) for one in study.trials if one.params["method"] == method]
        assert abs(sorted(rates[-21:])[10] - math.log10(best)) < 0.3  # of a range of 4
        assert max(rates[-21:]) - min(rates[-21:]) < 1.5


def test_the_steps_shrink_around_a_quadratics_optimum() -> None:
    def judge(params: Mapping[str, Any]) -> float:
        return float((params["x"] - 0.3) ** 2 + 100 * (params["y"] + 2) ** 2)

    trials = bowls.Exploration(CMAES, define=Numbers(x=(-5.0, 5.0, False), y=(-5.0, 5.0, False)), judge=judge).run(180)
    losses = [sorted(one.loss for one in trials[first : first + 30])[15] for first in (0, 60, 150)]
    assert losses[1] < 0.1 * losses[0] and losses[2] < 0.01 * losses[1]
    assert trials[-1].params["x"] == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("flat", [True, False])
def test_few_whole_numbers_and_equal_losses_break_nothing(flat: bool) -> None:
    """Steps smaller than a whole number adapt to rounded points, which must neither overflow nor stop."""

    def judge(params: Mapping[str, Any]) -> float:
        return 0.0 if flat else float(params["n"] + params["m"])

    trials = bowls.Exploration(CMAES, define=Numbers(n=(1, 2), m=(0, 3)), judge=judge).run(250)
    seen = {one.params["n"] for one in trials}, {one.params["m"] for one in trials}
    assert seen[0] <= {1, 2} and seen[1] <= {0, 1, 2, 3}
    if flat:
        assert seen == ({1, 2}, {0, 1, 2, 3})
    else:
        assert sum(one.loss == 1 for one in trials[-50:]) > 25


def asked(trials: list[tuple[float, TrialState, float]]) -> float:
    """Return the mean of what is proposed after trials (x, state, violation) that all have the loss 0."""
    domain: dict[str, BaseDistribution] = {"x": FloatDistribution(0.0, 1.0)}
    proposals = []
    for seed in range(40):
        study = optuna.create_study()
        for x, state, violation in trials:
            study.add_trial(
                optuna.trial.create_trial(
                    state=state, params={"x": x}, distributions=domain, value=0.0, constraints={"size": violation}
                )
            )
        study.sampler = sampler(seed, Numbers(x=(0.0, 1.0, False)))
        proposals.append(study.ask().suggest_float("x", 0.0, 1.0))
    return sum(proposals) / len(proposals)


@pytest.mark.parametrize("worse", [(TrialState.PRUNED, 0.0), (TrialState.COMPLETE, 1.0)])
def test_stopped_trials_and_those_that_break_a_constraint_are_what_it_moves_away_from(
    worse: tuple[TrialState, float],
) -> None:
    good, bad = [0.75, 0.8], [0.2, 0.25]
    trials = [*((x, *worse) for x in bad), *((x, TrialState.COMPLETE, 0.0) for x in good)]
    assert asked(trials) > 0.65


def test_a_trial_of_another_range_is_of_no_branch() -> None:
    study = optuna.create_study()
    domain = {"x": FloatDistribution(0.0, 1.0)}
    study.add_trial(optuna.trial.create_trial(params={"x": 0.9}, distributions=domain, value=0.0))
    narrow, trial = sampler(0, Numbers(x=(0.0, 0.5, False))), study.trials[0]
    assert narrow.sample_relative(study, trial, narrow.infer_relative_search_space(study, trial)) == {}


def test_a_combination_that_does_not_fit_together_is_left_to_the_trial_to_tell() -> None:
    def define(suggest: Any) -> Any:
        suggest.real("x", 0.0, 1.0, False)
        raise BadInput("does not fit")

    study = optuna.create_study(sampler=sampler(0, define))
    assert 0.0 <= study.ask().suggest_float("x", 0.0, 1.0) <= 1.0
