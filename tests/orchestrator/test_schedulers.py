"""Schedulers on reports made by hand: the rule, and nothing but the journal."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
import scipy.stats

from metaloom.learners.errors import BadInput
from metaloom.orchestrator.executors.inline import InlineExecutor
from metaloom.orchestrator.interruption import Interruption
from metaloom.orchestrator.scheduling.base import CONTINUE, PAUSE, STOP, build_scheduler
from metaloom.orchestrator.scheduling.stopping import paired_t
from metaloom.search_spaces.sections.settings import Objective, SearchSettings
from metaloom.search_spaces.sections.strategies import schedulers
from metaloom.testing import SchedulerContract, toy
from metaloom.workers.records import names as records
from metaloom.workers.records.search import SearchRecord, TrialRecord
from metaloom.workers.records.trial import Report


def report(step: int, accuracy: float, scores: Sequence[float] = (), *, finished: bool = False) -> Report:
    scores = tuple(scores) or (accuracy,) * 4
    return Report(step, {records.VALIDATION_ACCURACY: accuracy}, (0.0, 1.0), scores, 0, 0.0, finished)


def trial(number: int, *reports: Report, state: str = records.RUNNING) -> TrialRecord:
    return TrialRecord(number, state, {}, {}, {}, "random", None, reports=list(reports))


def state(*trials: TrialRecord, wanted: int = 9) -> SearchRecord:
    made = SearchRecord()
    made.settings = SearchSettings(trials=wanted, objectives=(Objective.model_validate(records.VALIDATION_ACCURACY),))
    made.trials = {one.number: one for one in trials}
    return made


def judge(section: dict[str, Any], *trials: TrialRecord) -> str:
    """Judge the last of the trials."""
    return build_scheduler(section).judge(state(*trials), trials[-1]).action


class TestSchedulers(SchedulerContract):
    rows = {
        "none": {},
        "asha": {"grace_steps": 2},
        "hyperband": {"grace_steps": 1, "brackets": 2},
        "median": {"grace_steps": 2, "startup_trials": 2},
        "paired": {},
        "pbt": {"interval_steps": 3},
    }

    def test_every_scheduler_has_a_row(self) -> None:
        assert set(self.rows) == set(schedulers())


@pytest.mark.parametrize("section", [{"kind": "ashes"}, {"kind": "asha", "grace": 3}])
def test_what_does_not_exist_is_refused_with_its_nearest_spelling(section: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="did you mean"):
        build_scheduler(section)


def test_asha_keeps_the_best_third_at_each_rung() -> None:
    asha = {"kind": "asha", "grace_steps": 10, "reduction_factor": 3}
    seen = [trial(i, report(10, value)) for i, value in enumerate((0.1, 0.2, 0.3, 0.4, 0.5, 0.6))]
    assert judge(asha, *seen, trial(6, report(10, 0.55))) == CONTINUE
    assert judge(asha, *seen, trial(6, report(10, 0.3))) == STOP
    assert judge(asha, *seen, trial(6, report(9, 0.3))) == CONTINUE  # not at a rung yet
    assert judge(asha, *seen, trial(6, report(10, 0.9), report(20, 0.0))) == CONTINUE  # between rungs
    assert judge(asha, trial(0, report(10, 0.0))) == CONTINUE  # nobody to compare with


def test_asha_without_grace_steps_has_its_first_rung_at_the_first_validation() -> None:
    seen = [trial(i, report(50, 0.9)) for i in range(3)]
    assert judge({"kind": "asha"}, *seen, trial(3, report(50, 0.1))) == STOP


def test_hyperband_compares_within_a_bracket_only() -> None:
    hyperband = {"kind": "hyperband", "grace_steps": 10, "reduction_factor": 3, "brackets": 2}
    good = [trial(i, report(10, 0.9)) for i in (0, 2, 4)]
    assert judge(hyperband, *good, trial(6, report(10, 0.1))) == STOP
    assert judge(hyperband, *good, trial(7, report(10, 0.1))) == CONTINUE
    others = [trial(i, report(30, 0.9)) for i in (1, 3)]
    assert judge(hyperband, *others, trial(7, report(30, 0.1))) == STOP


def test_median_compares_the_best_so_far_with_running_averages() -> None:
    median = {"kind": "median", "grace_steps": 10, "startup_trials": 3}
    seen = [trial(i, report(10, 0.2), report(20, 0.8)) for i in range(3)]
    assert judge(median, *seen, trial(3, report(10, 0.1), report(20, 0.4))) == STOP
    assert judge(median, *seen, trial(3, report(10, 0.6), report(20, 0.4))) == CONTINUE
    assert judge(median, *seen[:2], trial(3, report(20, 0.0))) == CONTINUE


def test_paired_stops_what_is_worse_on_the_same_episodes_though_the_intervals_overlap() -> None:
    hard = [0.1, 0.9, 0.4, 0.7, 0.2, 0.8, 0.3, 0.6]
    best = trial(0, report(10, 0.55, [one + 0.05 for one in hard]))
    worse = trial(1, report(10, 0.5, [one + 0.001 * (index % 2) for index, one in enumerate(hard)]))
    assert judge({"kind": "paired"}, best, worse) == STOP
    assert judge({"kind": "paired"}, worse, best) == CONTINUE
    same = trial(2, report(10, 0.55, [one + 0.05 + 0.04 * (-1) ** index for index, one in enumerate(hard)]))
    assert judge({"kind": "paired"}, best, same) == CONTINUE


def test_the_paired_test_is_students() -> None:
    ours, theirs = [0.2, 0.5, 0.9, 0.4], [0.3, 0.5, 1.0, 0.7]
    expected = scipy.stats.ttest_rel(theirs, ours, alternative="greater").pvalue
    assert paired_t([b - a for a, b in zip(ours, theirs, strict=True)]) == pytest.approx(expected, rel=1e-12)
    assert paired_t([0.0, 0.0]) == 1.0 and paired_t([0.1, 0.1]) == 0.0


def test_a_population_waits_for_its_generation_and_the_worst_takes_over_from_the_best() -> None:
    pbt = build_scheduler({"kind": "pbt", "interval_steps": 10, "quantile": 0.25})
    population = [trial(i, report(10, 0.1 * i), state=records.WAITING) for i in range(4)]
    assert pbt.judge(state(*population), population[0]).action == PAUSE
    alone = state(*population[:3], wanted=4)
    assert not pbt.exploits(alone, seed=0) and not pbt.may_start(alone, population[0])
    (exploit,) = pbt.exploits(state(*population, wanted=4), seed=0)
    assert (exploit.trial, exploit.donor, exploit.step, exploit.generation) == (0, 3, 10, 1)
    population[0].generation = 1
    assert not pbt.exploits(state(*population, wanted=4), seed=0)
    assert pbt.may_start(state(*population, wanted=4), population[0])


@pytest.mark.parametrize("seed", range(20))
def test_no_two_of_a_generation_take_over_the_same(seed: int) -> None:
    rate = optuna.distributions.distribution_to_json(optuna.distributions.FloatDistribution(1e-6, 1e6, log=True))
    population = [trial(i, report(10, 0.1 * i), state=records.WAITING) for i in range(12)]
    for one in population:
        one.params, one.distributions = {"rate": 0.1}, {"rate": rate}
    pbt = build_scheduler({"kind": "pbt", "interval_steps": 10, "quantile": 0.5})
    exploits = pbt.exploits(state(*population, wanted=12), seed=seed)
    assert len({(one.donor, one.params["rate"]) for one in exploits}) == len(exploits) == 6


def test_a_population_really_takes_over_checkpoints_and_perturbs_real_knobs(tmp_path: Path) -> None:
    director = toy.direct(tmp_path / "s", scheduler={"kind": "pbt", "interval_steps": 3}, trials=8)
    InlineExecutor(Interruption()).run(director, toy.open_toy)
    moved = [event for event in director.journal.events() if event.kind == records.TRIAL_EXPLOITED]
    assert len(moved) == 4  # a quarter of eight, twice: at steps 3 and 6
    for event in moved:
        donor = director.state.trials[event.payload["donor"]]
        assert event.payload["params"]["learner.method"] == donor.params["learner.method"]
        assert 0.01 <= event.payload["params"]["rate"] <= 0.9
    taken = moved[-1]
    before = director.state.trials[taken.payload["donor"]].report_at(taken.payload["step"])
    after = director.state.trials[taken.trial or 0].report_at(taken.payload["step"] + 1)
    assert before is not None and after is not None
    weight = before.metrics[records.VALIDATION_LOSS]
    rate = taken.payload["params"]["rate"]
    width = taken.payload["params"].get("wide.width", 8)
    assert after.metrics[records.VALIDATION_LOSS] == pytest.approx(abs(weight - rate * weight + 1e-3 * width))
