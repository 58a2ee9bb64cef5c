"""Learned examples that match the real ones: the outer loss is a distance, and the inner loop a constant.

At each outer step the distance is summed over classes and over the networks theta_0, ..., theta_{T-1} of
``update.steps`` T inner steps on the learned examples. A network that is evaluated trains on them from theta_0 for
``update.evaluation_steps``.
"""

from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import Generator, Tensor

from metaloom.learners.base import EpisodeOutcome, MetaStep
from metaloom.learners.episode import Episode, Episodes
from metaloom.learners.hypergradients.problem import Estimator, Problem, solution
from metaloom.learners.knowledge.distilled_data import MatchedData
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.solvers.base import SOLVERS, Parts
from metaloom.learners.solvers.gradient import GradientLearner, counted
from metaloom.learners.solvers.linear import LinearHead
from metaloom.learners.solvers.rules import check_matching
from metaloom.learners.solvers.slots import Slots
from metaloom.learners.state import LearnerState, knowledge_of
from metaloom.learners.tensors import Tensors, as_leaves, derivative, detach


@SOLVERS.register("matching")
class MatchingHead(LinearHead):
    """The solver of ``learner.data: gradient_matching`` and ``distribution_matching``, which bring it with them."""

    needs_classes = True
    estimators = frozenset({"unroll"})

    def put_together(self, slots: Slots, parts: Parts, estimator: Estimator, reason: str) -> "MatchingLearner":
        """Return the learner; raises LearnerError for what has no part in the distance."""
        check_matching(slots, parts.inner)
        return MatchingLearner(slots, parts.inner, parts.task, estimator, "loop")


class MatchingLearner(GradientLearner):
    """phi is the examples; the query set of a training episode is the real data that they are to match."""

    estimator = "direct"

    @property
    def approximations(self) -> Mapping[str, str]:
        if self.slots.update.config.steps == 1:
            return {}  # theta_0 does not depend on the examples
        return {"data": "the networks after each inner step count as constants, though they train on the examples"}

    def meta_step(self, phi: Tensors, state: LearnerState, episodes: Episodes, generator: Generator) -> MetaStep:
        """Return the gradient of the mean distance; the outcomes are of networks trained for ``update.steps``."""
        kept = self._resampled(state, generator, training=True)
        leaves = as_leaves(phi)
        total = torch.stack([self._distance(leaves, kept, episode) for episode in episodes]).mean()
        outcomes = tuple(self._outcome(phi, kept, episode) for episode in episodes)
        return MetaStep(float(total.detach()), derivative(total, leaves), outcomes, {}, counted(kept))

    def objective(self, phi: Tensors, state: LearnerState, episodes: Episodes, generator: Generator) -> float:
        """Return the mean distance."""
        kept = self._resampled(state, generator, training=True)
        return sum(float(self._distance(phi, kept, episode).detach()) for episode in episodes) / len(episodes)

    def _problem(self, state: LearnerState, episode: Episode) -> Problem:
        return self.loop.problem(partial(self._start_of_episode, state=state), episode)

    def _networks(self, phi: Tensors, state: LearnerState, episode: Episode) -> Iterator[Tensors]:
        """Yield theta_0, ..., theta_{T-1}, without a graph."""
        fixed, problem = detach(phi), self._problem(state, episode)
        inner = problem.start(fixed).detached()
        for index in range(problem.steps):
            yield inner.theta
            if index + 1 < problem.steps:
                inner = problem.step(fixed, inner, index).detached()

    def _distance(self, phi: Tensors, state: LearnerState, episode: Episode) -> Tensor:
        """Return the distance of the learned examples to an episode's query set: []."""
        data = self.slots.data
        assert isinstance(data, MatchedData)
        x, y = data.batch(knowledge_of(phi, "data"), episode)
        real = [(label, episode.query_y == label) for label in range(self.task.outputs)]
        distances = []
        for index, theta in enumerate(self._networks(phi, state, episode)):
            response = partial(self._response, phi, theta, index=index, gradients=data.compares_gradients)
            for label, chosen in real:
                if not bool(chosen.any()):
                    continue  # a small batch may lack a class
                rows = data.of_class(label)
                truth = response(episode.query_x[chosen], episode.query_y[chosen], keep=False)
                distances.append(data.distance(response(x[rows], y[rows], keep=True), truth))
        return torch.stack(distances).sum()

    def _response(
        self, phi: Tensors, theta: Tensors, x: Tensor, y: Tensor, *, index: int, gradients: bool, keep: bool
    ) -> Tensors:
        """Return a network's response to examples of one class: the loss's gradient, or their mean features."""
        if not gradients:
            network = self.slots.architecture
            own = network.sampled(knowledge_of(phi, "architecture"), {})
            mean = network.features(theta, x, Normalization(fused=True), own).mean(0)
            return {"features": mean if keep else mean.detach()}
        with torch.enable_grad():
            leaves = as_leaves(theta)
            outputs = self.loop.forward(phi, leaves, x, index).outputs
            loss = self.slots.loss.losses(knowledge_of(phi, "loss"), outputs, y).mean()
            grads = torch.autograd.grad(loss, list(leaves.values()), create_graph=keep)
        return dict(zip(leaves, grads, strict=True))

    def _outcome(self, phi: Tensors, state: LearnerState, episode: Episode) -> EpisodeOutcome:
        """Train a network for ``update.steps``, and evaluate it on the query set."""
        problem = self._problem(state, episode)
        with torch.no_grad():
            outer = problem.outer(phi, solution(problem, phi).theta, problem.steps)
        return self._training_outcome(float(outer.loss), float(outer.accuracy))
