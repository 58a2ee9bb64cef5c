"""The step of a learned optimizer against the gradient of a coordinate."""

import torch
from torch import Tensor

from metaloom.dashboards.knowledge_facts.base import FACTS, TrialKnowledge
from metaloom.dashboards.knowledge_facts.panels import LearnedFacts, Line, Lines, numbers
from metaloom.learners.knowledge.update_rules.learned_optimizers import LearnedOptimizer, Memory, MetaLSTM
from metaloom.learners.tensors import InnerState, Tensors

POINTS = 201
LINEAR = 1e-3  # the gradient axis is linear below it and logarithmic above
STEPS_DRAWN = (1, 5, 20)  # steps with a constant gradient


@FACTS.register("update.response")
@torch.no_grad()
def response(knowledge: TrialKnowledge) -> LearnedFacts | None:
    """Return the move (L2L) or the rate (meta-learner LSTM) against gradients from -10 to 10, dense around 0."""
    half = torch.logspace(-5, 1, POINTS // 2)
    gradient = torch.cat([-half.flip(0), torch.zeros(1), half])
    for rule, phi in knowledge.members("update"):
        if isinstance(rule, LearnedOptimizer):
            return _moves(rule, phi, gradient)
        if isinstance(rule, MetaLSTM):
            return _rates(rule, phi, gradient)
    return None


def moves(rule: LearnedOptimizer, phi: Tensors, gradient: Tensor, steps: int) -> Tensor:
    """Return the last of ``steps`` moves [n], before the rate, of coordinates with a constant ``gradient`` [n]."""
    empty = gradient.new_zeros(gradient.shape[0], rule.config.hidden)
    memory, moved = [Memory(empty, empty)] * rule.config.layers, empty
    for _ in range(steps):
        moved, memory = rule.respond(phi, gradient, memory)
    return moved


def _moves(rule: LearnedOptimizer, phi: Tensors, gradient: Tensor) -> LearnedFacts:
    at = numbers(gradient)
    curves = [Line(f"step {steps}", at, numbers(moves(rule, phi, gradient, steps))) for steps in STEPS_DRAWN]
    up = "the learned optimizer's move, before the rate"
    panel = Lines("", "gradient", up, tuple(curves), linear=LINEAR, level=0.0)
    small, large = moves(rule, phi, torch.tensor([0.01, 1.0]), STEPS_DRAWN[-1]).tolist()
    caption = (
        f"The learned optimizer's {STEPS_DRAWN[-1]}th move with a constant gradient: {small:.3g} for a gradient of "
        f"0.01, {large:.3g} for a gradient of 1 (gradient descent's would be 100 times as long)."
    )
    return LearnedFacts("optimizer", caption, (panel,))


def _rates(rule: MetaLSTM, phi: Tensors, gradient: Tensor) -> LearnedFacts:
    theta = {"x": torch.zeros_like(gradient)}
    buffers = rule.begin(theta) | {"loss": torch.ones(())}
    after = rule.step(phi, InnerState(theta, buffers), {"x": gradient}, 0).buffers
    across = "gradient, at a parameter of 0 and a loss of 1"
    panels = [
        Lines("", across, label, (Line(label, numbers(gradient), numbers(after[gate])),), linear=LINEAR)
        for gate, label in (("rate", "rate (input gate)"), ("keep", "kept (forget gate)"))
    ]
    low, high = float(after["rate"].min()), float(after["rate"].max())
    caption = f"The meta-learner LSTM's first step: a rate from {low:.3g} to {high:.3g}, depending on the gradient."
    return LearnedFacts("optimizer", caption, tuple(panels))
