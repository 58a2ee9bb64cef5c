"""A search's events add up to one record, by which trials are ranked and shown alike."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaloom.learners.errors import BadInput
from metaloom.search_spaces.sections.settings import Constraint, Objective, SearchSettings
from metaloom.workers.records import names, ranking
from metaloom.workers.records.journal import Event, RecordsError
from metaloom.workers.records.search import SearchRecord, TrialRecord
from metaloom.workers.records.trial import Report

AIMS = tuple(map(Objective.model_validate, (names.VALIDATION_ACCURACY, names.PARAMETERS)))
SUGGESTED = {"knobs": {"a": 1}, "params": {"a": 1}, "distributions": {}, "sampler": "tpe", "config": None}


def report(step: int, accuracy: float, **more: Any) -> Report:
    return Report(step, {names.VALIDATION_ACCURACY: accuracy, names.PARAMETERS: 1.0}, (0, 1), (), 0, 0.0, False, **more)


def replayed(*events: tuple[str, int | None, dict[str, Any]]) -> SearchRecord:
    settings = SearchSettings(trials=3, objectives=AIMS).to_document()
    told = [(names.SEARCH_CREATED, None, {"settings": settings, "seed": 0}), *events]
    return SearchRecord.replay(Event(n + 1, 100.0 + n, trial, kind, load) for n, (kind, trial, load) in enumerate(told))


def record(*trials: TrialRecord, constraints: tuple[Constraint, ...] = ()) -> SearchRecord:
    settings = SearchSettings(trials=9, objectives=AIMS, constraints=constraints)
    return SearchRecord(settings=settings, trials={trial.number: trial for trial in trials})


def bound(metric: str, low: float | None = None, high: float | None = None) -> Constraint:
    return Constraint.model_validate({"metric": metric, "min": low, "max": high})


def test_a_trial_goes_through_its_states() -> None:
    begun = [
        (names.TRIAL_SUGGESTED, 0, SUGGESTED),
        (names.TRIAL_STARTED, 0, {"attempt": 1}),
        (names.TRIAL_REPORTED, 0, {"report": report(2, 0.5, notes=("early",)).to_json()}),
        (names.TRIAL_INTERRUPTED, 0, {"reason": "its worker died", "lost": True}),
        (names.TRIAL_STARTED, 0, {"attempt": 2}),
        (names.TRIAL_WARNED, 0, {"warnings": ["damaged"]}),
    ]
    ended = (names.TRIAL_STOPPED, 0, {"reason": "worse", "values": {names.VALIDATION_ACCURACY: 0.5}})
    trial = replayed(*begun).trials[0]
    assert (trial.state, trial.attempts, trial.lost, trial.reason) == (names.RUNNING, 2, 1, None)
    trial = replayed(*begun, ended).trials[0]
    assert (trial.state, trial.ended, trial.warnings) == (names.STOPPED, True, ["damaged"])
    assert trial.notes == ["early", "stopped: worse"] and trial.error is None


def test_a_report_of_the_same_step_replaces_the_earlier_one_and_its_notes() -> None:
    reports = [report(2, 0.5, notes=("first",)), report(4, 0.6), report(2, 0.7, notes=("second",))]
    events = [(names.TRIAL_REPORTED, 0, {"report": one.to_json()}) for one in reports]
    trial = replayed((names.TRIAL_SUGGESTED, 0, SUGGESTED), *events).trials[0]
    assert (trial.reports, trial.notes) == ([reports[2]], ["second"])  # step 4 is done again too


def test_what_a_trial_ended_with_is_its_last_report() -> None:
    values = {names.VALIDATION_ACCURACY: 0.5, names.PARAMETERS: 1.0}
    search = replayed(
        (names.TRIAL_SUGGESTED, 0, SUGGESTED),
        (names.TRIAL_REPORTED, 0, {"report": report(2, 0.5).to_json()}),
        (names.TRIAL_FINISHED, 0, {"values": values}),
    )
    trial = search.trials[0]
    assert {metric: ranking.value(search, trial, metric) for metric in values} == trial.values == values


def test_a_baseline_that_is_tested_again_replaces_its_earlier_test() -> None:
    tests = [{"method": method, "evaluation": {"mean": mean}} for method, mean in (("a", 1), ("b", 2), ("a", 3))]
    search = replayed(*[(names.BASELINE, None, one) for one in tests])
    assert search.baselines == [{"best_better_by": None, **one} for one in tests[1:]]


def test_an_event_of_a_newer_version_changes_nothing_and_a_damaged_one_is_named() -> None:
    assert replayed(("celebrated", 0, {}), ("celebrated", None, {})).trials == {}
    with pytest.raises(RecordsError, match=r"event 2 \(trial_started\) of the journal cannot be read: KeyError"):
        replayed((names.TRIAL_STARTED, 0, {}))


def test_the_time_between_sessions_does_not_count() -> None:
    begun, ended = (names.SEARCH_STARTED, None, {"pid": 1}), (names.SEARCH_ENDED, None, {"state": names.INTERRUPTED})
    search = replayed(begun, ended, ("paused", None, {}), begun)
    assert (search.elapsed_s, search.elapsed_at(110.0), search.updated_at) == (1.0, 7.0, 104.0)
    assert search.process == {"pid": 1, "time": 104.0}


@pytest.mark.parametrize(
    ("low", "high", "metrics", "violation"),
    [
        (1.0, None, {}, math.inf),  # what is absent keeps no bound, neither the lower nor the upper one
        (None, 1.0, {}, math.inf),
        (1.0, None, {"seconds": math.nan}, math.inf),
        (None, 1.0, {"seconds": math.nan}, math.inf),
        (1.0, 3.0, {"seconds": 2.0}, -1.0),
        (1.0, 3.0, {"seconds": 5.0}, 2.0),
    ],
)
def test_a_constraint_is_broken_by_so_much(
    low: float | None, high: float | None, metrics: dict[str, float], violation: float
) -> None:
    assert bound(names.SECONDS, low, high).violation(metrics) == violation


def test_an_objective_has_one_of_two_directions() -> None:
    odd = {"trials": 1, "objectives": [{"metric": names.TRAIN_LOSS, "direction": "maximise"}]}
    with pytest.raises(BadInput, match=r"objectives\[0\].direction: .* did you mean 'maximize'"):
        SearchSettings.from_document(odd)


def test_the_best_is_the_surest_that_keeps_the_constraints() -> None:
    running = TrialRecord(0, names.RUNNING, reports=[report(2, 0.9)])
    stopped = TrialRecord(1, names.STOPPED, reports=[report(2, 0.5)])
    finished = [
        TrialRecord(n, names.FINISHED, reports=[report(4, value)]) for n, value in ((2, 0.3), (3, 0.4), (4, 0.4))
    ]
    silent, odd = TrialRecord(5, names.FINISHED), TrialRecord(6, names.FINISHED, reports=[report(4, math.nan)])
    assert ranking.best(record(silent)) is None and ranking.best(SearchRecord()) is None
    for trials, number in (([running], 0), ([running, stopped], 1), ([running, stopped, *finished, silent, odd], 3)):
        best = ranking.best(record(*trials))
        assert best is not None and best.number == number
    assert ranking.best(record(running, stopped, constraints=(bound(names.VALIDATION_ACCURACY, 0.6),))) is None
    upper = (bound(names.VALIDATION_ACCURACY, None, 0.35),)
    assert [one.number for one in ranking.ranked(record(*finished, constraints=upper))] == [2, 3, 4]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=8))
def test_nothing_on_the_front_is_beaten_and_all_else_is(points: list[tuple[int, int]]) -> None:
    trials = [
        TrialRecord(
            n, names.FINISHED, reports=[Report(1, {AIMS[0].metric: a, AIMS[1].metric: b}, (0, 1), (), 0, 0.0, True)]
        )
        for n, (a, b) in enumerate(points)
    ]
    front = {trial.number for trial in ranking.pareto_front(record(*trials))}
    for n, (a, b) in enumerate(points):
        beaten = any(x >= a and y <= b and (x, y) != (a, b) for x, y in points)
        assert (n in front) == (not beaten)


def test_settings_survive_json() -> None:
    settings = SearchSettings(
        trials=3,
        objectives=AIMS,
        constraints=(bound(names.SECONDS, None, 2.0),),
        sampler={"kind": "gp"},
        time_budget_s=3.0,
    )
    assert SearchSettings.from_document(json.loads(json.dumps(settings.to_document()))) == settings
