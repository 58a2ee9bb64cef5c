r"""Solvers that take no inner steps: metric, model-based, transductive, zero-shot and closed-form heads.

    outputs(query) = adapt(phi, embed, support)(query)
    F(phi)         = L_query(outputs), averaged over episodes

The outer gradient is direct: F is differentiated as it stands. A solver defines ``adapt``. One with another objective
defines ``loss`` too, one with a network of its own ``parameters``. Everything else that a trial needs is here.
"""

import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import replace
from typing import Self, cast

import torch
from torch import Generator, Tensor

from metaloom.learners.base import EpisodeOutcome, Learner, MetaStep
from metaloom.learners.episode import Episode, Episodes, Support, alike
from metaloom.learners.errors import LearnerError
from metaloom.learners.knowledge.initialization import PretrainedInitialization
from metaloom.learners.networks.base import HEAD, Network
from metaloom.learners.networks.batch_norm import pooled_statistics, running_average
from metaloom.learners.solvers.base import TRANSDUCTIVE, Parts, Solver, setting_of
from metaloom.learners.solvers.embedding import OWN, Embedding, Outputs, check_held
from metaloom.learners.solvers.outputs import AdaptedByOutputs, Judged
from metaloom.learners.state import LearnerState, knowledge_of
from metaloom.learners.task_kinds import LABELLED
from metaloom.learners.tensors import InnerState, Tensors, as_leaves, derivative, part, under

__all__ = ["AdaptedByOutputs", "AmortizedLearner", "AmortizedSolver", "Embedding", "Judged", "Outputs"]


class AmortizedSolver(Solver):
    """A solver that maps a support set to a model without inner steps.

    Class attributes:
        takes_features: Whether ``embed`` on the examples as they are is all that it does with them, so that their
            features may be computed once. One that changes examples or the network sets False.
    """

    takes_features: bool = True  # of the class, or of one solver where its settings decide

    reads = frozenset({"architecture", "initialization"})
    serves = frozenset({LABELLED})
    estimators = frozenset({"direct"})
    any_ways = True

    def has_batch_norm(self, network: Network | None) -> bool:
        """Whether the solver's own networks have batch norm (``Embedding.own_norm``), over this network's features."""
        return False

    def parameters(self, network: Network | None, features: tuple[int, ...], generator: Generator) -> Tensors:
        """Draw the solver's own networks, which join its part of phi; a solver that has some sets ``learns``.

        Their shapes must not depend on ``task.outputs`` if the solver is to serve episodes of any number of classes.

        Args:
            network: Whose body embeds the examples; None for a solver that does not read the architecture.
            features: Shape of one example's features, such as (64,), or (64, 7, 7) for the maps of a convolution,
                which ``embed`` returns flattened.
            generator: Source of randomness.
        """
        return {}

    def inspect(self, phi: Tensors, embed: Embedding, episode: Episode) -> Tensors:
        """Return what may be drawn of an episode, by the names of ``Learner.inspect``; nothing here.

        Args:
            phi: As for ``adapt``.
            embed: As for ``adapt``.
            episode: The episode, with its queries' labels.
        """
        return {}

    def draw_loss(self, episode: Episode, generator: Generator) -> Tensors:
        """Return the random numbers of an episode's ``loss``, which finds them in its ``noise``; none by default.

        Called where the solver is ``random``, once for each episode of an outer step.
        """
        return {}

    @abstractmethod
    def adapt(self, phi: Tensors, embed: Embedding, support: Support) -> Outputs:
        """Return the adapted model: queries [queries, *features] to outputs [queries, outputs].

        Args:
            phi: The solver's own part of phi.
            embed: The network's body; the flattened inputs, for a solver that does not read the architecture.
            support: The support set; of its optional fields those that ``reads_support`` names.
        """

    def loss(self, phi: Tensors, embed: Embedding, episode: Episode) -> Judged:
        """Return what the outer loop minimizes on an episode: the loss of the query set, as the kind of task has it."""
        return Judged.of(self.task.task_kind, self.outputs(phi, embed, episode), episode.query_y)

    def losses_of_batch(self, phi: Tensors, embed: Embedding, episodes: Episodes) -> list[Judged] | None:
        """Return what ``loss`` gives for each of several episodes, from one pass; None, as here: they are run in turn.

        Args:
            phi: As for ``adapt``.
            embed: As for ``adapt``; of a network without batch norm, so that examples of all episodes may share a call.
            episodes: At least two, whose tensors have equal shapes.
        """
        return None

    def outputs(self, phi: Tensors, embed: Embedding, episode: Episode) -> Tensor:
        """Return the outputs of an episode's queries: [queries, outputs].

        A solver of sequences (``TaskKind.in_order``) reads the queries' labels too, each after its query's answer.
        """
        return self.adapt(phi, embed, episode.support)(episode.query_x)

    def learner(self, parts: Parts) -> "AmortizedLearner":
        """Put the learner together; raises LearnerError if the parts contradict each other."""
        return AmortizedLearner(self, parts)


class AmortizedLearner(Learner):
    """The learner of an amortized solver, over a network's body if it reads one."""

    def __init__(self, solver: AmortizedSolver, parts: Parts) -> None:
        self.solver, self.task, self.parts = solver, parts.task, parts
        self.network = cast("Network | None", parts.components.get("architecture"))
        if self.network is not None and parts.inner.batch_norm == "per_step":
            raise LearnerError(f"inner.batch_norm: {solver.name} takes no inner steps; use batch, support or frozen")
        if self.network is not None:
            self.network.check_head(f"learner.prediction: {solver.name} reads what reaches the head")
        fixed = isinstance(parts.components.get("initialization"), PretrainedInitialization)
        beside = [one for slot, one in parts.components.items() if slot != "initialization"]
        check_held(self.network, fixed or any(one.has_knowledge for one in (*beside, solver)), solver.name)
        own_norm = solver.has_batch_norm(self.network)
        has_norm = own_norm or (self.network is not None and self.network.has_batch_norm)
        self.batch_norm = parts.inner.batch_norm if has_norm else "none"
        self._on_features = False
        self.of_bundle = fixed
        sees = TRANSDUCTIVE if own_norm and self.batch_norm == "batch" else solver.sees
        self.setting = setting_of(sees, self.network, self.batch_norm)
        learned = any(one.has_knowledge for one in (*parts.components.values(), solver))
        self.estimator = "direct" if learned else "none"

    def _body(self, generator: Generator) -> Tensors:
        """Draw the network without its head; empty if there is no network."""
        if self.network is None:
            return {}
        drawn = self.network.initial(generator)
        body = {name: value for name, value in drawn.items() if not name.startswith(HEAD)}
        if not body and not self.solver.learns:
            raise LearnerError(f"learner.architecture: {self.solver.name} needs a network with a body, such as conv4")
        return body

    def init(self, generator: Generator) -> Tensors:
        """Draw the body, and every part of phi."""
        body = self._body(generator)
        moved = body if self.network is None else self.network.moved(body)
        phi: Tensors = {}
        for name, component in (*self.parts.components.items(), (self.solver.slot, self.solver)):
            # of a parameter that is held no start is learned: the state has it
            phi |= under(name, component.init(moved if name == "initialization" else body, generator))
        own = self.solver.parameters(self.network, self._features(), generator)
        return phi | under(self.solver.slot, own)

    def _features(self) -> tuple[int, ...]:
        """Return the shape of one example's features."""
        return (math.prod(self.task.inputs),) if self.network is None else self.network.feature_shape()

    def begin(self, phi: Tensors, generator: Generator) -> LearnerState:
        """Return the state: the body where it is not learned; running statistics join it later."""
        if self.network is None:
            return LearnerState()
        learned, inner = knowledge_of(phi, "initialization"), None
        if self.network.held or not learned:
            rest = {name: value for name, value in self._body(generator).items() if name not in learned}
            inner = InnerState(rest, {})
        running = self.network.begun_running(self.batch_norm)
        return LearnerState(inner=inner, running=running, fixed=self.network.fixed)

    def measured(self, phi: Tensors, state: LearnerState, episodes: Iterable[Episode]) -> LearnerState:
        if self.network is None or self.network.given is None or self.batch_norm != "frozen":
            return state
        nothing_learns = self.estimator == "none"  # or the solver's own networks would find them while training
        own = (
            nothing_learns and self.solver.has_batch_norm(self.network) and not part(state.running, OWN, optional=True)
        )
        if not (own or self.network.lacks_running(self.batch_norm, state.running)):
            return state
        each = []
        with torch.no_grad():
            for episode in episodes:
                embed = self._embedding(phi, state, training=True)
                if own:
                    self.solver.outputs(knowledge_of(phi, self.solver.slot), embed, episode)
                else:
                    embed(torch.cat([episode.support_x, episode.query_x]))
                each.append(embed.collected)
        return replace(state, running=pooled_statistics(each) | state.running)

    def _own(self, phi: Tensors, state: LearnerState) -> Tensors:
        """Return what the solver knows: its own part of phi."""
        return knowledge_of(phi, self.solver.slot)

    def _embedding(self, phi: Tensors, state: LearnerState, *, training: bool) -> Embedding:
        theta = state.theta | knowledge_of(phi, "initialization")
        # nothing moves the body of a bundle: its own statistics hold while training too
        reads = self.batch_norm == "frozen" and (self.of_bundle or not training)
        given = state.running if reads else {}
        if training:  # the solver's own networks have the statistics of the batch, and move their running ones
            given = {name: value for name, value in given.items() if not name.startswith(f"{OWN}/")}
        together = training or self.batch_norm == "batch"
        computed = theta if self._on_features else None
        return Embedding(self.network, theta, knowledge_of(phi, "architecture"), together, given or None, computed)

    def body(self, phi: Tensors, state: LearnerState) -> Embedding | None:
        """Return the embedding, if an example has the same features in every episode of the trial; None if not."""
        if self.network is None or self.network.has_knowledge or not (self.of_bundle and self.solver.takes_features):
            return None
        if self.network.has_batch_norm and not (self.batch_norm == "frozen" and state.running):
            return None
        return self._embedding(phi, state, training=False)

    def on_features(self) -> Self:
        """Return the learner of episodes whose examples are features, which ``body`` has computed."""
        other = copy(self)
        other._on_features = True
        return other

    def meta_step(self, phi: Tensors, state: LearnerState, episodes: Episodes, generator: Generator) -> MetaStep:
        for episode in episodes:
            self.solver.check_support(episode.support)
        if (together := self._in_one_pass(phi, state, episodes)) is not None:
            return together
        total = {name: torch.zeros_like(value) for name, value in phi.items()}
        judged, running = [], state.running
        for episode in self._drawn(episodes, generator):
            leaves = as_leaves(phi)
            embed = self._embedding(leaves, state, training=True)
            judged.append(self.solver.loss(self._own(leaves, state), embed, episode))
            for name, value in derivative(judged[-1].loss, leaves).items():
                total[name] += value / len(episodes)
            if self.batch_norm == "frozen":
                running = running_average(running, embed.collected)
        return self._taken(judged, total, replace(state, running=running))

    def _drawn(self, episodes: Episodes, generator: Generator) -> Episodes:
        """Return episodes with the random numbers that the solver's loss reads, where it is random."""
        if not self.solver.random:
            return episodes
        return [replace(one, noise=self.solver.draw_loss(one, generator)) for one in episodes]

    def _in_one_pass(self, phi: Tensors, state: LearnerState, episodes: Episodes) -> MetaStep | None:
        """Return the step of episodes of equal shape that the solver runs together; None where it does not."""
        if len(episodes) < 2 or self.batch_norm != "none" or not alike(episodes):
            return None
        leaves = as_leaves(phi)
        embed = self._embedding(leaves, state, training=True)
        judged = self.solver.losses_of_batch(self._own(leaves, state), embed, episodes)
        if judged is None:
            return None
        mean = torch.stack([one.loss for one in judged]).mean()
        return self._taken(judged, derivative(mean, leaves), state)

    def _taken(self, judged: Sequence[Judged], gradient: Tensors, state: LearnerState) -> MetaStep:
        losses = [float(one.loss.detach()) for one in judged]
        curves = [one.curves or ([loss], [float(one.accuracy)]) for one, loss in zip(judged, losses, strict=True)]
        outcomes = tuple(EpisodeOutcome.of(self.task.task_kind, *each) for each in curves)
        return MetaStep(sum(losses) / len(losses), gradient, outcomes, {}, state)

    def objective(self, phi: Tensors, state: LearnerState, episodes: Episodes, generator: Generator) -> float:
        return self.meta_step(phi, state, episodes, generator).loss

    def evaluate(self, phi: Tensors, state: LearnerState, episode: Episode, generator: Generator) -> EpisodeOutcome:
        self.solver.check_support(episode.support)
        with torch.no_grad():
            embed = self._embedding(phi, state, training=False)
            outputs = self.solver.outputs(self._own(phi, state), embed, episode)
            return EpisodeOutcome.of(self.task.task_kind, *self.task.task_kind.curves(outputs, episode.query_y))

    def inspect(self, phi: Tensors, state: LearnerState, episode: Episode) -> Tensors:
        """Return what the solver shows of an episode, with the classes of its examples."""
        self.solver.check_support(episode.support)
        with torch.no_grad():
            embed = self._embedding(phi, state, training=False)
            shown = self.solver.inspect(self._own(phi, state), embed, episode)
        return shown and {"labels": episode.support_y, "query_labels": episode.query_y, **shown}

    def inductive(self) -> "AmortizedLearner | None":
        if self.setting != TRANSDUCTIVE or self.solver.setting == TRANSDUCTIVE:
            return None
        return AmortizedLearner(self.solver, replace(self.parts, inner=replace(self.parts.inner, batch_norm="support")))

    def adapt(self, phi: Tensors, state: LearnerState, support: Support, generator: Generator) -> AdaptedByOutputs:
        self.solver.check_support(support)
        with torch.no_grad():
            embed = self._embedding(phi, state, training=False)
            outputs = self.solver.adapt(self._own(phi, state), embed, support)
        return AdaptedByOutputs(outputs, self.task.task_kind, embed)
