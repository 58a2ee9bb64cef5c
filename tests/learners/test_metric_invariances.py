"""What holds for metric learners whatever the episode: order, names of classes, filling, single queries."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.episode import Episode, Support
from metaloom.learners.solvers.metric.full_context import canonical_order
from metaloom.learners.state import LearnerState
from metaloom.testing.problems import IMAGES, begun, built, episode_of, normal, seeded
from tests.support.metric_learners import FEW_SHOT, LEARNED, SOLVERS, learner_of, predicted
from tests.support.registry_rows import CONV


def shuffled(episode: Episode, order: Tensor) -> Episode:
    support = episode.support
    return replace(episode, support=replace(support, x=support.x[order], y=support.y[order]))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_order_of_support_examples_does_not_matter(solver: str, seed: int) -> None:
    learner, episode = learner_of(solver), episode_of(FEW_SHOT, seed, support=8, queries=5)
    order = torch.randperm(8, generator=seeded(seed))
    torch.testing.assert_close(predicted(learner, shuffled(episode, order)), predicted(learner, episode))


def test_as_given_an_lstm_over_the_support_set_depends_on_its_order() -> None:
    """So the canonical order is needed."""
    learner, episode = learner_of("full_context", order="given"), episode_of(FEW_SHOT, 0, support=8, queries=5)
    found = predicted(learner, shuffled(episode, torch.arange(7, -1, -1)))
    assert not torch.allclose(found, predicted(learner, episode), rtol=1e-3)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("solver", SOLVERS)
def test_classes_that_are_numbered_otherwise_are_predicted_alike(solver: str, seed: int) -> None:
    learner, episode = learner_of(solver), episode_of(FEW_SHOT, seed, support=8, queries=5)
    numbers = torch.randperm(3, generator=seeded(seed + 1))
    renamed = replace(episode, support=replace(episode.support, y=numbers[episode.support_y]))
    torch.testing.assert_close(predicted(learner, renamed)[:, numbers], predicted(learner, episode))


@pytest.mark.parametrize("solver", SOLVERS)
def test_examples_that_fill_up_a_support_set_play_no_part(solver: str) -> None:
    learner, episode = learner_of(solver), episode_of(FEW_SHOT, 0, support=6, queries=5)
    given = episode.support
    filled = Support(
        torch.cat([100 * given.x[:1], given.x, 100 * given.x[1:2]]),
        torch.cat([given.y[1:2], given.y, given.y[:1]]),
        mask=torch.tensor([False, *[True] * 6, False]),
    )
    padded = replace(episode, support=filled)
    torch.testing.assert_close(predicted(learner, padded), predicted(learner, episode))
    phi, state = begun(learner)
    if solver != "knn_inputs":
        steps = [learner.meta_step(phi, state, [one], seeded(0)) for one in (episode, padded)]
        assert steps[0].loss == pytest.approx(steps[1].loss)
        for name, slope in steps[0].gradient.items():
            torch.testing.assert_close(steps[1].gradient[name], slope)


@pytest.mark.parametrize("solver", LEARNED)
def test_examples_that_fill_up_a_support_set_play_no_part_in_batch_norm(solver: str) -> None:
    network = {"architecture": CONV, "initialization": {"kind": "learned"}}
    learner = built({**network, "prediction": {"kind": solver, **SOLVERS[solver]}}, IMAGES, estimator="auto")
    episode = episode_of(IMAGES, 0, support=6, queries=5)
    given = episode.support
    filled = Support(
        torch.cat([given.x, 100 * given.x[:2]]), torch.cat([given.y, given.y[:2]]), mask=torch.arange(8) < 6
    )
    phi, state = begun(learner)
    plain, padded = (
        learner.meta_step(phi, state, [replace(episode, support=one)], seeded(0)) for one in (given, filled)
    )
    assert plain.loss == pytest.approx(padded.loss)
    for name, slope in plain.gradient.items():
        torch.testing.assert_close(padded.gradient[name], slope)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_query_alone_is_predicted_as_among_others(solver: str) -> None:
    learner, episode = learner_of(solver), episode_of(FEW_SHOT, 0, support=6, queries=5)
    assert learner.setting == "inductive"
    alone = [
        predicted(learner, replace(episode, query_x=episode.query_x[row:][:1], query_y=episode.query_y[row:][:1]))
        for row in range(5)
    ]
    torch.testing.assert_close(torch.cat(alone), predicted(learner, episode))


def test_the_canonical_order_is_that_of_lists_of_numbers() -> None:
    x = normal(9, 2, 3, seed=0).round()
    places = canonical_order(x)
    assert [x[place].flatten().tolist() for place in places] == sorted(one.flatten().tolist() for one in x)
    assert sorted(places.tolist()) == list(range(9))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", ["one query", "an empty class", "duplicates", "zeros", "large"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_what_is_degenerate_stays_finite(solver: str, case: str, dtype: torch.dtype) -> None:
    learner, episode = learner_of(solver), episode_of(FEW_SHOT, 0, support=6, queries=6)
    support, query_x, query_y = episode.support, episode.query_x, episode.query_y
    if case == "one query":
        query_x, query_y = query_x[:1], query_y[:1]
    elif case == "an empty class":
        support = replace(support, y=support.y.clamp_max(1))
    elif case == "duplicates":
        support, query_x = replace(support, x=support.x[:1].expand(6, -1)), support.x[:1].expand(6, -1)
    else:
        scale = 0.0 if case == "zeros" else 1e4
        support, query_x = replace(support, x=scale * support.x), scale * query_x
    given = replace(episode, support=support, query_x=query_x, query_y=query_y).to(torch.device("cpu"), dtype)
    phi, state = begun(learner)
    phi = {name: value.to(dtype) for name, value in phi.items()}
    found = learner.adapt(phi, state, given.support, seeded(0)).predict(given.query_x)
    assert found.dtype == dtype
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found.sum(1), torch.ones(len(found), dtype=dtype))
    if case == "an empty class" and solver != "prototypes":
        assert float(found[:, 2].max()) < 0.1
    if solver == "knn_inputs":
        return
    step = learner.meta_step(phi, state, [given], seeded(0))
    assert torch.isfinite(torch.tensor(step.loss))
    assert all(torch.isfinite(slope).all() for slope in step.gradient.values())


@pytest.mark.parametrize("solver", SOLVERS)
def test_another_number_of_classes_has_the_same_knowledge(solver: str) -> None:
    few, many = learner_of(solver), learner_of(solver, ways=7)
    phi, state = begun(few)
    assert {name: value.shape for name, value in begun(many)[0].items()} == {n: v.shape for n, v in phi.items()}
    episode = episode_of(replace(FEW_SHOT, outputs=7), 0, support=14, queries=7)
    found = predicted(many, episode, (phi, state))
    assert found.shape == (7, 7)


def test_the_attention_that_is_shown_is_what_predicts() -> None:
    for solver in ("matching_networks", "full_context"):
        learner, episode = learner_of(solver), episode_of(FEW_SHOT, 0, support=6, queries=5)
        mask = torch.tensor([True, True, True, False, True, True])
        masked = replace(episode, support=replace(episode.support, mask=mask))
        shown = learner.inspect(*begun(learner), masked)
        assert shown["attention"].shape == (5, 6)
        assert not shown["attention"][:, 3].any()
        by_class = shown["attention"] @ F.one_hot(shown["labels"], 3).double()
        torch.testing.assert_close(by_class, predicted(learner, masked))
        assert shown["support"].shape == (6, 5)
        assert shown["queries"].shape == (5, 5)


def test_siamese_networks_show_each_class_s_score_and_neighbours_the_points() -> None:
    learner, episode = learner_of("siamese"), episode_of(FEW_SHOT, 0, support=6, queries=5)
    shown = learner.inspect(*begun(learner), episode)
    torch.testing.assert_close(torch.softmax(shown["relation"], 1), predicted(learner, episode))
    shown = learner_of("knn_inputs").inspect({}, LearnerState(), episode)
    assert torch.equal(shown["support"], episode.support_x)
    assert torch.equal(shown["queries"], episode.query_x)
