"""The learned optimizer: its preprocessing, its LSTM, its coordinates, its segments."""

import math

import pytest
import torch

from metaloom.learners.build import make_config
from metaloom.learners.errors import LearnerError
from metaloom.learners.knowledge.update_rules.learned_optimizers import (
    LearnedOptimizer,
    LearnedOptimizerConfig,
    Memory,
    log_and_sign,
    lstm,
    lstm_parameters,
)
from metaloom.learners.tensors import InnerState, as_leaves, derivative
from metaloom.testing.problems import (
    SINGLE,
    SMOOTH,
    begun,
    built,
    double,
    episode_of,
    estimate,
    estimator,
    normal,
    quadratic,
    seeded,
)

THETA = {"body": normal(3, 2, seed=0), "head.weight": normal(4, seed=1)}


def rule_of(**settings: object) -> LearnedOptimizer:
    return LearnedOptimizer(make_config(LearnedOptimizerConfig, settings, "learner.update"))


def test_gradients_come_in_as_the_paper_says() -> None:
    sizes = [1.0, -math.exp(-5), math.exp(-10), 1e-6, -1e-6, 0.0]
    expected = [[0, 1], [-0.5, -1], [-1, 1], [-1, math.exp(10) * 1e-6], [-1, -math.exp(10) * 1e-6], [-1, 0]]
    found = log_and_sign(torch.tensor(sizes, dtype=torch.float64), 10.0)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_the_cell_is_torchs_lstm() -> None:
    ours = double(lstm_parameters("layer", 3, 4, seeded(0)))
    theirs = torch.nn.LSTMCell(3, 4).double()
    order = [0, 1, 3, 2]  # ours: i, f, o, g; torch's: i, f, g, o
    for name, leaf in (("weight_ih", "input"), ("weight_hh", "recurrent"), ("bias_ih", "bias")):
        chunks = ours[f"layer.{leaf}"].chunk(4)
        getattr(theirs, name).data = torch.cat([chunks[i] for i in order])
    theirs.bias_hh.data.zero_()
    memory = Memory(normal(5, 4, seed=1), normal(5, 4, seed=2))
    found = lstm(ours, "layer", normal(5, 3, seed=3), memory)
    hidden, cell = theirs(normal(5, 3, seed=3), tuple(memory))
    torch.testing.assert_close(found.hidden, hidden, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found.cell, cell, rtol=1e-12, atol=1e-14)


def test_each_coordinate_is_moved_for_itself() -> None:
    """A permutation of the coordinates permutes the moves: one network for all, no exchange between them."""
    rule = rule_of(hidden=5)
    theta, order = {"x": normal(6, seed=0)}, torch.tensor([3, 0, 5, 1, 4, 2])
    phi = double(rule.init(theta, seeded(0)))
    ends = []
    for places in (torch.arange(6), order):
        state = InnerState({"x": theta["x"][places]}, rule.begin(theta))
        for index in range(3):
            state = rule.step(phi, state, {"x": normal(6, seed=10 + index)[places]}, index)
        ends.append(state.theta["x"])
    torch.testing.assert_close(ends[1], ends[0][order], rtol=1e-12, atol=1e-14)


def test_it_serves_networks_of_any_size() -> None:
    rule = rule_of(hidden=5)
    phi = double(rule.init({"x": normal(2, seed=0)}, seeded(0)))
    state = rule.step(phi, InnerState(THETA, rule.begin(THETA)), THETA, 0)
    assert {name: value.shape for name, value in state.theta.items()} == {n: v.shape for n, v in THETA.items()}
    assert state.buffers["hidden"].shape == (2, 10, 5)


def test_the_rate_scales_the_move() -> None:
    moves = []
    for rate in (0.1, 0.2):
        rule = rule_of(hidden=5, rate=rate)
        phi = double(rule.init(THETA, seeded(0)))
        moves.append(rule.step(phi, InnerState(THETA, rule.begin(THETA)), THETA, 0).theta["body"] - THETA["body"])
    torch.testing.assert_close(2 * moves[0], moves[1], rtol=1e-12, atol=1e-14)


def test_a_gradient_held_constant_has_no_second_derivative() -> None:
    """The paper's choice: the move is the same, its derivative by theta is the identity's alone."""
    slope = normal(4, seed=2).requires_grad_()
    for second_order in (True, False):
        rule = rule_of(hidden=5, second_order=second_order)
        theta = {"x": normal(4, seed=0)}
        phi = double(rule.init(theta, seeded(0)))
        moved = rule.step(phi, InnerState(theta, rule.begin(theta)), {"x": slope}, 0).theta["x"]
        assert moved.requires_grad == second_order


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": 0}, r"learner\.update\.hidden: got 0; allowed: a whole number, at least 1"),
        ({"layers": 0}, r"learner\.update\.layers: got 0; allowed: a whole number, at least 1"),
        ({"p": 0.0}, r"learner\.update\.p: got 0\.0; allowed: a number, above 0"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(LearnerError, match=message):
        rule_of(**settings)


def test_one_segment_is_the_whole_inner_loop() -> None:
    known = quadratic(7)
    whole, segment = estimate("unroll", known), estimate("segments", known, length=7)
    torch.testing.assert_close(segment.gradient["phi"], whole.gradient["phi"], rtol=1e-12, atol=1e-14)


def test_segments_of_one_step_are_a_sum_of_one_step_gradients() -> None:
    """Every loss of the trajectory is differentiated by the one step before it, from a state held constant."""
    known = quadratic(4)
    problem = type(known.problem)(**{**vars(known.problem), "step_weights": (1.0,) * 4})
    found = estimator("segments", length=1)(problem, known.phi).gradient["phi"]
    expected, state = torch.zeros_like(found), problem.start(known.phi)
    for index in range(4):
        leaves = as_leaves(known.phi)
        after = problem.step(leaves, state, index)
        expected += derivative(problem.outer(leaves, after.theta, index + 1).loss, leaves)["phi"]
        state = problem.step(known.phi, state, index)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_segments_are_the_same_one_by_one_and_batched() -> None:
    settings = {"architecture": SMOOTH, "update": {"kind": "learned_optimizer", "hidden": 3, "steps": 4}}
    gradients = []
    for strategy in ("loop", "vmap"):
        chosen = {"kind": "segments", "length": 2}
        learner = built(settings, SINGLE, inner={"trajectory_loss": True}, estimator=chosen, strategy=strategy)
        phi, state = begun(learner)
        episodes = [episode_of(SINGLE, 0), episode_of(SINGLE, 1)]
        gradients.append(learner.meta_step(phi, state, episodes, seeded(0)).gradient)
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value, rtol=1e-9, atol=1e-12)


def test_two_ways_to_weigh_the_steps_contradict_each_other() -> None:
    with pytest.raises(LearnerError, match=r"inner\.trajectory_loss: .* inner\.multi_step_loss \(5\)"):
        built({"architecture": SMOOTH}, SINGLE, inner={"trajectory_loss": True, "multi_step_loss": 5})
