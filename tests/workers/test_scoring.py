"""Means have intervals, and every episode is scored alike, wherever and whenever."""

import math
import statistics

import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from metaloom.learners.state import LearnerState
from metaloom.workers.records.results import mean_interval
from metaloom.workers.scoring import evaluate_learner
from metaloom.workers.seeds import derive_generator
from tests.support.closed_form import SIGN, SINE, Ridge, Sines

SCORES = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=50)


def test_the_interval_is_the_textbooks():
    mean, low, high = mean_interval([1.0, 2.0, 3.0, 4.0])
    half = 3.1824463 * math.sqrt(5 / 3) / 2  # t of 3 degrees of freedom, by a printed table
    assert (mean, low, high) == pytest.approx((2.5, 2.5 - half, 2.5 + half))


@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=50))
def test_the_interval_is_students_and_that_of_an_accuracy_is_one_of_fractions(scores):
    error = statistics.stdev(scores) / math.sqrt(len(scores))
    expected = scipy.stats.t.interval(0.95, len(scores) - 1, statistics.fmean(scores), error or 1e-300)
    mean, low, high = mean_interval(scores)
    assert (low, high) == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert mean_interval(scores, metric="accuracy") == (mean, max(low, 0.0), min(high, 1.0))


@given(SCORES, st.randoms())
def test_the_order_of_episodes_does_not_matter(scores, random):
    shuffled = list(scores)
    random.shuffle(shuffled)
    assert mean_interval(shuffled) == mean_interval(scores)


@given(SCORES)
def test_the_mean_is_inside(scores):
    mean, low, high = mean_interval(scores)
    assert low <= mean <= high


@pytest.mark.parametrize("episodes", [3, 10, 100])
def test_it_covers_the_truth_19_times_in_20(episodes):
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(1000, episodes, generator=generator).double().tolist()
    covered = sum(low <= 0.0 <= high for _, low, high in map(mean_interval, draws))
    assert 930 <= covered <= 970


def test_edge_cases():
    assert mean_interval([3.0]) == (3.0, 3.0, 3.0)
    assert all(map(math.isnan, mean_interval([1.0, math.nan])))
    with pytest.raises(ValueError, match="no scores"):
        mean_interval([])


@pytest.mark.parametrize("task", [SINE, SIGN])
def test_an_evaluation_is_the_episodes_outcomes(task):
    learner, source = Ridge(task), Sines(3, task)
    phi = learner.init(derive_generator(0))
    evaluation = evaluate_learner(learner, phi, LearnerState(), source, "test", 12)
    sampled = [source.episode("test", index) for index in range(12)]
    outcomes = [learner.evaluate(phi, LearnerState(), one.episode, derive_generator(one.seed)) for one in sampled]
    regression = task is SINE
    assert evaluation.metric == ("loss" if regression else "accuracy")
    assert evaluation.scores == tuple((o.losses if regression else o.accuracies)[-1] for o in outcomes)
    assert (evaluation.mean, *evaluation.interval) == mean_interval(evaluation.scores, metric=evaluation.metric)
    assert [one.step for one in evaluation.per_step] == [0, 1]
    assert evaluation.per_step[-1].mean == evaluation.mean
    assert [one.seed for one in evaluation.facts] == [one.seed for one in sampled]
    assert (evaluation.setting, evaluation.batch_norm, evaluation.split) == ("inductive", "none", "test")
    document = evaluation.to_json()
    assert document["interval"] == list(evaluation.interval)
    assert document["episodes"] == 12


def test_a_split_with_fewer_episodes_gives_all_it_has():
    learner = Ridge()
    evaluation = evaluate_learner(
        learner, learner.init(derive_generator(0)), LearnerState(), Sines(0, limit=5), "test", 600
    )
    assert evaluation.episodes == 5
    assert [one.episode for one in evaluation.facts] == [0, 1, 2, 3, 4]


def test_shots_and_queries_are_counted_per_class():
    learner = Ridge(SIGN)
    evaluation = evaluate_learner(learner, learner.init(derive_generator(0)), LearnerState(), Sines(0, SIGN), "test", 2)
    assert (evaluation.facts[0].ways, evaluation.facts[0].shots, evaluation.facts[0].queries) == (2, 5, 10)
    learner = Ridge()
    evaluation = evaluate_learner(learner, learner.init(derive_generator(0)), LearnerState(), Sines(0), "test", 2)
    assert (evaluation.facts[0].ways, evaluation.facts[0].shots, evaluation.facts[0].queries) == (0, 10, 20)
