"""Transfer learning, the baseline: one network for all meta-train tasks together, then fine-tuned."""

from dataclasses import replace

import torch
from torch import Generator, Tensor

from metaloom.learners.base import EpisodeOutcome, MetaStep
from metaloom.learners.episode import Episode, Episodes
from metaloom.learners.errors import LearnerError
from metaloom.learners.hypergradients.problem import Estimator
from metaloom.learners.networks.base import HEAD, linear_parameters
from metaloom.learners.networks.batch_norm import Normalization, running_average
from metaloom.learners.solvers.base import SOLVERS, Parts
from metaloom.learners.solvers.gradient import GradientLearner
from metaloom.learners.solvers.linear import LinearHead
from metaloom.learners.solvers.slots import Slots, check_plain
from metaloom.learners.state import LearnerState, declare_place, knowledge_of
from metaloom.learners.task_kinds import LABELLED
from metaloom.learners.tensors import InnerState, Tensors, as_leaves, derivative, under

JOINT = declare_place("joint_head", "the head over all meta-train classes")


@SOLVERS.register("joint")
class JointHead(LinearHead):
    """One head over all meta-train classes while training; a fresh one, adapted by inner steps, for a new task."""

    serves = frozenset({LABELLED})
    estimators = frozenset({"direct"})

    def put_together(self, slots: Slots, parts: Parts, estimator: Estimator, reason: str) -> "JointLearner":
        """Return the learner; raises LearnerError for a batch norm of inner steps."""
        if parts.inner.batch_norm == "per_step":
            raise LearnerError(
                "inner.batch_norm: joint pre-training takes no inner steps; use batch, support or frozen"
            )
        return JointLearner(slots, parts.inner, parts.task, estimator, "loop")


class JointLearner(GradientLearner):
    """phi is a network trained on every episode's support and query at once, without inner steps.

    In classification its head spans all meta-train classes (``Episode.class_ids``); a new task starts
    from a head of zeros. Without classes the one head is shared, and kept.
    """

    estimator = "direct"

    def init(self, generator: Generator) -> Tensors:
        """Draw the network, and the head over all meta-train classes."""
        phi = super().init(generator)
        if not self.task.task_kind.has_classes:
            return phi
        if not self.task.classes:
            raise LearnerError("learner.prediction: joint pre-training needs a few-shot task source with known classes")
        features = phi[f"initialization/{HEAD}weight"].shape[1]
        body = {name: value for name, value in phi.items() if not name.startswith(f"initialization/{HEAD}")}
        return body | under(JOINT, linear_parameters("head", features, self.task.classes, generator))

    def _start_of_episode(self, phi: Tensors, state: LearnerState) -> InnerState:
        if not self.task.task_kind.has_classes:
            return super()._start_of_episode(phi, state)
        head = {name: torch.zeros_like(value[: self.task.outputs]) for name, value in knowledge_of(phi, JOINT).items()}
        theta = state.theta | knowledge_of(phi, "initialization") | head
        return InnerState(theta, self.slots.update.begin(theta))

    def _joint_loss(self, phi: Tensors, state: LearnerState, episodes: Episodes) -> tuple[Tensor, float, Tensors]:
        """Return the loss over all examples of all episodes, the accuracy, and batch norm's statistics."""
        theta = state.theta | knowledge_of(phi, "initialization") | knowledge_of(phi, JOINT)
        x = torch.cat([torch.cat([e.support_x, e.query_x]) for e in episodes])
        norm = Normalization(fused=True)
        outputs = self.slots.architecture.outputs(theta, x, norm, knowledge_of(phi, "architecture"))
        kind = self.task.task_kind
        targets = torch.cat([self._targets(e) for e in episodes])
        return kind.outer(outputs, targets), float(kind.score(outputs.detach(), targets)), norm.collected

    def _targets(self, episode: Episode) -> Tensor:
        """Return the targets of an episode's support and query: labels as numbered over all meta-train classes."""
        if not self.task.task_kind.has_classes:
            return torch.cat([episode.support_y, episode.query_y])
        if episode.class_ids is None:
            raise LearnerError("learner.prediction: joint pre-training needs episodes that name their classes")
        return episode.class_ids[torch.cat([episode.support_y, episode.query_y])]

    def meta_step(self, phi: Tensors, state: LearnerState, episodes: Episodes, generator: Generator) -> MetaStep:
        """Return the gradient of the joint loss; no inner step is taken."""
        for episode in episodes:
            check_plain(episode.support)
        leaves = as_leaves(phi)
        loss, accuracy, statistics = self._joint_loss(leaves, state, episodes)
        value, gradient = float(loss.detach()), derivative(loss, leaves)
        outcome = EpisodeOutcome.of(self.task.task_kind, (value,), (accuracy,))
        if self.batch_norm == "frozen":
            state = replace(state, running=state.running | running_average(state.running, statistics))
        return MetaStep(value, gradient, (outcome,) * len(episodes), {}, state)

    def objective(self, phi: Tensors, state: LearnerState, episodes: Episodes, generator: Generator) -> float:
        with torch.no_grad():
            return float(self._joint_loss(phi, state, episodes)[0])
