r"""Augmentation of images: a policy that is given, RandAugment, or a learned policy.

* ``policy``: sub-policies as in AutoAugment (Cubuk et al., 2019, https://arxiv.org/abs/1805.09501).
* ``rand_augment``: Cubuk et al., 2020, https://arxiv.org/abs/1909.13719: N operations out of K, each
  uniformly, all at one magnitude.
* ``dada``: Li et al., 2020, https://arxiv.org/abs/2003.03780, sections 3.2 and 3.3. Sub-policies are all
  pairs of K operations; phi holds the logits alpha of the pairs, and for each operation its probability p and
  magnitude m. With Gumbel noise g and logistic noise l,

      c = softmax((log softmax(alpha) + g) / tau)      which pair an image gets
      b = sigmoid((logit p + l) / tau)                 whether an operation is applied
      x' = (1 - b) x + b op(x, m)                      twice, one operation after the other

The random numbers of all images and steps are drawn before the inner loop, and the inner loop's gradient is
differentiated through x'. ``straight_through`` applies the most likely pair, whole or not at all, and
differentiates c and b as if they were soft: what is trained is what is exported, and the hypergradient is biased (its
derivative disagrees with central differences by definition). ``soft`` mixes images in proportion: the
hypergradient is exact for what is done, as far as the operations' own derivatives are.

The paper estimates with RELAX and one step's difference quotient; here every estimator may be used. Cost: every
image goes through every operation that could meet it, K per operation applied, because which it is is data.
"""

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from typing import Annotated

import torch
from torch import Generator, Tensor

from metaloom.learners.domains import Choice, Int, Learned, Real
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.knowledge.augmentation import AUGMENTATIONS, Augmentation
from metaloom.learners.knowledge.image_operations import OPERATIONS, STANDARD, Chance
from metaloom.learners.knowledge.policies import Policy, SubPolicy, Use, parse_sub_policy
from metaloom.learners.tensors import Tensors

RELAXATIONS = ("straight_through", "soft")
LOGIT_DEVIATION = 1e-3  # alpha starts nearly equal, as in the authors' setting
UNIT = Real(0.0, 1.0, bounded=True)
UNIT_PER = Real(0.0, 1.0, bounded=True, per=("scalar", "operation"))


def check_unit(kind: str, **values: object) -> None:
    """Refuse a fixed number outside of [0, 1]; raises LearnerError."""
    for name, value in values.items():
        if isinstance(value, int | float) and not 0 <= value <= 1:
            raise LearnerError(f"learner.augmentation.{name} must be in [0, 1], got {value} ({kind})")


@contextmanager
def item(field: str, index: int) -> Iterator[None]:
    """Let a LearnerError begin with the place of a list's item."""
    try:
        yield
    except LearnerError as error:
        raise LearnerError(f"learner.augmentation.{field}[{index}]: {error}") from None


def check_operations(names: Sequence[str]) -> None:
    """Refuse an operation that there is not; raises LearnerError with its place in the list."""
    for index, name in enumerate(names):
        with item("operations", index):
            OPERATIONS[name]


def uniform(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Draw from (0, 1), so that logarithms of it and of its rest are finite."""
    tiny = torch.finfo(torch.float32).eps
    return torch.rand(shape, generator=generator).clamp(tiny, 1 - tiny)


def one_hot(index: Tensor, size: int, like: Tensor) -> Tensor:
    """Return [..., size] of the precision of ``like``; torch's own looks at the values, which vmap cannot."""
    return (index.unsqueeze(-1) == torch.arange(size, device=index.device)).to(like.dtype)


def gate(probability: Tensor, logistic: Tensor, temperature: float, relaxation: str) -> Tensor:
    """Draw whether an operation is applied, as a number in [0, 1]; the shapes broadcast.

    Args:
        probability: That it is.
        logistic: Logistic noise.
        temperature: tau.
        relaxation: ``straight_through``, ``soft``, or ``none`` for a probability that is not learned.
    """
    score = torch.logit(probability) + logistic
    hard = (score > 0).to(logistic.dtype)
    if relaxation == "none":
        return hard
    soft = torch.sigmoid(score / temperature)
    return soft if relaxation == "soft" else hard + soft - soft.detach()


def choice(logits: Tensor, gumbel: Tensor, temperature: float, relaxation: str) -> Tensor:
    """Draw one of several, as weights that sum to 1: [n, options] from logits [options] and noise [n, options]."""
    score = torch.log_softmax(logits, -1) + gumbel
    soft = torch.softmax(score / temperature, -1)
    if relaxation == "soft":
        return soft
    hard = one_hot(score.argmax(-1), logits.shape[-1], soft)
    return hard + soft - soft.detach()


def vary(x: Tensor, names: Sequence[str], weights: Tensor, magnitudes: Tensor, chance: Chance) -> Tensor:
    """Apply a mixture of operations: x + sum_k w_k (op_k(x, m_k) - x).

    Args:
        x: [n, channels, height, width].
        names: K operations.
        weights: How much of each, [n, K]; zero leaves the image as it is.
        magnitudes: [n, K].
        chance: What is random in them, the same for each.
    """
    total = x
    for index, name in enumerate(names):
        changed = OPERATIONS[name].function(x, magnitudes[:, index], chance)
        total = total + weights[:, index].reshape(-1, 1, 1, 1) * (changed - x)
    return total


class ImageAugmentation(Augmentation):
    """What the kinds share: images in and out, and the random numbers of their operations."""

    @property
    def random(self) -> bool:
        return True

    @property
    def approximation(self) -> str:
        return "hard choices, and operations that are steps, count by a smooth stand-in's derivative"

    @property
    @abstractmethod
    def stages(self) -> int:
        """How many operations may follow one another."""

    @abstractmethod
    def varied(self, phi: Tensors, x: Tensor, noise: Tensors) -> Tensor:
        """Return the varied images, [n, channels, height, width]."""

    def check(self, task: TaskShape) -> None:
        """Refuse what is not images in [0, 1]; raises LearnerError."""
        if task.mean:
            raise LearnerError(
                "learner.augmentation: images in [0, 1] are varied, and this task's examples are a table's rows, "
                "standardized; use kind: none"
            )
        square = len(task.inputs) == 1 and math.isqrt(task.inputs[0]) ** 2 == task.inputs[0]
        if not (len(task.inputs) == 3 or square) or not task.task_kind.has_classes:
            raise LearnerError(
                "learner.augmentation: images [channels, height, width] or flattened square ones are varied, but this "
                f"{task.kind} task's examples have shape {task.inputs}; use kind: none"
            )

    def transform(self, phi: Tensors, x: Tensor, noise: Tensors) -> Tensor:
        side = math.isqrt(x.shape[-1])
        images = x if x.ndim == 4 else x.reshape(x.shape[0], 1, side, side)
        return self.varied(phi, images, noise).reshape(x.shape)

    def draw_noise(self, examples: Tensor, steps: int, generator: Generator, *, training: bool) -> Tensors:
        n = examples.shape[0]
        shape = (steps + 1, n, self.stages)
        share = uniform(shape, generator)
        return {
            "sign": 2.0 * torch.randint(2, shape, generator=generator) - 1,
            "place": torch.rand(*shape, 2, generator=generator),
            "partner": torch.randint(n, shape, generator=generator),
            "apply": share.log() - (1 - share).log(),
        }

    def chance(self, noise: Tensors, stage: int) -> Chance:
        """Return what is random in one stage's operations."""
        return Chance(noise["sign"][:, stage], noise["place"][:, stage], noise["partner"][:, stage])


@dataclass(frozen=True)
class RandAugmentConfig:
    """How many operations, how strong, and out of which."""

    number: Annotated[int, Int(1, 4)] = 2
    magnitude: Annotated[float | Learned, UNIT] = 0.3
    operations: tuple[str, ...] = STANDARD

    def __post_init__(self) -> None:
        check_unit("rand_augment", magnitude=self.magnitude)
        if self.number < 1 or not self.operations:
            raise LearnerError(f"learner.augmentation.number must be at least 1, got {self.number}")
        check_operations(self.operations)


@AUGMENTATIONS.register("rand_augment")
class RandAugment(ImageAugmentation):
    """``number`` operations, each drawn uniformly for each image, at one magnitude: fixed, searched or learned."""

    Config = RandAugmentConfig
    config: RandAugmentConfig

    @property
    def stages(self) -> int:
        return self.config.number

    def draw_noise(self, examples: Tensor, steps: int, generator: Generator, *, training: bool) -> Tensors:
        noise = super().draw_noise(examples, steps, generator, training=training)
        shape = noise["sign"].shape
        return noise | {"operation": torch.randint(len(self.config.operations), shape, generator=generator)}

    def varied(self, phi: Tensors, x: Tensor, noise: Tensors) -> Tensor:
        names = self.config.operations
        magnitude = torch.as_tensor(self.knob(phi, "magnitude"), dtype=x.dtype, device=x.device)
        magnitudes = magnitude.expand(x.shape[0], len(names))
        for stage in range(self.stages):
            weights = one_hot(noise["operation"][:, stage], len(names), x)
            x = vary(x, names, weights, magnitudes, self.chance(noise, stage))
        return x

    def policies(self, phi: Tensors) -> tuple[Policy, ...]:
        magnitude, names = float(self.knob(phi, "magnitude")), self.config.operations
        subs = tuple(SubPolicy(1 / len(names), (Use(name, 1.0, magnitude),)) for name in names)
        return (Policy("rand_augment", subs, self.config.number),)


@dataclass(frozen=True)
class DADAConfig:
    """Where the learned policy starts, and how its choices are relaxed.

    Attributes:
        operations: K of them; the sub-policies are their pairs.
        probability: Of every operation, before the first outer step.
        magnitude: Likewise.
        relaxation: ``straight_through`` or ``soft``; see the module.
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


@dataclass(frozen=True)
class PolicyConfig:
    """Sub-policies, each as likely as the others, and what holds for operations that do not say it themselves.

    Attributes:
        sub_policies: Each such as ``rotate(0.5, 0.3) + invert(0.2)``: operations with probability and magnitude.
        probability: Of operations that name none. Learned per ``operation``, every one has its own, which starts
            where it says, or at ``start``; per ``scalar``, those that name none share one.
        magnitude: Likewise.
        relaxation: How a learned probability is relaxed; see the module.
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
