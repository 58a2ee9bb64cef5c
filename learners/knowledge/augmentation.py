r"""How the inner loop's examples are varied: the slot. Its kinds for images are in ``image_augmentation.py``.

What an augmentation does is also written as a policy, which can be applied without it. A policy (Cubuk et al., 2019,
https://arxiv.org/abs/1805.09501, section 3) is a set of sub-policies. For each image one is drawn, by its share; its
operations follow one another, each applied with its probability, at its magnitude. As text a sub-policy is
``rotate(0.5, 0.3) + invert(0.2)``.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from metaloom.learners.component import Component, Composite
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.knowledge.image_operations import OPERATIONS, Chance
from metaloom.learners.registry import Registry
from metaloom.learners.tensors import Tensors

FORMAT = 1
USE = re.compile(r"\s*([a-z_]+)\s*(?:\(([^()]*)\))?\s*")
AUGMENTATIONS: Registry[type[Component]] = Registry("augmentation")


@dataclass(frozen=True)
class Use:
    """An operation within a sub-policy; None takes the policy's own setting."""

    operation: str
    probability: float | None = None
    magnitude: float | None = None

    def __post_init__(self) -> None:
        OPERATIONS[self.operation]  # an unknown one raises, with the nearest right name
        for name, value in (("probability", self.probability), ("magnitude", self.magnitude)):
            if value is not None and not 0 <= value <= 1:
                raise LearnerError(f"{self.operation}: its {name} must be in [0, 1], got {value}")

    def described(self) -> dict[str, Any]:
        """Return its fields, and what its magnitude means."""
        return asdict(self) | {"meaning": OPERATIONS[self.operation].describe(self.magnitude or 0.0)}


@dataclass(frozen=True)
class SubPolicy:
    """Operations in their order, and the probability with which an image gets them."""

    share: float
    uses: tuple[Use, ...]


@dataclass(frozen=True)
class Policy:
    """A set of sub-policies; each image gets ``draws`` of them, drawn independently.

    Attributes:
        kind: The component it comes from.
        sub_policies: With shares that sum to 1.
        draws: How many follow one another.
    """

    kind: str
    sub_policies: tuple[SubPolicy, ...]
    draws: int = 1

    def rows(self) -> list[dict[str, Any]]:
        """Return the policy as a table: one row per operation, sub-policies in falling share."""
        ordered = enumerate(sorted(self.sub_policies, key=lambda one: -one.share), start=1)
        return [
            {"sub_policy": number, "share": sub.share, **use.described()} for number, sub in ordered for use in sub.uses
        ]


def parse_sub_policy(text: str) -> tuple[Use, ...]:
    """Read ``rotate(0.5, 0.3) + invert(0.2) + flip``; raises LearnerError that quotes what is not of this form."""
    return tuple(_parse_use(part) for part in text.split("+"))


def _parse_use(text: str) -> Use:
    match = USE.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        numbers = [float(number) for number in match[2].split(",")] if match[2] else []
        if len(numbers) > 2:
            raise ValueError
    except ValueError:
        raise LearnerError(
            f"cannot read {text.strip()!r}; write operation(probability, magnitude), joined by +, such as "
            "'rotate(0.5, 0.3) + invert(0.2)'"
        ) from None
    return Use(match[1], *numbers)


def to_document(policies: Sequence[Policy]) -> dict[str, Any]:
    """Return policies that follow one another as plain values, for JSON or YAML."""

    def written(policy: Policy) -> dict[str, Any]:
        subs = [
            {"share": one.share, "operations": [use.described() for use in one.uses]} for one in policy.sub_policies
        ]
        return {"kind": policy.kind, "draws": policy.draws, "sub_policies": subs}

    return {"format": FORMAT, "policies": [written(policy) for policy in policies]}


def from_document(document: Mapping[str, Any]) -> tuple[Policy, ...]:
    """Read what ``to_document`` made; raises LearnerError for a newer format, or what is no policy."""
    if document.get("format") != FORMAT:
        raise LearnerError(f"policy: format {document.get('format')!r}; this metaloom reads {FORMAT}")
    try:
        return tuple(map(_policy, document["policies"]))
    except (KeyError, TypeError, ValueError) as problem:
        raise LearnerError(
            f"policy: it has not the form of a policy ({type(problem).__name__}: {problem})"
        ) from problem


def _policy(document: Mapping[str, Any]) -> Policy:
    def use(given: Mapping[str, Any]) -> Use:
        return Use(str(given["operation"]), float(given["probability"]), float(given["magnitude"]))

    subs = [SubPolicy(float(sub["share"]), tuple(map(use, sub["operations"]))) for sub in document["sub_policies"]]
    if not subs or any(not sub.uses for sub in subs) or sum(sub.share for sub in subs) <= 0:
        raise LearnerError("policy: it needs sub-policies with operations, and shares above 0")
    return Policy(str(document["kind"]), tuple(subs), int(document["draws"]))


def apply_policies(policies: Sequence[Policy], x: Tensor, generator: Generator) -> Tensor:
    """Augment images x [n, channels, height, width] in [0, 1] by policies in their order, each by draws of its own.

    The generator is on the CPU.
    """
    for policy in policies:
        shares = torch.tensor([sub.share for sub in policy.sub_policies], dtype=torch.float64)
        for _ in range(policy.draws):
            chosen = torch.multinomial(shares, len(x), replacement=True, generator=generator).to(x.device)
            x = x.clone()
            for index in sorted(set(chosen.tolist())):
                rows = (chosen == index).nonzero().squeeze(1)
                x[rows] = _apply(policy.sub_policies[index], x[rows], generator)
    return x


def _apply(sub: SubPolicy, x: Tensor, generator: Generator) -> Tensor:
    for use in sub.uses:
        probability = 1.0 if use.probability is None else use.probability
        applied = torch.rand(len(x), generator=generator).to(x.device) < probability
        sign = torch.randint(2, (len(x),), generator=generator).to(x) * 2 - 1
        place = torch.rand(len(x), 2, generator=generator).to(x)
        partner = torch.randint(len(x), (len(x),), generator=generator).to(x.device)
        magnitude = torch.full_like(sign, use.magnitude or 0.0)
        changed = OPERATIONS[use.operation].function(x, magnitude, Chance(sign, place, partner))
        x = torch.where(applied.reshape(-1, 1, 1, 1), changed, x)
    return x


class Augmentation(Component):
    """A transformation of the inner loop's examples."""

    slot = "augmentation"

    def check(self, task: TaskShape) -> None:
        """Refuse a task whose examples it cannot vary; raises LearnerError."""
        return

    def transform(self, phi: Tensors, x: Tensor, noise: Tensors) -> Tensor:
        """Return the varied examples, of the shape of ``x`` [n, *features], by this step's row of the noise."""
        return x

    def policies(self, phi: Tensors) -> tuple[Policy, ...]:
        """Return what it does as readable policies, in the order of their application; empty if it does nothing."""
        return ()


@AUGMENTATIONS.register("none")
class NoAugmentation(Augmentation):
    """The examples as they are."""


class ChainOfAugmentations(Composite, Augmentation):
    """The first is applied first."""

    members: tuple[Augmentation, ...]

    def transform(self, phi: Tensors, x: Tensor, noise: Tensors) -> Tensor:
        for member, own, drawn in zip(self.members, self.parts(phi), self.parts(noise), strict=True):
            x = member.transform(own, x, drawn)
        return x

    def check(self, task: TaskShape) -> None:
        for member in self.members:
            member.check(task)

    def policies(self, phi: Tensors) -> tuple[Policy, ...]:
        each = (member.policies(own) for member, own in zip(self.members, self.parts(phi), strict=True))
        return tuple(policy for policies in each for policy in policies)
