"""What is random in an inner loop is drawn once, and every pass over the loop sees the same numbers."""

from dataclasses import dataclass, replace
from typing import Annotated, Any

import pytest
import torch
from torch import Generator, Tensor

from metaloom.learners import build_learner
from metaloom.learners.domains import Learned, Real
from metaloom.learners.episode import stack_episodes
from metaloom.learners.knowledge.augmentation import Augmentation, ChainOfAugmentations
from metaloom.learners.networks.mlp import MLP
from metaloom.learners.solvers.gradient import GradientLearner
from metaloom.learners.tensors import Tensors
from metaloom.testing.problems import IMAGES, SINGLE, SMOOTH, begun, episode_of, errors_by_slot, estimator, seeded

STEPS = 3


@dataclass(frozen=True)
class JitterConfig:
    scale: Annotated[float | Learned, Real(0.0, 1.0)] = 0.3


class Jitter(Augmentation):
    """Adds scaled Gaussian noise of its own in every step."""

    Config = JitterConfig

    @property
    def random(self) -> bool:
        return True

    def draw_noise(self, examples: Tensor, steps: int, generator: Generator, *, training: bool) -> Tensors:
        return {"shift": torch.randn(steps + 1, *examples.shape, generator=generator)}

    def transform(self, phi: Tensors, x: Tensor, noise: Tensors) -> Tensor:
        return x + self.knob(phi, "scale") * noise["shift"]


class NoisyMLP(MLP):
    """Scales its features by learned factors that chance disturbs, in the query pass too; while training only."""

    learns = True

    @property
    def random(self) -> bool:
        return True

    def init(self, theta: Tensors, generator: Generator) -> Tensors:
        return {"factor": torch.ones(5)}

    def draw_noise(self, examples: Tensor, steps: int, generator: Generator, *, training: bool) -> Tensors:
        return {"disturbance": torch.randn(steps + 1, 5, generator=generator)} if training else {}

    def sampled(self, phi: Tensors, noise: Tensors) -> Tensors:
        return {"factor": phi["factor"] * torch.exp(noise["disturbance"])} if noise else phi

    def features(self, theta: Tensors, x: Tensor, norm: Any, phi: Tensors) -> Tensor:
        return super().features(theta, x, norm, phi) * phi["factor"]


def noisy(
    *, kind: str = "unroll", strategy: str = "loop", steps: int = STEPS, inner: dict[str, Any] | None = None
) -> GradientLearner:
    online = {"initialization": {"kind": "random"}} if inner else {"initialization": {"kind": "learned"}}
    settings = {"architecture": SMOOTH, "update": {"steps": steps, "rate": 0.2}, **online}
    plain = build_learner(
        learner=settings, inner=inner or {}, outer={"hypergradient": kind, "strategy": strategy}, task=SINGLE
    )
    assert isinstance(plain, GradientLearner)
    network = NoisyMLP(plain.slots.architecture.config, SINGLE)
    slots = replace(plain.slots, architecture=network, augmentation=Jitter(JitterConfig(Learned(start=0.3))))
    return GradientLearner(slots, plain.inner, SINGLE, estimator(kind), strategy)


@pytest.mark.parametrize("kind", ["unroll", "adjoint"])
def test_the_objective_sees_the_noise_of_the_meta_step(kind: str) -> None:
    learner = noisy(kind=kind)
    errors = errors_by_slot(learner, [episode_of(SINGLE, 1), episode_of(SINGLE, 2)])
    assert set(errors) == {"architecture", "augmentation", "initialization"}
    assert max(errors.values()) < 1e-8, errors
    phi, state = begun(learner)
    episodes = [episode_of(SINGLE, 1), episode_of(SINGLE, 2)]
    seen = learner.meta_step(phi, state, episodes, seeded(5))
    assert seen.loss == pytest.approx(learner.objective(phi, state, episodes, seeded(5)), rel=1e-12)
    assert seen.loss != pytest.approx(learner.objective(phi, state, episodes, seeded(6)), rel=1e-6)


@pytest.mark.parametrize("strategy", ["vmap", "traced"])
def test_batched_and_traced_see_the_noise_of_the_loop(strategy: str) -> None:
    found, expected = noisy(strategy=strategy), noisy()
    phi, state = begun(expected)
    for call in range(2):  # the second replays the trace with other noise
        episodes = [episode_of(SINGLE, seed + 10 * call) for seed in range(3)]
        one, other = (each.meta_step(phi, state, episodes, seeded(call)) for each in (found, expected))
        assert one.loss == pytest.approx(other.loss, rel=1e-12)
        for name, value in other.gradient.items():
            torch.testing.assert_close(one.gradient[name], value, rtol=1e-9, atol=1e-11)


def test_a_difference_quotient_takes_the_noise_of_the_last_step() -> None:
    """With steps cut off but for the last, it must come close to the one-step gradient."""
    episodes = [episode_of(SINGLE, 1)]
    gradients = []
    for kind in ("finite_difference", "one_step"):
        learner = noisy(kind=kind, inner={"mode": "online"})
        phi, state = begun(learner)
        gradients.append(learner.meta_step(phi, state, episodes, seeded(0)).gradient["augmentation/scale"])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-6)


def test_evaluation_and_adaptation_draw_the_same() -> None:
    learner = noisy()
    phi, state = begun(learner)
    episode = episode_of(SINGLE, 3)
    outcome = learner.evaluate(phi, state, episode, seeded(1))
    assert outcome == learner.evaluate(phi, state, episode, seeded(1))
    assert outcome != learner.evaluate(phi, state, episode, seeded(2))
    adapted = learner.adapt(phi, state, episode.support, seeded(1))
    log_p = adapted.predict(episode.query_x).log()
    loss = torch.nn.functional.nll_loss(log_p, episode.query_y)
    assert float(loss) == pytest.approx(outcome.losses[-1], rel=1e-9)


def test_the_real_step_of_an_online_loop_draws_from_its_generator() -> None:
    learner = noisy(inner={"mode": "online"}, steps=1)
    phi, state = begun(learner)
    episodes = [episode_of(SINGLE, 1)]
    first, again, other = (learner.advance(phi, state, episodes, seeded(seed)).flat() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_noise_has_a_row_for_every_pass_and_the_precision_of_the_examples() -> None:
    learner = noisy()
    phi, _ = begun(learner)
    drawn = learner.slots.draw(phi, episode_of(SINGLE, 1), STEPS, seeded(0), training=True)
    assert {name: tuple(value.shape) for name, value in drawn.noise.items()} == {
        "architecture/disturbance": (STEPS + 1, 5),
        "augmentation/shift": (STEPS + 1, 6, 6),
    }
    assert all(value.dtype == torch.float64 for value in drawn.noise.values())
    assert drawn.to(torch.device("cpu"), torch.float32).noise["augmentation/shift"].dtype == torch.float32
    assert stack_episodes([drawn, drawn]).noise["augmentation/shift"].shape == (2, STEPS + 1, 6, 6)


def test_a_learner_without_chance_leaves_the_generator_alone() -> None:
    learner = build_learner(learner={"architecture": {"kind": "cells", "channels": 4}}, inner={}, outer={}, task=IMAGES)
    phi, state = begun(learner)
    generator = seeded(0)
    before = generator.get_state()
    learner.meta_step(phi, state, [episode_of(IMAGES, 1)], generator)
    learner.evaluate(phi, state, episode_of(IMAGES, 1), generator)
    assert torch.equal(generator.get_state(), before)


def test_components_that_share_a_slot_draw_their_own() -> None:
    plain = noisy()
    chain = ChainOfAugmentations([Jitter(JitterConfig(Learned(start=0.3))), Jitter(JitterConfig(0.2))])
    slots = replace(plain.slots, augmentation=chain)
    learner = GradientLearner(slots, plain.inner, SINGLE, estimator("unroll"), "loop")
    phi, _ = begun(learner)
    drawn = slots.draw(phi, episode_of(SINGLE, 1), STEPS, seeded(0), training=True).noise
    assert not torch.equal(drawn["augmentation/0/shift"], drawn["augmentation/1/shift"])
    assert max(errors_by_slot(learner, [episode_of(SINGLE, 1)]).values()) < 1e-8
