"""A real learner that is small enough to check by hand: ridge regression with learned prior and penalty.

phi is the weights' prior mean and the penalty's logarithm; a task is solved in
closed form on Fourier features. The online variant keeps a running mean of
the solutions as its inner state.
"""

import dataclasses
import math
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from metaloom.learners.base import EpisodeOutcome, Learner, MetaStep
from metaloom.learners.episode import Episode, Episodes, Support, TaskShape
from metaloom.learners.outer import OuterConfig
from metaloom.learners.state import LearnerState
from metaloom.learners.tensors import Tensors
from metaloom.workers.assembly import Assembly
from metaloom.workers.data.base import SampledEpisode
from metaloom.workers.device import Device, prepare_device
from metaloom.workers.records.trial import TrialConfig

FEATURES = 16
SINE = TaskShape("regression", (1,), 1)
SIGN = TaskShape("classification", (1,), 2)


class Sines:
    """Sines to fit, or their signs to tell apart: endless, or ``limit`` episodes a split."""

    name = "sines"

    def __init__(self, seed: int, shape: TaskShape = SINE, limit: int | None = None) -> None:
        self.seed, self.shape, self.limit = seed, shape, limit

    def available(self, split: str) -> int | None:
        return None if split == "train" else self.limit

    def episode(self, split: str, index: int) -> SampledEpisode:
        numbers = np.random.default_rng([self.seed, ("train", "validation", "test").index(split), index])
        height, phase = numbers.uniform(0.5, 2.0), numbers.uniform(0.0, math.pi)
        x = torch.from_numpy(numbers.uniform(-3.0, 3.0, (30, 1)).astype(np.float32))
        y = height * torch.sin(x + phase)
        ids: tuple[int, ...] = ()
        if self.shape.kind == "classification":
            y, ids = (y[:, 0] > 0).long(), (0, 1)
        episode = Episode(Support(x[:10], y[:10]), x[10:], y[10:], torch.tensor(ids) if ids else None)
        samples = tuple(int(one) for one in numbers.integers(0, 1000, 30))
        return SampledEpisode(episode, int(numbers.integers(2**62)), ids, samples)


class Ridge(Learner):
    """Least squares from a prior mean; see the module's words."""

    setting, batch_norm, estimator, strategy = "inductive", "none", "unroll", "loop"
    evaluation_steps, estimator_reason = 1, ""

    def __init__(self, task: TaskShape = SINE, *, online: bool = False) -> None:
        self.task, self.online, self.carry = task, online, 1

    def features(self, x: Tensor) -> Tensor:
        """[n, 1] to [n, FEATURES]."""
        waves = torch.arange(1, FEATURES // 2 + 1, dtype=x.dtype, device=x.device) * 0.7
        return torch.cat([torch.sin(x * waves), torch.cos(x * waves)], 1)

    def targets(self, y: Tensor, dtype: torch.dtype) -> Tensor:
        return torch.nn.functional.one_hot(y, self.task.outputs).to(dtype) if y.dtype == torch.int64 else y

    def init(self, generator: Generator) -> Tensors:
        mean = 0.1 * torch.randn(FEATURES, self.task.outputs, generator=generator)
        return {"mean": mean, "log_penalty": torch.zeros(())}

    def begin(self, phi: Tensors, generator: Generator) -> LearnerState:
        return LearnerState(running={"mean": torch.zeros_like(phi["mean"])} if self.online else {})

    def solve(self, phi: Tensors, state: LearnerState, x: Tensor, y: Tensor) -> Tensor:
        inputs = self.features(x)
        start = phi["mean"] + 0.1 * state.running["mean"] if self.online else phi["mean"]
        rest = self.targets(y, inputs.dtype) - inputs @ start
        gram = inputs.T @ inputs + torch.exp(phi["log_penalty"]) * torch.eye(FEATURES, dtype=inputs.dtype)
        return start + torch.linalg.solve(gram, inputs.T @ rest)

    def loss(self, theta: Tensor, episode: Episode) -> Tensor:
        inputs = self.features(episode.query_x)
        return ((inputs @ theta - self.targets(episode.query_y, inputs.dtype)) ** 2).mean()

    def outcome(self, phi: Tensors, theta: Tensor, episode: Episode) -> EpisodeOutcome:
        both = [phi["mean"].detach(), theta.detach()]
        losses = tuple(float(self.loss(one, episode)) for one in both)
        if self.task.kind == "regression":
            return EpisodeOutcome(losses)
        scores = [(self.features(episode.query_x) @ one).argmax(1) == episode.query_y for one in both]
        return EpisodeOutcome(losses, tuple(float(one.double().mean()) for one in scores))

    def meta_step(self, phi: Tensors, state: LearnerState, episodes: Episodes, generator: Generator) -> MetaStep:
        leaves = {name: one.detach().requires_grad_() for name, one in phi.items()}
        thetas = [self.solve(leaves, state, one.support_x, one.support_y) for one in episodes]
        noise = 1e-3 * torch.randn((), generator=generator)  # so that a wrong generator is seen
        losses = [self.loss(theta, one) for theta, one in zip(thetas, episodes, strict=True)]
        loss = torch.stack(losses).mean() + noise * leaves["mean"].sum()
        slopes = torch.autograd.grad(loss, list(leaves.values()))
        outcomes = [self.outcome(phi, theta, one) for theta, one in zip(thetas, episodes, strict=True)]
        return MetaStep(float(loss.detach()), dict(zip(leaves, slopes, strict=True)), tuple(outcomes))

    def advance(self, phi: Tensors, state: LearnerState, episodes: Episodes, generator: Generator) -> LearnerState:
        theta = self.solve(phi, state, episodes[0].support_x, episodes[0].support_y)
        return LearnerState(running={"mean": 0.9 * state.running["mean"] + 0.1 * theta})

    def evaluate(self, phi: Tensors, state: LearnerState, episode: Episode, generator: Generator) -> EpisodeOutcome:
        return self.outcome(phi, self.solve(phi, state, episode.support_x, episode.support_y), episode)

    def adapt(self, phi: Tensors, state: LearnerState, support: Support, generator: Generator) -> "Fitted":
        return Fitted(self, self.solve(phi, state, support.x, support.y))


@dataclasses.dataclass
class Fitted:
    """The adapted model."""

    learner: Ridge
    theta: Tensor

    def predict(self, query_x: Tensor) -> Tensor:
        out = self.learner.features(query_x) @ self.theta
        return out if self.learner.task.kind == "regression" else torch.softmax(10 * out, 1)


def config(trial: int = 0, **outer: object) -> TrialConfig:
    """A trial of 60 outer steps with three validations."""
    settings = {
        "steps": 60,
        "meta_batch": 3,
        "validate_every": 20,
        "validation_episodes": 10,
        "rate": 0.02,
    } | outer
    return TrialConfig("sines", trial, 7, {"source": "sines"}, {"method": "ridge"}, outer=settings)


def assembly(one: TrialConfig, *, learner: object = None, source: object = None) -> Assembly:
    """Put a trial's parts together without the registries."""
    outer = OuterConfig.of(one.outer)
    device: Device = prepare_device(one.resources, outer.precision)
    return Assembly(source or Sines(one.seed), learner or Ridge(), device, outer)  # type: ignore[arg-type]


CACHE = Path("unused")
