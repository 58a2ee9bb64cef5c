r"""DADA: learn which pairs of image operations vary an image, how often and how strongly.

Li et al., 2020, https://arxiv.org/abs/2003.03780, sections 3.2 and 3.3. Sub-policies are all pairs of K operations;
phi holds the logits alpha of the pairs, and for each operation its probability p and magnitude m. With Gumbel noise g
and logistic noise l:

    c = softmax((log softmax(alpha) + g) / tau)      which pair an image gets
    b = sigmoid((logit p + l) / tau)                 whether an operation is applied
    x' = (1 - b) x + b op(x, m)                      twice, one operation after the other

``metaloom.learners.knowledge.image_augmentation`` says how the choices are relaxed, and what that costs. The paper
estimates with RELAX and one step's difference quotient; here every estimator may be used.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Annotated

import torch
from torch import Generator, Tensor

from metaloom.learners.domains import Choice, Int, Real
from metaloom.learners.errors import LearnerError
from metaloom.learners.knowledge.augmentation import AUGMENTATIONS
from metaloom.learners.knowledge.image_augmentation import (
    RELAXATIONS,
    UNIT,
    ImageAugmentation,
    check_operations,
    check_unit,
    choice,
    gate,
    one_hot,
    uniform,
    vary,
)
from metaloom.learners.knowledge.image_operations import STANDARD
from metaloom.learners.knowledge.policies import Policy, SubPolicy, Use
from metaloom.learners.tensors import Tensors

LOGIT_DEVIATION = 1e-3  # alpha starts nearly equal, as in the authors' setting


@dataclass(frozen=True)
class DADAConfig:
    """Where the learned policy starts, and how its choices are relaxed.

    Attributes:
        operations: K of them; the sub-policies are their pairs.
        probability: Of every operation, before the first outer step.
        magnitude: Likewise.
        relaxation: ``straight_through`` or ``soft``; see ``image_augmentation``.
        temperature: tau.
        keep: Sub-policies of the exported policy; the paper keeps 25 of 105.
    """

    operations: tuple[str, ...] = STANDARD
    probability: Annotated[float, Real(0.0, 1.0, per=())] = 0.5
    magnitude: Annotated[float, Real(0.0, 1.0, per=())] = 0.5
    relaxation: Annotated[str, Choice(RELAXATIONS)] = "straight_through"
    temperature: Annotated[float, Real(0.1, 2.0, log=True, per=())] = 0.5
    keep: Annotated[int, Int(1, 1000)] = 25

    def __post_init__(self) -> None:
        check_unit("dada", probability=self.probability, magnitude=self.magnitude)
        if len(set(self.operations)) < 2 or len(set(self.operations)) < len(self.operations):
            raise LearnerError(
                "learner.augmentation.operations: dada pairs different operations, and needs at least two, got "
                f"{', '.join(self.operations)}"
            )
        check_operations(self.operations)
        if self.temperature <= 0:
            raise LearnerError(f"learner.augmentation.temperature must be above 0, got {self.temperature}")


@AUGMENTATIONS.register("dada")
class DADA(ImageAugmentation):
    """phi is ``choice`` [pairs], ``probability`` [K] and ``magnitude`` [K], the latter two as logits."""

    Config = DADAConfig
    config: DADAConfig
    learns = True
    stages = 2

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Every two operations, in the order in which they are named."""
        return list(combinations(range(len(self.config.operations)), 2))

    def init(self, theta: Tensors, generator: Generator) -> Tensors:
        """Draw logits that are nearly equal; every operation alike."""
        size = len(self.config.operations)
        return {
            "choice": LOGIT_DEVIATION * torch.randn(len(self.pairs), generator=generator),
            "probability": torch.full((size,), UNIT.unconstrained(self.config.probability)),
            "magnitude": torch.full((size,), UNIT.unconstrained(self.config.magnitude)),
        }

    def draw_noise(self, examples: Tensor, steps: int, generator: Generator, *, training: bool) -> Tensors:
        noise = super().draw_noise(examples, steps, generator, training=training)
        gumbel = -(-uniform((steps + 1, examples.shape[0], len(self.pairs)), generator).log()).log()
        return noise | {"choice": gumbel}

    def varied(self, phi: Tensors, x: Tensor, noise: Tensors) -> Tensor:
        config, names = self.config, self.config.operations
        chosen = choice(phi["choice"], noise["choice"], config.temperature, config.relaxation)  # [n, pairs]
        magnitudes = torch.sigmoid(phi["magnitude"]).expand(x.shape[0], len(names))
        members = torch.tensor(self.pairs, device=x.device)  # [pairs, 2]
        for stage in range(self.stages):
            of_operation = chosen @ one_hot(members[:, stage], len(names), x)  # [n, K]
            logistic = noise["apply"][:, stage : stage + 1]
            applied = gate(torch.sigmoid(phi["probability"]), logistic, config.temperature, config.relaxation)
            x = vary(x, names, of_operation * applied, magnitudes, self.chance(noise, stage))
        return x

    def policies(self, phi: Tensors) -> tuple[Policy, ...]:
        """Return the ``keep`` most likely pairs, their shares made to sum to 1."""
        shares = torch.softmax(phi["choice"].double(), -1)
        best = shares.topk(min(self.config.keep, len(shares)))
        p, m = (torch.sigmoid(phi[name]).tolist() for name in ("probability", "magnitude"))
        names, pairs = self.config.operations, self.pairs
        subs = [
            SubPolicy(share, tuple(Use(names[k], p[k], m[k]) for k in pairs[index]))
            for share, index in zip((best.values / best.values.sum()).tolist(), best.indices.tolist(), strict=True)
        ]
        return (Policy("dada", tuple(subs)),)
