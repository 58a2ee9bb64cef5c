"""W4 to W6: one hypergradient of what is not the start: example weights, an architecture, distilled images.

The inner loop starts at given parameters theta and takes plain gradient steps; the gradient is by the meta-knowledge
phi. ``start`` returns both, as ``theta/NAME`` and ``phi/NAME``, by the names that all implementations share.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from benchmarks.networks import Conv4, MixedCells, ResNet8, draw_logits
from benchmarks.targets import Target, faster, leaner, right
from metaloom.learners.episode import Episode, Support

Parameters = dict[str, Tensor]
Model = Callable[..., Tensor]  # (images, alpha=...) to logits, its parameters bound
Loss = Callable[[Model, Parameters, Episode], Tensor]

THETA, PHI = "theta/", "phi/"
WAYS = 10


@dataclass(frozen=True)
class Bilevel:
    """One line of the table.

    Attributes:
        name: What ``--workloads`` calls it.
        title: What it is.
        method: The engine's recipe.
        slot: The slot whose knowledge phi is.
        slots: What of the recipe's slots is set otherwise.
        network: Builds the module.
        knowledge: Draws phi.
        episode: Draws the training and the validation batch.
        losses: (model, phi, episode) to the inner loss of every training example, [n].
        weights: (phi, losses) to the weight of every example, [n], which is a constant to the inner gradient.
        outer: (model, phi, episode) to the outer loss.
        steps: Inner steps.
        rate: Inner rate.
        targets: What has to be reached.
        checked_in: The precision in which gradients are compared with float64.
    """

    name: str
    title: str
    method: str
    slot: str
    slots: Mapping[str, Mapping[str, Any]]
    network: Callable[[], nn.Module]
    knowledge: Callable[[Generator], Parameters]
    episode: Callable[[Generator], Episode]
    losses: Loss
    weights: Callable[[Parameters, Tensor], Tensor]
    outer: Loss
    steps: int
    rate: float
    targets: tuple[Target, ...]
    checked_in: torch.dtype = torch.float32
    classification: bool = True

    def start(self) -> Parameters:
        """Return theta and phi in float32 on the CPU."""
        torch.manual_seed(0)
        theta = {THETA + name: value.detach().clone() for name, value in self.network().named_parameters()}
        phi = self.knowledge(Generator().manual_seed(2))
        return theta | {PHI + name: value for name, value in phi.items()}

    def inner(self, model: Model, phi: Parameters, episode: Episode) -> Tensor:
        """Return the inner loss."""
        losses = self.losses(model, phi, episode)
        return (self.weights(phi, losses.detach()) * losses).sum()

    def offers(self, hypergradient: str | None) -> bool:
        """Whether the engine's estimator is worth timing: a difference is of one step, the others are of many."""
        if hypergradient is None:
            return True
        return (self.steps == 1) == (hypergradient == "finite_difference")

    def episodes(self, generator: Generator) -> list[Episode]:
        """Return the one pair of batches."""
        return [self.episode(generator)]


def only(parameters: Parameters, prefix: str) -> Parameters:
    """Return the entries of theta or of phi, without the prefix."""
    return {name.removeprefix(prefix): value for name, value in parameters.items() if name.startswith(prefix)}


def batches(generator: Generator, *, training: int, validation: int, channels: int, side: int) -> Episode:
    """Draw two batches of images: a class is a blurred random image, an example a noisy copy of it."""
    classes = F.interpolate(torch.rand(WAYS, channels, 8, 8, generator=generator), size=side, mode="bilinear")

    def draw(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(count) % WAYS
        return classes[labels] + 0.3 * torch.randn(count, channels, side, side, generator=generator), labels

    return Episode(Support(*draw(training)), *draw(validation))


def mixed_losses(model: Model, phi: Parameters, episode: Episode) -> Tensor:
    """Return the cross entropy of every training example, in a network that phi is a part of."""
    return F.cross_entropy(model(episode.support_x, **phi), episode.support_y, reduction="none")


def losses_alone(model: Model, phi: Parameters, episode: Episode) -> Tensor:
    """Return the same in a network that it is no part of."""
    return mixed_losses(model, {}, episode)


def distilled_losses(model: Model, phi: Parameters, episode: Episode) -> Tensor:
    """Return the cross entropy of the learned images, one of each class."""
    labels = torch.arange(WAYS, device=phi["examples"].device)
    return F.cross_entropy(model(phi["examples"]), labels, reduction="none")


def mixed_verdict(model: Model, phi: Parameters, episode: Episode) -> Tensor:
    """Return the mean cross entropy of the validation batch, in a network that phi is a part of."""
    return F.cross_entropy(model(episode.query_x, **phi), episode.query_y)


def verdict_alone(model: Model, phi: Parameters, episode: Episode) -> Tensor:
    """Return the same in a network that it is no part of."""
    return mixed_verdict(model, {}, episode)


def even(phi: Parameters, losses: Tensor) -> Tensor:
    """Weigh every example alike."""
    return torch.full_like(losses, 1 / len(losses))


def by_loss(phi: Parameters, losses: Tensor) -> Tensor:
    """Return Meta-Weight-Net's weight of every example, divided by their sum."""
    hidden = F.relu(F.linear(losses.unsqueeze(-1), phi["layer0.weight"], phi["layer0.bias"]))
    weights = torch.sigmoid(F.linear(hidden, phi["layer1.weight"], phi["layer1.bias"])).squeeze(-1)
    return weights / weights.sum()


def weight_net(generator: Generator, hidden: int = 100) -> Parameters:
    """Draw Meta-Weight-Net's network of one hidden layer."""
    return {
        "layer0.weight": torch.randn(hidden, 1, generator=generator) * 2**0.5,
        "layer0.bias": torch.randn(hidden, generator=generator),
        "layer1.weight": torch.randn(1, hidden, generator=generator) / hidden**0.5,
        "layer1.bias": torch.zeros(1),
    }


PLAIN_SGD = {"momentum": 0.0, "weight_decay": 0.0}

META_WEIGHT_NET = Bilevel(
    "W4",
    "Meta-Weight-Net, ResNet-8 of width 16, 100 training and 100 clean images, 32x32x3",
    "meta_weight_net",
    "weighting",
    {"architecture": {"kind": "resnet", "blocks": 1, "width": 16}, "update": PLAIN_SGD},
    partial(ResNet8, WAYS),
    weight_net,
    partial(batches, training=100, validation=100, channels=3, side=32),
    losses_alone,
    by_loss,
    verdict_alone,
    steps=1,
    rate=0.1,
    targets=(right(1e-5), faster("metaloom", 1.1), faster("metaloom (finite difference)", 1.3)),
)

DARTS = Bilevel(
    "W5",
    "DARTS at second order, 4 cells of 8 channels and 6 edges, batches of 32, 32x32x3",
    "darts",
    "architecture",
    {"architecture": {"kind": "cells", "nodes": 4, "cells": 4, "channels": 8}, "update": PLAIN_SGD},
    partial(MixedCells, WAYS),
    draw_logits,
    partial(batches, training=32, validation=32, channels=3, side=32),
    mixed_losses,
    even,
    mixed_verdict,
    steps=1,
    rate=0.1,
    targets=(right(1e-4), faster("metaloom", 1.0, than="plain loop (finite difference)")),
)

DISTILLATION = Bilevel(
    "W6",
    "Dataset distillation, Conv-4, 10 learned images, 50 steps, 100 real images, 28x28",
    "distillation",
    "data",
    {"architecture": {"kind": "conv4", "channels": 64}, "update": {"steps": 50}},
    partial(Conv4, WAYS),
    lambda generator: {"examples": torch.randn(WAYS, 1, 28, 28, generator=generator)},
    partial(batches, training=WAYS, validation=100, channels=1, side=28),
    distilled_losses,
    even,
    verdict_alone,
    steps=50,
    rate=0.02,
    targets=(right(1e-4), leaner("metaloom", 0.2, 1.3)),
    checked_in=torch.float64,  # in float32 some ReLU of 50 steps falls the other way, for all alike: 5% of the gradient
)

BILEVEL = (META_WEIGHT_NET, DARTS, DISTILLATION)
