"""An inner loop that is carried on over several outer steps: truncated backpropagation, one segment a step."""

import pytest
import torch

from metaloom.learners import build_learner
from metaloom.learners.errors import LearnerError
from metaloom.learners.solvers.gradient import GradientLearner
from metaloom.testing.problems import SINGLE, SMOOTH, begun, built, episode_of, errors_by_slot, seeded

RULE = {"kind": "sgd", "rate": {"learn": {"start": 0.2}}, "momentum": 0.9, "steps": 2}


def carrying(carry: int, steps: int = 2) -> GradientLearner:
    learner = built({"architecture": SMOOTH, "update": {**RULE, "steps": steps}}, SINGLE, inner={"carry": carry})
    assert isinstance(learner, GradientLearner)
    return learner


def test_carried_steps_go_where_one_long_inner_loop_goes() -> None:
    episode = episode_of(SINGLE, 0)
    learner, whole = carrying(3), carrying(1, steps=6)
    phi, state = begun(learner)
    losses = []
    for _ in range(3):
        seen = learner.meta_step(phi, state, [episode], seeded(0))
        losses.append(seen.loss)
        state = learner.advance(phi, seen.state, [episode], seeded(0))
    outcome = whole.evaluate(phi, begun(whole)[1], episode, seeded(0))
    assert losses == pytest.approx([outcome.losses[taken] for taken in (2, 4, 6)], rel=1e-12)


def test_it_starts_anew_when_its_outer_steps_are_over() -> None:
    learner = carrying(2)
    phi, state = begun(learner)
    losses = []
    for number in range(4):
        episode = episode_of(SINGLE, number // 2)
        seen = learner.meta_step(phi, state, [episode], seeded(0))
        losses.append(seen.loss)
        state = learner.advance(phi, seen.state, [episode], seeded(0))
    fresh = learner.meta_step(phi, begun(learner)[1], [episode_of(SINGLE, 1)], seeded(0))
    assert losses[2] == pytest.approx(fresh.loss, rel=1e-12)
    assert losses[1] < losses[0]


def test_an_evaluated_loop_starts_at_the_beginning() -> None:
    learner = carrying(2)
    phi, state = begun(learner)
    episode = episode_of(SINGLE, 0)
    before = learner.evaluate(phi, state, episode, seeded(0))
    seen = learner.meta_step(phi, state, [episode], seeded(0))
    state = learner.advance(phi, seen.state, [episode], seeded(0))
    assert learner.evaluate(phi, state, episode, seeded(0)) == before


def test_the_gradient_of_a_later_segment_is_that_of_its_objective() -> None:
    """The state it starts from is a constant: what it differentiates is its own segment."""
    learner = carrying(2)
    phi, state = begun(learner)
    episode = episode_of(SINGLE, 0)
    seen = learner.meta_step(phi, state, [episode], seeded(0))
    state = learner.advance(phi, seen.state, [episode], seeded(0))
    gradient = float(learner.meta_step(phi, state, [episode], seeded(0)).gradient["update/rate"])
    ends = []
    for sign in (1, -1):
        moved = {"update/rate": phi["update/rate"] + sign * 1e-6}
        ends.append(learner.objective(moved, state, [episode], seeded(0)))
    assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(gradient, rel=1e-7)
    assert max(errors_by_slot(learner, [episode]).values()) < 1e-8


@pytest.mark.parametrize(
    ("settings", "inner", "outer", "message"),
    [
        ({}, {"carry": 0}, {}, r"inner\.carry: got 0; allowed: a whole number, at least 1"),
        ({}, {"carry": 2, "mode": "online"}, {}, r"inner\.carry: an online inner loop never restarts"),
        ({}, {"carry": 2}, {"meta_batch": 4}, r"inner\.carry: .* not outer\.meta_batch \(4\)"),
        (
            {"initialization": {"kind": "learned"}},
            {"carry": 2},
            {},
            r"inner\.carry: .* cannot learn its initialization",
        ),
    ],
)
def test_what_cannot_be_carried_is_refused(
    settings: dict[str, object], inner: dict[str, object], outer: dict[str, object], message: str
) -> None:
    with pytest.raises(LearnerError, match=message):
        build_learner(learner={"architecture": SMOOTH, **settings}, inner=inner, outer=outer, task=SINGLE)


def test_the_carried_state_is_cut_off_its_graph() -> None:
    learner = carrying(2)
    phi, state = begun(learner)
    leaves = {name: value.requires_grad_() for name, value in phi.items()}
    seen = learner.meta_step(leaves, state, [episode_of(SINGLE, 0)], seeded(0))
    state = learner.advance(leaves, seen.state, [episode_of(SINGLE, 0)], seeded(0))
    assert not any(isinstance(value, torch.Tensor) and value.requires_grad for value in state.flat().values())
