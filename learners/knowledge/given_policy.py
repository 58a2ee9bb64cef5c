"""An augmentation policy written by hand, whose probabilities and magnitudes may be learned.

Sub-policies as in AutoAugment (Cubuk et al., 2019, https://arxiv.org/abs/1805.09501): each image gets one of them,
uniformly, and its operations one after another.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Generator, Tensor

from metaloom.learners.domains import Choice, Learned, Real
from metaloom.learners.errors import LearnerError
from metaloom.learners.knowledge.augmentation import AUGMENTATIONS
from metaloom.learners.knowledge.image_augmentation import (
    RELAXATIONS,
    ImageAugmentation,
    check_unit,
    gate,
    item,
    one_hot,
    vary,
)
from metaloom.learners.knowledge.policies import Policy, SubPolicy, Use, parse_sub_policy
from metaloom.learners.tensors import Tensors

UNIT_PER = Real(0.0, 1.0, bounded=True, per=("scalar", "operation"))


@dataclass(frozen=True)
class PolicyConfig:
    """Sub-policies, each as likely as the others, and what holds for operations that do not say it themselves.

    Attributes:
        sub_policies: Each such as ``rotate(0.5, 0.3) + invert(0.2)``: operations with probability and magnitude.
        probability: Of operations that name none. Learned per ``operation``, every one has its own, which starts
            where it says, or at ``start``; per ``scalar``, those that name none share one.
        magnitude: Likewise.
        relaxation: How a learned probability is relaxed; see ``image_augmentation``.
        temperature: tau.
    """

    sub_policies: tuple[str, ...] = (
        "translate_x(0.5, 0.2) + translate_y(0.5, 0.2)",
        "rotate(0.5, 0.3) + shear_x(0.5, 0.3)",
        "contrast(0.5, 0.4) + brightness(0.5, 0.4)",
    )
    probability: Annotated[float | Learned, UNIT_PER] = 0.5
    magnitude: Annotated[float | Learned, UNIT_PER] = 0.3
    relaxation: Annotated[str, Choice(RELAXATIONS)] = "straight_through"
    temperature: Annotated[float, Real(0.1, 2.0, log=True, per=())] = 0.5

    def __post_init__(self) -> None:
        check_unit("policy", probability=self.probability, magnitude=self.magnitude)
        if not self.sub_policies:
            raise LearnerError("learner.augmentation.sub_policies: at least one is needed")
        for index, text in enumerate(self.sub_policies):
            with item("sub_policies", index):
                parse_sub_policy(text)


@AUGMENTATIONS.register("policy")
class GivenPolicy(ImageAugmentation):
    """A policy written by hand; its probabilities and magnitudes may be learned."""

    Config = PolicyConfig
    config: PolicyConfig

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__(config)
        self.sub_policies = [parse_sub_policy(text) for text in config.sub_policies]
        self.uses = [use for sub in self.sub_policies for use in sub]
        self.names = sorted({use.operation for use in self.uses})

    @property
    def stages(self) -> int:
        return max(len(sub) for sub in self.sub_policies)

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
            applied = gate(probabilities[use], noise["apply"][:, stage], config.temperature, relaxation)
            weights = one_hot(kinds[use], size, x) * (applied * present[noise["sub_policy"]]).unsqueeze(1)
            each = magnitudes[use].unsqueeze(1).expand(-1, size)
            x = vary(x, self.names, weights, each, self.chance(noise, stage))
        return x

    def policies(self, phi: Tensors) -> tuple[Policy, ...]:
        like = torch.zeros((), dtype=torch.float64)
        p, m = (iter(self.values(phi, name, like).tolist()) for name in ("probability", "magnitude"))
        share = 1 / len(self.sub_policies)
        subs = [
            SubPolicy(share, tuple(Use(use.operation, next(p), next(m)) for use in sub)) for sub in self.sub_policies
        ]
        return (Policy("policy", tuple(subs)),)
