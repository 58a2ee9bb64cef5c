"""Learners that take no inner steps: a task is solved by distances to its support set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.base import EpisodeOutcome, MetaStep
from metaloom.learners.component import Component
from metaloom.learners.episode import Episode, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.networks.base import HEAD, Network
from metaloom.learners.networks.batch_norm import Normalization, running_average
from metaloom.learners.solvers.prediction import Prototypes
from metaloom.learners.tensors import Tensors, as_leaves, derivative, part, under

COSINE_SCALE = 10.0  # a cosine's softmax over ways is nearly flat without it


def class_means(features: Tensor, labels: Tensor, ways: int) -> Tensor:
    """Average the features [n, d] of each class: [ways, d]."""
    members = F.one_hot(labels, ways).to(features.dtype)  # [n, ways]
    return (members.T @ features) / members.sum(0).unsqueeze(-1)


class PrototypicalLearner:
    """Snell et al., 2017: class means in a learned embedding. The outer gradient is direct."""

    online = False
    carry = 1
    evaluation_steps = 0
    strategy = "loop"
    estimator = "direct"
    estimator_reason = ""
    approximations: Mapping[str, str] = MappingProxyType({})

    def __init__(
        self, architecture: Network, initialization: Component, prediction: Prototypes, batch_norm: str, task: TaskShape
    ) -> None:
        if not task.task_kind.has_classes:
            raise LearnerError(f"learner.prediction: prototypes need classes, which a {task.kind} task has not")
        if batch_norm == "per_step":
            raise LearnerError("inner.batch_norm: prototypes take no steps; use batch, support or frozen")
        self.architecture, self.initialization, self.prediction, self.task = (
            architecture,
            initialization,
            prediction,
            task,
        )
        self.batch_norm = batch_norm if architecture.has_batch_norm else "none"
        self.setting = "transductive" if self.batch_norm == "batch" else "inductive"

    def init(self, generator: Generator) -> Tensors:
        """Draw the embedding, and the temperature where it is learned."""
        theta = self.architecture.initial(generator)
        body = {name: value for name, value in theta.items() if not name.startswith(HEAD)}
        if not body:
            raise LearnerError("learner.architecture: prototypes need a network with a body, such as conv4")
        phi = under("initialization", self.initialization.init(body, generator))
        return (
            phi
            | under("architecture", self.architecture.init(body, generator))
            | under("prediction", self.prediction.init(body, generator))
        )

    def begin(self, phi: Tensors, generator: Generator) -> Tensors:
        """Return the state: the embedding where it is not learned; running statistics join it later."""
        if part(phi, "initialization"):
            return {}
        theta = self.architecture.initial(generator)
        return under("theta", {name: value for name, value in theta.items() if not name.startswith(HEAD)})

    def _theta(self, phi: Tensors, state: Tensors) -> Tensors:
        return part(phi, "initialization") or part(state, "theta")

    def _embed(self, phi: Tensors, state: Tensors, x: Tensor, norm: Normalization) -> Tensor:
        own = self.architecture.sampled(part(phi, "architecture"), {})
        return self.architecture.features(self._theta(phi, state), x, norm, own)

    def logits(self, phi: Tensors, queries: Tensor, prototypes: Tensor) -> Tensor:
        """Compare embedded queries [n, d] with prototypes [ways, d]: [n, ways]."""
        temperature = self.prediction.knob(part(phi, "prediction"), "temperature")
        if self.prediction.config.metric == "cosine":
            return COSINE_SCALE * F.normalize(queries, dim=-1) @ F.normalize(prototypes, dim=-1).T / temperature
        # |q|^2 is the same for every class and drops out of the softmax, but keeps the logits small
        square = queries.square().sum(-1, keepdim=True) + prototypes.square().sum(-1) - 2 * queries @ prototypes.T
        return -square / temperature

    def _training_logits(self, phi: Tensors, state: Tensors, episode: Episode) -> tuple[Tensor, Tensors]:
        """Embed support and query in one batch, as the reference does, sharing its statistics."""
        norm = Normalization(fused=True)
        support = episode.support_x.shape[0]
        features = self._embed(phi, state, torch.cat([episode.support_x, episode.query_x]), norm)
        prototypes = class_means(features[:support], episode.support_y, self.task.outputs)
        return self.logits(phi, features[support:], prototypes), norm.collected

    def meta_step(self, phi: Tensors, state: Tensors, episodes: Sequence[Episode], generator: Generator) -> MetaStep:
        """Return the gradient of the mean query cross entropy."""
        total = {name: torch.zeros_like(value) for name, value in phi.items()}
        outcomes, running = [], part(state, "running")
        for episode in episodes:
            leaves = as_leaves(phi)
            logits, statistics = self._training_logits(leaves, state, episode)
            loss = F.cross_entropy(logits, episode.query_y)
            for name, value in derivative(loss, leaves).items():
                total[name] += value / len(episodes)
            running = running_average(running, statistics) if self.batch_norm == "frozen" else running
            accuracy = (logits.argmax(-1) == episode.query_y).float().mean()
            outcomes.append(EpisodeOutcome((float(loss.detach()),), (float(accuracy),)))
        mean = sum(outcome.losses[-1] for outcome in outcomes) / len(outcomes)
        return MetaStep(mean, total, tuple(outcomes), {}, state | under("running", running))

    def objective(self, phi: Tensors, state: Tensors, episodes: Sequence[Episode], generator: Generator) -> float:
        """Return the mean query cross entropy."""
        return self.meta_step(phi, state, episodes, generator).loss

    def advance(self, phi: Tensors, state: Tensors, episodes: Sequence[Episode], generator: Generator) -> Tensors:
        """Return the state as it is."""
        return state

    def evaluate(self, phi: Tensors, state: Tensors, episode: Episode, generator: Generator) -> EpisodeOutcome:
        """Score the query set."""
        with torch.no_grad():
            if self.batch_norm == "batch":
                logits, _ = self._training_logits(phi, state, episode)
            else:
                adapted = self.adapt(phi, state, episode.support_x, episode.support_y, generator)
                logits = adapted.logits(episode.query_x)
            loss = F.cross_entropy(logits, episode.query_y)
            accuracy = (logits.argmax(-1) == episode.query_y).float().mean()
        return EpisodeOutcome((float(loss),), (float(accuracy),))

    def adapt(
        self, phi: Tensors, state: Tensors, support_x: Tensor, support_y: Tensor, generator: Generator
    ) -> "AdaptedPrototypes":
        """Average the support set's embeddings."""
        running = part(state, "running") or None
        with torch.no_grad():
            norm = Normalization(running if self.batch_norm == "frozen" else None, fused=True)
            features = self._embed(phi, state, support_x, norm)
            given = norm.given if norm.given is not None else norm.collected
        return AdaptedPrototypes(
            self, phi, state, support_x, support_y, class_means(features, support_y, self.task.outputs), given
        )


@dataclass(frozen=True)
class AdaptedPrototypes:
    """Class means [ways, d], and the statistics with which queries are embedded."""

    learner: PrototypicalLearner
    phi: Tensors
    state: Tensors
    support_x: Tensor
    support_y: Tensor
    prototypes: Tensor
    statistics: Tensors

    def logits(self, query_x: Tensor) -> Tensor:
        """Map [queries, *features] to [queries, ways]."""
        learner = self.learner
        with torch.no_grad():
            if learner.batch_norm == "batch":
                episode = Episode(self.support_x, self.support_y, query_x, self.support_y.new_zeros(query_x.shape[0]))
                return learner._training_logits(self.phi, self.state, episode)[0]
            features = learner._embed(self.phi, self.state, query_x, Normalization(self.statistics, fused=True))
            return learner.logits(self.phi, features, self.prototypes)

    def predict(self, query_x: Tensor) -> Tensor:
        """Map [queries, *features] to class probabilities [queries, ways]."""
        return F.softmax(self.logits(query_x), -1)


class NearestNeighbourLearner:
    """Cosine nearest neighbour on the raw inputs: the floor. Nothing is learned."""

    online = False
    carry = 1
    evaluation_steps = 0
    strategy = "loop"
    estimator = "none"
    estimator_reason = ""
    approximations: Mapping[str, str] = MappingProxyType({})
    batch_norm = "none"
    setting = "inductive"

    def __init__(self, task: TaskShape) -> None:
        if not task.task_kind.has_classes:
            raise LearnerError(f"learner.prediction: nearest_neighbour needs classes, which a {task.kind} task has not")
        self.task = task

    def init(self, generator: Generator) -> Tensors:
        """Return no phi."""
        return {}

    def begin(self, phi: Tensors, generator: Generator) -> Tensors:
        """Return no state."""
        return {}

    def meta_step(self, phi: Tensors, state: Tensors, episodes: Sequence[Episode], generator: Generator) -> MetaStep:
        """Score the episodes; there is nothing to differentiate."""
        outcomes = tuple(self.evaluate(phi, state, episode, generator) for episode in episodes)
        return MetaStep(sum(o.losses[-1] for o in outcomes) / len(outcomes), {}, outcomes)

    def objective(self, phi: Tensors, state: Tensors, episodes: Sequence[Episode], generator: Generator) -> float:
        """Return the mean query loss."""
        return self.meta_step(phi, state, episodes, generator).loss

    def advance(self, phi: Tensors, state: Tensors, episodes: Sequence[Episode], generator: Generator) -> Tensors:
        """Return no state."""
        return state

    def evaluate(self, phi: Tensors, state: Tensors, episode: Episode, generator: Generator) -> EpisodeOutcome:
        """Score the query set; the loss is the cross entropy of 10 times the cosine."""
        adapted = self.adapt(phi, state, episode.support_x, episode.support_y, generator)
        logits = adapted.logits(episode.query_x)
        accuracy = (logits.argmax(-1) == episode.query_y).float().mean()
        return EpisodeOutcome((float(F.cross_entropy(logits, episode.query_y)),), (float(accuracy),))

    def adapt(
        self, phi: Tensors, state: Tensors, support_x: Tensor, support_y: Tensor, generator: Generator
    ) -> "AdaptedNeighbours":
        """Keep the support set."""
        return AdaptedNeighbours(F.normalize(support_x.flatten(1), dim=-1), support_y, self.task.outputs)


@dataclass(frozen=True)
class AdaptedNeighbours:
    """The support set's directions [n, d] and labels [n]."""

    directions: Tensor
    labels: Tensor
    ways: int

    def logits(self, query_x: Tensor) -> Tensor:
        """Give each class 10 times its largest cosine: [queries, ways]."""
        cosines = F.normalize(query_x.flatten(1), dim=-1) @ self.directions.T  # [queries, n]
        best = torch.full((query_x.shape[0], self.ways), -1.0, dtype=cosines.dtype, device=cosines.device)
        return COSINE_SCALE * best.scatter_reduce(1, self.labels.expand_as(cosines), cosines, "amax")

    def predict(self, query_x: Tensor) -> Tensor:
        """Map [queries, *features] to class probabilities [queries, ways]."""
        return F.softmax(self.logits(query_x), -1)
