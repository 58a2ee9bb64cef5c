r"""Augmentation policies: what one is, how it is written, and how it is applied to images.

A policy (Cubuk et al., 2019, https://arxiv.org/abs/1805.09501, section 3) is a set of sub-policies. For each image
one is drawn, by its share; its operations follow one another, each applied with its probability, at its magnitude.

Written, a sub-policy is ``rotate(0.5, 0.3) + invert(0.2)``: operations with probability and magnitude.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from metaloom.learners.errors import LearnerError
from metaloom.learners.knowledge.image_operations import OPERATIONS, Chance

FORMAT = 1
_USE = re.compile(r"\s*([a-z_]+)\s*(?:\(([^()]*)\))?\s*")


@dataclass(frozen=True)
class Use:
    """An operation within a sub-policy; what is None is left to the policy's own setting."""

    operation: str
    probability: float | None = None
    magnitude: float | None = None

    def __post_init__(self) -> None:
        OPERATIONS[self.operation]  # an unknown one raises, with the nearest right name
        for name, value in (("probability", self.probability), ("magnitude", self.magnitude)):
            if value is not None and not 0 <= value <= 1:
                raise LearnerError(f"{self.operation}: its {name} must be in [0, 1], got {value}")


@dataclass(frozen=True)
class SubPolicy:
    """Operations in their order, and the probability with which an image gets them."""

    share: float
    uses: tuple[Use, ...]


@dataclass(frozen=True)
class Policy:
    """A set of sub-policies, of which every image gets ``draws``, each drawn independently.

    Attributes:
        kind: The component it comes from.
        sub_policies: With shares that sum to 1.
        draws: How many follow one another.
    """

    kind: str
    sub_policies: tuple[SubPolicy, ...]
    draws: int = 1

    def rows(self) -> list[dict[str, Any]]:
        """Return the policy as a table: one row an operation, sub-policies in falling share."""
        rows = []
        ordered = sorted(self.sub_policies, key=lambda one: -one.share)
        for number, sub in enumerate(ordered, start=1):
            for use in sub.uses:
                meaning = OPERATIONS[use.operation].describe(use.magnitude or 0.0)
                rows.append({"sub_policy": number, "share": sub.share, **asdict(use), "meaning": meaning})
        return rows


def parse_sub_policy(text: str) -> tuple[Use, ...]:
    """Read ``rotate(0.5, 0.3) + invert(0.2) + flip``.

    Raises:
        LearnerError: It is not of this form; the message quotes the part that is not.
    """
    return tuple(_parse_use(part) for part in text.split("+"))


def _parse_use(text: str) -> Use:
    match = _USE.fullmatch(text)
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
    return {
        "format": FORMAT,
        "policies": [
            {
                "kind": policy.kind,
                "draws": policy.draws,
                "sub_policies": [
                    {
                        "share": sub.share,
                        "operations": [
                            asdict(use) | {"meaning": OPERATIONS[use.operation].describe(use.magnitude or 0.0)}
                            for use in sub.uses
                        ],
                    }
                    for sub in policy.sub_policies
                ],
            }
            for policy in policies
        ],
    }


def from_document(document: Mapping[str, Any]) -> tuple[Policy, ...]:
    """Read what ``to_document`` made.

    Raises:
        LearnerError: It is of a newer format, or no policy at all.
    """
    if document.get("format") != FORMAT:
        raise LearnerError(f"policy: format {document.get('format')!r}; this metaloom reads {FORMAT}")
    try:
        return tuple(_policy(one) for one in document["policies"])
    except (KeyError, TypeError, ValueError) as problem:
        raise LearnerError(
            f"policy: it has not the form of a policy ({type(problem).__name__}: {problem})"
        ) from problem


def _policy(document: Mapping[str, Any]) -> Policy:
    subs = [
        SubPolicy(
            float(sub["share"]),
            tuple(
                Use(str(use["operation"]), float(use["probability"]), float(use["magnitude"]))
                for use in sub["operations"]
            ),
        )
        for sub in document["sub_policies"]
    ]
    if not subs or any(not sub.uses for sub in subs) or sum(sub.share for sub in subs) <= 0:
        raise LearnerError("policy: it needs sub-policies with operations, and shares above 0")
    return Policy(str(document["kind"]), tuple(subs), int(document["draws"]))


def apply_policies(policies: Sequence[Policy], x: Tensor, generator: Generator) -> Tensor:
    """Augment images: every image gets its own draws.

    Args:
        policies: In the order of their application.
        x: [n, channels, height, width] in [0, 1].
        generator: Source of randomness, on the CPU.
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
        hit = torch.rand(len(x), generator=generator).to(x.device) < (
            1.0 if use.probability is None else use.probability
        )
        sign = torch.randint(2, (len(x),), generator=generator).to(x) * 2 - 1
        place = torch.rand(len(x), 2, generator=generator).to(x)
        partner = torch.randint(len(x), (len(x),), generator=generator).to(x.device)
        magnitude = torch.full_like(sign, use.magnitude or 0.0)
        changed = OPERATIONS[use.operation].function(x, magnitude, Chance(sign, place, partner))
        x = torch.where(hit.reshape(-1, 1, 1, 1), changed, x)
    return x
