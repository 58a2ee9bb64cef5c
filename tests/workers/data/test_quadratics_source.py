"""Random quadratics: the mean squared error of a linear model is the function itself."""

import pytest
import torch

from metaloom.learners import build_learner
from metaloom.learners.errors import LearnerError
from metaloom.workers.data import SPLITS, open_source
from metaloom.workers.data.generated import QuadraticTasks


def opened(tmp_path, **tasks):
    return open_source({"source": "quadratics", **tasks}, seed=0, cache=tmp_path)


def test_the_loss_is_the_quadratic(tmp_path):
    source = opened(tmp_path, dimensions=4)
    episode = source.episode("train", 3).episode
    matrix, target = episode.support_x / 2, episode.support_y / 2
    learner = build_learner(
        learner={"architecture": {"kind": "linear"}, "update": {"rate": 0.05, "steps": 1}},
        inner={},
        outer={},
        task=source.shape,
    )
    generator = torch.Generator().manual_seed(0)
    outcome = learner.evaluate({}, learner.begin({}, generator), episode, generator)
    x = 0.05 * 2 * matrix.T @ target  # one step from zero along the gradient of |W x - y|^2
    exact = [float(target.square().sum()), float((matrix @ x - target).square().sum())]
    assert outcome.losses == pytest.approx(exact, rel=1e-5)
    assert source.shape.inputs == (4,)


def test_functions_side_by_side_are_a_sum_of_blocks(tmp_path):
    source = opened(tmp_path, dimensions=3, functions=2)
    assert source.shape.inputs == (6,)
    episode = source.episode("train", 0).episode
    matrix, target = episode.support_x / 6**0.5, episode.support_y / 6**0.5
    assert not matrix[:3, 3:].any()
    assert not matrix[3:, :3].any()
    x = torch.randn(6, 1, generator=torch.Generator().manual_seed(0))
    each = [(matrix[i : i + 3, i : i + 3] @ x[i : i + 3] - target[i : i + 3]).square().sum() for i in (0, 3)]
    loss = (episode.support_x @ x - episode.support_y).square().mean()
    torch.testing.assert_close(loss, each[0] + each[1], rtol=1e-5, atol=0)


def test_episodes_are_functions_of_seed_split_and_number(tmp_path):
    source = opened(tmp_path)
    first, again = (source.episode("test", 5).episode for _ in range(2))
    assert torch.equal(first.support_x, again.support_x)
    assert torch.equal(first.support_x, first.query_x)
    others = [source.episode(split, number).episode.support_x for split, number in (("train", 5), ("test", 6))]
    assert not any(torch.equal(first.support_x, other) for other in others)
    drawn = torch.stack([source.episode("train", n).episode.support_x for n in range(50)])
    assert float(drawn.std()) == pytest.approx(10**0.5, rel=0.05)


def test_it_is_endless_and_says_so(tmp_path):
    source = open_source({"source": "quadratics", "dimensions": 3}, seed=0, cache=tmp_path)
    assert all(source.available(split) is None for split in SPLITS)


def test_a_function_of_nothing_is_refused():
    with pytest.raises(LearnerError, match=r"tasks\.dimensions: got 0; allowed: a whole number, at least 1"):
        QuadraticTasks(dimensions=0)
