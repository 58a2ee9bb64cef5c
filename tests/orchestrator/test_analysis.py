"""Importances are Optuna's, with the errors over seeds; rungs are those at which the scheduler judges."""

import random
import statistics
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import distribution_to_json

from metaloom.dashboards import queries
from metaloom.dashboards.analysis import ImportanceEstimate
from metaloom.learners.errors import BadInput
from metaloom.orchestrator.analysis import SEEDS, TREES, SearchAnalysis, resampled
from metaloom.orchestrator.proposing import importance
from metaloom.workers.records import names as records
from metaloom.workers.records.search import SearchRecord
from tests.dashboards.conftest import Write, report, story
from tests.dashboards.conftest import write_search as write_search

DISTRIBUTIONS = {
    "rate": optuna.distributions.FloatDistribution(1e-3, 1.0, log=True),
    "method": optuna.distributions.CategoricalDistribution(("maml", "reptile")),
}
TRIALS = 30
METRIC = records.VALIDATION_ACCURACY


def knobs_and_values() -> list[tuple[dict[str, Any], float]]:
    """Return knobs of which the rate decides most, and the method a little."""
    draws = random.Random(0)
    knobs = [{"rate": 10 ** draws.uniform(-3, 0), "method": draws.choice(("maml", "reptile"))} for _ in range(TRIALS)]
    return [(one, round(0.5 + one["rate"] / 3 + 0.02 * (one["method"] == "maml"), 6)) for one in knobs]


@pytest.fixture
def search(tmp_path: Path, write_search: Write) -> SearchRecord:
    drawn = knobs_and_values()
    told = story({number: value for number, (_, value) in enumerate(drawn)})
    given = {name: distribution_to_json(one) for name, one in DISTRIBUTIONS.items()}
    for kind, trial, payload in told:
        if kind == records.TRIAL_SUGGESTED and trial is not None:
            payload.update(knobs=drawn[trial][0], params=drawn[trial][0], distributions=given)
    write_search("first", told)
    return queries.search_record(tmp_path, "first")


def whole(search: SearchRecord, method: str, work: SearchAnalysis | None = None) -> ImportanceEstimate:
    """Return the importances when all seeds are evaluated."""
    work, deadline = work or SearchAnalysis(), time.monotonic() + 60
    while time.monotonic() < deadline:
        found = work.importances("first", search, metric=METRIC, method=method)
        if found.seeds == found.asked:
            return found
        time.sleep(0.05)
    raise AssertionError("the seeds were not evaluated within a minute")


def study() -> optuna.Study:
    made = optuna.create_study(direction="maximize")
    for knobs, value in knobs_and_values():
        made.add_trial(optuna.trial.create_trial(params=knobs, distributions=DISTRIBUTIONS, value=value))
    return made


def test_ped_anova_is_that_of_all_trials_with_the_deviation_of_resamples(search: SearchRecord) -> None:
    found = whole(search, "ped-anova")
    assert {one.knob: one.share for one in found.knobs} == pytest.approx(
        optuna.importance.get_param_importances(study())
    )
    assert found.trials == TRIALS and found.asked == SEEDS["ped-anova"] and not found.problem
    draws = []
    for seed in range(SEEDS["ped-anova"]):
        other = optuna.create_study(direction="maximize")
        other.add_trials(resampled(study().trials, random.Random(seed)))
        draws.append(optuna.importance.get_param_importances(other))
    for one in found.knobs:
        assert one.by_seed == pytest.approx([draw[one.knob] for draw in draws])
        assert one.error == pytest.approx(statistics.stdev(draw[one.knob] for draw in draws))


def test_fanova_is_the_mean_of_its_forests(search: SearchRecord) -> None:
    found = whole(search, "fanova")
    evaluators = [
        optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, seed=seed) for seed in range(SEEDS["fanova"])
    ]
    forests = [optuna.importance.get_param_importances(study(), evaluator=one) for one in evaluators]
    for one in found.knobs:
        assert one.by_seed == pytest.approx([forest[one.knob] for forest in forests])
        assert one.share == pytest.approx(statistics.fmean(forest[one.knob] for forest in forests))
    shares = {one.knob: one.share for one in found.knobs}
    assert shares["rate"] > 0.8 > shares["method"]


def test_seeds_are_evaluated_once_for_the_same_trials(search: SearchRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    work = SearchAnalysis()
    first = whole(search, "ped-anova", work)
    monkeypatch.setattr(importance, "explained", None)  # it would be called for another evaluation
    assert whole(search, "ped-anova", work) == first


def test_what_is_too_little_is_a_problem_in_words(search: SearchRecord) -> None:
    search.trials = {number: trial for number, trial in search.trials.items() if number < 1}
    found = SearchAnalysis().importances("first", search, metric=METRIC, method="ped-anova")
    assert found.knobs == () and "needs at least 2 finished trials of different values" in found.problem
    with pytest.raises(BadInput, match="did you mean 'fanova'"):
        SearchAnalysis().importances("first", search, metric=METRIC, method="fanov")


def test_two_trials_are_enough(search: SearchRecord) -> None:
    search.trials = {number: trial for number, trial in search.trials.items() if number < 2}
    found = whole(search, "ped-anova")
    assert found.problem or found.seeds == SEEDS["ped-anova"]


@pytest.mark.parametrize(
    ("scheduler", "rungs"),
    [
        ({"kind": "none"}, []),
        ({"kind": "asha"}, [10]),  # from the first report on
        ({"kind": "asha", "grace_steps": 2, "reduction_factor": 3}, [2, 6, 18]),
        ({"kind": "hyperband", "grace_steps": 5, "reduction_factor": 2, "brackets": 2}, [5, 10, 20]),
        ({"kind": "paired", "grace_steps": 6}, [6, 12]),
        ({"kind": "of a plugin"}, []),
    ],
)
def test_rungs_are_those_that_were_reached(
    tmp_path: Path, write_search: Write, scheduler: dict[str, Any], rungs: list[int]
) -> None:
    write_search("first", story({0: 0.1, 1: 0.2}), scheduler=scheduler)
    write_search("begun", [], scheduler=scheduler)
    assert list(SearchAnalysis().rungs(queries.search_record(tmp_path, "first"))) == rungs
    assert list(SearchAnalysis().rungs(queries.search_record(tmp_path, "begun"))) == []


def test_a_trial_is_stopped_at_a_rung(tmp_path: Path, write_search: Write) -> None:
    from metaloom.orchestrator.scheduling.base import STOP, build_scheduler

    told = story({0: 0.9, 1: 0.8, 2: 0.7})[:-1]
    told[-1] = (records.TRIAL_REPORTED, 2, {"report": report(20, 0.1)})
    write_search("first", told, scheduler={"kind": "asha", "grace_steps": 20})
    search = queries.search_record(tmp_path, "first")
    assert search.settings is not None
    verdict = build_scheduler(search.settings.scheduler).judge(search, search.trials[2])
    assert verdict.action == STOP
    (rung,) = SearchAnalysis().rungs(search)
    assert verdict.reason.endswith(f"at rung {rung}")
