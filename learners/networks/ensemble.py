r"""Several networks side by side, whose features stand one after another: f(x) = (f_1(x), ..., f_m(x)).

Bendou et al., 2022, https://arxiv.org/abs/2201.09699, section 3.3 (their E): networks that were trained apart, from
different seeds. ``initialization: {kind: pretrained, bundle: [one, another, ...]}`` takes each from its own bundle.
Cost: as many passes as members.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, cast

import torch
from torch import Generator, Tensor

from metaloom.learners.domains import Int
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.fields import make_config
from metaloom.learners.networks.base import ARCHITECTURES, HEAD, Network, linear_parameters
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.networks.sequence import check_text
from metaloom.learners.tensors import Tensors

ENSEMBLE, WHERE = "ensemble", "learner.architecture"


@dataclass(frozen=True)
class EnsembleConfig:
    """What stands side by side.

    Attributes:
        member: The architecture of each member, such as ``{kind: resnet12, width: 16}``.
        members: How many.
    """

    member: Mapping[str, Any] = field(default_factory=lambda: {"kind": "conv4"})
    members: Annotated[int, Int(1, 20)] = 3


@ARCHITECTURES.register(ENSEMBLE)
class Ensemble(Network):
    """Members of one architecture; the parameters of member ``i`` are named ``i.NAME``, and one head reads them all."""

    config: EnsembleConfig
    takes_text = True  # where its members do

    def __init__(self, config: EnsembleConfig, task: TaskShape) -> None:
        super().__init__(config, task)
        self.one = member_of(config.member, task)

    def layers(self) -> list[list[str]]:
        members = range(self.config.members)
        return [[f"{index}.{part}" for index in members for part in layer] for layer in self.one.layers()]

    def norm_layers(self) -> list[str]:
        return [f"{index}.{layer}" for index in range(self.config.members) for layer in self.one.norm_layers()]

    @property
    def places(self) -> int:
        return self.one.places

    def refuses(self, strategy: str) -> str:
        return self.one.refuses(strategy)

    def feature_shape(self) -> tuple[int, ...]:
        return (self.config.members * math.prod(self.one.feature_shape()),)

    def parameters(self, generator: Generator) -> Tensors:
        theta: Tensors = {}
        for index in range(self.config.members):
            drawn = self.one.parameters(generator)
            theta |= {f"{index}.{name}": value for name, value in drawn.items() if not name.startswith(HEAD)}
        return theta | linear_parameters("head", self.feature_shape()[0], self.task.outputs, generator)

    def features(self, theta: Tensors, x: Tensor, norm: Normalization, phi: Tensors) -> Tensor:
        each = []
        for index in range(self.config.members):
            given = None if norm.given is None else member_part(norm.given, index)
            own = Normalization(given, fused=norm.fused, between=norm.between)
            each.append(self.one.features(member_part(theta, index), x, own, {}))
            norm.collected.update({f"{index}.{name}": value for name, value in own.collected.items()})
        return torch.cat(each, -1)


def member_of(settings: Mapping[str, Any], task: TaskShape) -> Network:
    """Build a member; raises LearnerError for one that cannot stand beside others."""
    kind = str(settings.get("kind", ""))
    component = cast(type[Network], ARCHITECTURES[kind])
    rest = {name: value for name, value in settings.items() if name != "kind"}
    member = component(make_config(component.Config, rest, f"{WHERE}.member", kind), task)
    check_text(member)
    if member.has_knowledge or member.fixed or member.random or isinstance(member, Ensemble):
        raise LearnerError(
            f"{WHERE}.member: {kind} cannot be a member of an ensemble, as its parameters are not all of it"
        )
    return member


def member_part(tensors: Tensors, index: int) -> Tensors:
    """Return a member's tensors by their own names."""
    before = f"{index}."
    return {name.removeprefix(before): value for name, value in tensors.items() if name.startswith(before)}


def side_by_side(starts: list[Tensors]) -> Tensors:
    """Return the start of an ensemble from that of each member, a body and its running statistics."""
    found: Tensors = {}
    for index, start in enumerate(starts):
        for name, value in start.items():
            place, slash, rest = name.rpartition("/")
            if not rest.startswith(HEAD) and place in ("", "running"):
                found[f"{place}{slash}{index}.{rest}"] = value
    return found
