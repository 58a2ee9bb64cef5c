r"""One weight per class: given, from the class sizes, or learned.

    w_i = v_{y_i},    v_c = r_c * rho_c * N_c^-balance / mean over the training examples

with N_c the training examples labelled c, r_c the ratios given by hand, and rho_c the learned ones. ``balance`` 1
makes every class count as much as any other (inverse frequency), 0 leaves them as they are; in between
lie the smoothed weights of Cui et al., 2019, https://arxiv.org/abs/1901.05555, section 3. Dividing by
the mean keeps the size of the inner step. Learned ratios have the hypergradient that a net of the loss
lacks where a rare class is not a hard one.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Generator, Tensor

from metaloom.learners.domains import Learned, Real
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.knowledge.sample_weights import WEIGHTINGS, Examples, Weighting
from metaloom.learners.tensors import Tensors


@dataclass(frozen=True)
class ClassRatiosConfig:
    """How much each class counts.

    Attributes:
        ratios: One number per class; empty for all equal.
        balance: The power of the class size that is divided by, where the source counts its classes.
        ratio: A factor on every class; learned per class, it is one number for each of them.
    """

    ratios: tuple[float, ...] = ()
    balance: Annotated[float | Learned, Real(0.0, 1.5)] = 1.0
    ratio: Annotated[float | Learned, Real(0.01, 100.0, log=True, per=("class",), positive=True)] = 1.0

    def __post_init__(self) -> None:
        for index, ratio in enumerate(self.ratios):
            if ratio < 0:
                raise LearnerError(f"learner.weighting.ratios[{index}] must be at least 0, got {ratio}")
        if self.ratios and not sum(self.ratios):
            raise LearnerError("learner.weighting.ratios must not all be 0")


@WEIGHTINGS.register("class_ratios")
class ClassRatios(Weighting):
    """The weight of an example is that of its label."""

    Config = ClassRatiosConfig
    config: ClassRatiosConfig
    serves = frozenset({"classification"})

    def __init__(self, config: object, task: TaskShape) -> None:
        super().__init__(config, task)
        given = self.config.ratios
        if given and len(given) != task.outputs:
            raise LearnerError(f"learner.weighting.ratios: {len(given)} given, but the task has {task.outputs} classes")

    def init_knob(self, name: str, theta: Tensors, generator: Generator) -> Tensor:
        """Start the ratios of all classes alike."""
        start = super().init_knob(name, theta, generator)
        return start.repeat(self.task.outputs) if name == "ratio" else start

    def class_weights(self, phi: Tensors, like: Tensor) -> Tensor:
        """Return one weight per class, [ways], of the dtype and device of ``like``."""
        known = len(self.task.counts) == self.task.outputs
        counts = torch.tensor(self.task.counts if known else (1,) * self.task.outputs).to(like).clamp_min(1)
        ratios = torch.tensor(self.config.ratios or (1.0,) * self.task.outputs).to(like)
        raw = ratios * self.knob(phi, "ratio") * torch.exp(-self.knob(phi, "balance") * torch.log(counts))
        return raw * counts.sum() / (raw * counts).sum()

    def weights(self, phi: Tensors, examples: Examples) -> Tensor:
        each = self.class_weights(phi, examples.losses)
        if examples.targets.is_floating_point():
            return examples.targets @ each
        return each[examples.targets]
