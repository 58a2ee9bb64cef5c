r"""Augmentation policies: learned by DADA, or written by hand.

``dada`` learns which pairs of image operations vary an image, how often and how strongly: Li et al., 2020,
https://arxiv.org/abs/2003.03780, sections 3.2 and 3.3. Sub-policies are all pairs of K operations; phi holds the logits
alpha of the pairs, and for each operation its probability p and magnitude m. With Gumbel noise g and logistic noise l:

    c = softmax((log softmax(alpha) + g) / tau)      which pair an image gets
    b = sigmoid((logit p + l) / tau)                 whether an operation is applied
    x' = (1 - b) x + b op(x, m)                      twice, one operation after the other

``image_augmentation.py`` says how the choices are relaxed, and at what cost. The paper estimates with RELAX and one
step's difference quotient; here every estimator may be used.

``policy`` is written by hand, as in AutoAugment (Cubuk et al., 2019, https://arxiv.org/abs/1805.09501): each image gets
one of its sub-policies, uniformly, and that one's operations in their order. Its probabilities and magnitudes may be
learned.
"""

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Annotated

import torch
from torch import Generator, Tensor

from metaloom.learners.domains import Bounds, Choice, Int, Learned, Real
from metaloom.learners.errors import LearnerError
from metaloom.learners.knowledge import image_augmentation as images
from metaloom.learners.knowledge.augmentation import AUGMENTATIONS, Policy, SubPolicy, Use, parse_sub_policy
from metaloom.learners.knowledge.image_operations import OPERATIONS, STANDARD
from metaloom.learners.tensors import Tensors, one_hot

Relaxation = Annotated[str, Choice(images.RELAXATIONS)]
Temperature = Annotated[float, Real(0.1, 2.0, log=True, per=()), Bounds(above=0)]
Unit = Annotated[float | Learned, Real(0.0, 1.0, bounded=True, per=("scalar", "operation")), images.WITHIN]
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
    probability: Annotated[float, Real(0.0, 1.0, per=()), images.WITHIN] = 0.5
    magnitude: Annotated[float, Real(0.0, 1.0, per=()), images.WITHIN] = 0.5
    relaxation: Relaxation = "straight_through"
    temperature: Temperature = 0.5
    keep: Annotated[int, Int(1, 1000)] = 25

    def __post_init__(self) -> None:
        if len(set(self.operations)) < 2 or len(set(self.operations)) < len(self.operations):
            raise LearnerError(
                "learner.augmentation.operations: dada pairs different operations, and needs at least two, got "
                f"{', '.join(self.operations)}"
            )
        images.check_items("operations", self.operations, OPERATIONS.__getitem__)


@AUGMENTATIONS.register("dada")
class DADA(images.ImageAugmentation):
    """phi is ``choice`` [pairs], ``probability`` [K] and ``magnitude`` [K], the latter two as logits."""

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
            "probability": torch.full((size,), images.UNIT.unconstrained(self.config.probability)),
            "magnitude": torch.full((size,), images.UNIT.unconstrained(self.config.magnitude)),
        }

    def draw_noise(self, examples: Tensor, steps: int, generator: Generator, *, training: bool) -> Tensors:
        noise = super().draw_noise(examples, steps, generator, training=training)
        gumbel = -(-images.uniform((steps + 1, examples.shape[0], len(self.pairs)), generator).log()).log()
        return noise | {"choice": gumbel}

    def varied(self, phi: Tensors, x: Tensor, noise: Tensors) -> Tensor:
        config, names = self.config, self.config.operations
        chosen = images.choice(phi["choice"], noise["choice"], config.temperature, config.relaxation)  # [n, pairs]
        magnitudes = torch.sigmoid(phi["magnitude"]).expand(x.shape[0], len(names))
        members = torch.tensor(self.pairs, device=x.device)  # [pairs, 2]
        for stage in range(self.stages):
            of_operation = chosen @ one_hot(members[:, stage], len(names), x)  # [n, K]
            logistic = noise["apply"][:, stage : stage + 1]
            applied = images.gate(torch.sigmoid(phi["probability"]), logistic, config.temperature, config.relaxation)
            x = images.vary(x, names, of_operation * applied, magnitudes, self.chance(noise, stage))
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


@dataclass(frozen=True)
class PolicyConfig:
    """Equally likely sub-policies, and the defaults of their operations.

    Attributes:
        sub_policies: Each such as ``rotate(0.5, 0.3) + invert(0.2)``: operations with probability and magnitude.
        probability: Of operations that name none. Learned per ``operation``, each has its own, which starts at the
            number that it names, or at ``start``; per ``scalar``, those that name none share one.
        magnitude: Likewise.
        relaxation: How a learned probability is relaxed; see ``image_augmentation``.
        temperature: tau.
    """

    sub_policies: tuple[str, ...] = (
        "translate_x(0.5, 0.2) + translate_y(0.5, 0.2)",
        "rotate(0.5, 0.3) + shear_x(0.5, 0.3)",
        "contrast(0.5, 0.4) + brightness(0.5, 0.4)",
    )
    probability: Unit = 0.5
    magnitude: Unit = 0.3
    relaxation: Relaxation = "straight_through"
    temperature: Temperature = 0.5

    def __post_init__(self) -> None:
        if not self.sub_policies:
            raise LearnerError("learner.augmentation.sub_policies: at least one is needed")
        images.check_items("sub_policies", self.sub_policies, parse_sub_policy)


@AUGMENTATIONS.register("policy")
class GivenPolicy(images.ImageAugmentation):
    """A policy written by hand; its probabilities and magnitudes may be learned."""

    config: PolicyConfig

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__(config)
        self.sub_policies = [parse_sub_policy(text) for text in config.sub_policies]
        self.uses = [use for sub in self.sub_policies for use in sub]
        self.names = sorted({use.operation for use in self.uses})
        self.stages = max(len(sub) for sub in self.sub_policies)

    def init(self, theta: Tensors, generator: Generator) -> Tensors:
        """Start every learned knob: one number, or one for each operation of each sub-policy, [uses]."""
        phi = {}
        for name, learned in self.learned_knobs().items():
            start, domain = self.start(name), self.real(name)
            if (learned.per or domain.per[0]) == "scalar":
                phi[name] = self.init_knob(name, theta, generator)
            else:
                own = [getattr(use, name) for use in self.uses]
                phi[name] = torch.tensor([domain.unconstrained(start if one is None else one) for one in own])
        return phi

    def values(self, phi: Tensors, name: str, like: Tensor) -> Tensor:
        """Return the probability or magnitude of every operation of every sub-policy: [uses]."""
        value = torch.as_tensor(self.knob(phi, name), dtype=like.dtype, device=like.device)
        if value.ndim == 1:
            return value
        own = like.new_tensor([math.nan if getattr(use, name) is None else getattr(use, name) for use in self.uses])
        return torch.where(own.isnan(), value, own)

    def draw_noise(self, examples: Tensor, steps: int, generator: Generator, *, training: bool) -> Tensors:
        noise = super().draw_noise(examples, steps, generator, training=training)
        shape = (steps + 1, examples.shape[0])
        return noise | {"sub_policy": torch.randint(len(self.sub_policies), shape, generator=generator)}

    def varied(self, phi: Tensors, x: Tensor, noise: Tensors) -> Tensor:
        config, size = self.config, len(self.names)
        relaxation = config.relaxation if isinstance(config.probability, Learned) else "none"
        probabilities, magnitudes = self.values(phi, "probability", x), self.values(phi, "magnitude", x)
        kinds = torch.tensor([self.names.index(use.operation) for use in self.uses], device=x.device)
        starts = [sum(len(sub) for sub in self.sub_policies[:i]) for i in range(len(self.sub_policies))]
        for stage in range(self.stages):
            # the sub-policy's use of this stage; one that is shorter repeats its last, at weight 0
            at = [start + min(stage, len(sub) - 1) for start, sub in zip(starts, self.sub_policies, strict=True)]
            present = x.new_tensor([float(stage < len(sub)) for sub in self.sub_policies])
            use = torch.tensor(at, device=x.device)[noise["sub_policy"]]  # [n]
            applied = images.gate(probabilities[use], noise["apply"][:, stage], config.temperature, relaxation)
            weights = one_hot(kinds[use], size, x) * (applied * present[noise["sub_policy"]]).unsqueeze(1)
            each = magnitudes[use].unsqueeze(1).expand(-1, size)
            x = images.vary(x, self.names, weights, each, self.chance(noise, stage))
        return x

    def policies(self, phi: Tensors) -> tuple[Policy, ...]:
        like = torch.zeros((), dtype=torch.float64)
        p, m = (iter(self.values(phi, name, like).tolist()) for name in ("probability", "magnitude"))
        share = 1 / len(self.sub_policies)
        subs = [
            SubPolicy(share, tuple(Use(use.operation, next(p), next(m)) for use in sub)) for sub in self.sub_policies
        ]
        return (Policy("policy", tuple(subs)),)
