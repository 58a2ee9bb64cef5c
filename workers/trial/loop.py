"""The outer loop as pure functions: (state, episodes) -> (state, step). No files, no clock, no reports.

    g   = dF/dphi at phi_k, the mean over the meta-batch, scaled down to the norm ``clip``
    phi_{k+1} = phi_k - rate_k * optimizer(g + weight_decay * phi_k)

An inner loop that persists from one outer step to the next then takes its own steps with phi_{k+1}.
``runner.py`` runs it over a trial's episodes, and keeps the records.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from torch import Generator

from metaloom.learners.base import Learner, MetaStep
from metaloom.learners.episode import Episode
from metaloom.learners.outer import OuterConfig
from metaloom.learners.state import LearnerState
from metaloom.learners.tensors import Tensors
from metaloom.workers.outer import OPTIMIZERS, SCHEDULES, clipped, decayed, global_norm


@dataclass(frozen=True)
class TrialState:
    """Everything that meta-training changes: outer steps done, phi, the learner's and the outer optimizer's state."""

    step: int = 0
    phi: Tensors = field(default_factory=dict)
    learner: LearnerState = field(default_factory=LearnerState)
    optimizer: Tensors = field(default_factory=dict)


class OuterStep(NamedTuple):
    """The hypergradient of one outer step, before clipping, with its global norm."""

    meta: MetaStep
    norm: float


class Stage(NamedTuple):
    """The outer steps [first, end) with a schedule of their own: learning, or retraining after it."""

    first: int
    end: int


@dataclass(frozen=True)
class OuterLoop:
    """The parts that stay the same over all outer steps of a trial.

    ``precision`` is the context in which the learner computes, such as mixed precision; ``generator`` maps (purpose,
    outer step) to the generator of its draws.
    """

    learner: Learner
    outer: OuterConfig
    precision: Callable[[], AbstractContextManager[None]]
    generator: Callable[[str, int], Generator]

    def begin(self, phi: Tensors) -> TrialState:
        """Return the state before the first outer step, with this phi."""
        start, _ = OPTIMIZERS[self.outer.optimizer]
        return TrialState(0, phi, self.learner.begin(phi, self.generator("begin", 0)), start(phi))

    def with_optimizer(self, state: TrialState) -> TrialState:
        """Return the state with its optimizer's state, begun where it is of a trial with another optimizer."""
        begun = OPTIMIZERS[self.outer.optimizer][0](state.phi)
        return state if begun.keys() == state.optimizer.keys() else replace(state, optimizer=begun)

    def first_episode(self, step: int) -> int:
        """Return the number of an outer step's first episode; the same one while an inner loop is carried on."""
        return (step - step % self.learner.carry) * self.outer.meta_batch

    def estimate(self, state: TrialState, episodes: Sequence[Episode]) -> OuterStep:
        """Return the hypergradient of the mean outer loss over ``episodes``."""
        with self.precision():
            generator = self.generator("meta_step", state.step)
            meta = self.learner.meta_step(state.phi, state.learner, episodes, generator)
        return OuterStep(meta, global_norm(meta.gradient))

    def move(self, state: TrialState, taken: OuterStep, episodes: Sequence[Episode], stage: Stage) -> TrialState:
        """Take the outer step along an estimate, and the inner steps of a persistent inner loop."""
        meta, outer = taken.meta, self.outer
        rate = outer.rate * SCHEDULES[outer.schedule](state.step - stage.first, stage.end - stage.first)
        gradient = decayed(clipped(meta.gradient, taken.norm, outer.clip), state.phi, outer.weight_decay)
        _, update = OPTIMIZERS[outer.optimizer]
        phi, optimizer = update(state.phi, gradient, state.optimizer, rate)
        learner = meta.after(state.learner)
        if (self.learner.online or self.learner.carry > 1) and not meta.advanced:
            with self.precision():
                learner = self.learner.advance(phi, learner, episodes, self.generator("advance", state.step))
        return replace(state, step=state.step + 1, phi=phi, learner=learner, optimizer=optimizer)
