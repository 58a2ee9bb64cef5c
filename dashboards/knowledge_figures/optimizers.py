"""The step of a learned optimizer against the gradient of a coordinate."""

import torch
from torch import Tensor

from metaloom.dashboards.canvas import canvas, legend, name_axes, panel
from metaloom.dashboards.knowledge_figures.base import DRAWERS, Picture, TrialKnowledge
from metaloom.learners.knowledge.update_rules.learned_optimizers import LearnedOptimizer, Memory, MetaLSTM
from metaloom.learners.tensors import InnerState, Tensors

POINTS = 201
LINEAR = 1e-3  # the gradient axis is linear below it and logarithmic above
STEPS_DRAWN = (1, 5, 20)  # steps with a constant gradient


@DRAWERS.register("update.response")
def response(knowledge: TrialKnowledge) -> Picture | None:
    """Draw the move (L2L) or the rate (meta-learner LSTM) against gradients [POINTS] from -10 to 10, dense around 0."""
    half = torch.logspace(-5, 1, POINTS // 2)
    gradient = torch.cat([-half.flip(0), torch.zeros(1), half])
    ((rule, phi),) = knowledge.members("update")
    if isinstance(rule, LearnedOptimizer):
        return _moves(rule, phi, gradient)
    return _rates(rule, phi, gradient) if isinstance(rule, MetaLSTM) else None


def moves(rule: LearnedOptimizer, phi: Tensors, gradient: Tensor, steps: int) -> Tensor:
    """Return the last of ``steps`` moves [n], before the rate, of coordinates with a constant ``gradient`` [n]."""
    empty = gradient.new_zeros(gradient.shape[0], rule.config.hidden)
    memory, moved = [Memory(empty, empty)] * rule.config.layers, empty
    for _ in range(steps):
        moved, memory = rule.respond(phi, gradient, memory)
    return moved


def _moves(rule: LearnedOptimizer, phi: Tensors, gradient: Tensor) -> Picture:
    figure, axes = panel(6.0, 4.0)
    for steps in STEPS_DRAWN:
        axes.plot(gradient, moves(rule, phi, gradient, steps), label=f"step {steps}")
    axes.axhline(0.0, color="black", lw=0.5)
    axes.set_xscale("symlog", linthresh=LINEAR)
    name_axes(axes, "", "gradient", "the learned optimizer's move, before the rate")
    legend(axes)
    small, large = moves(rule, phi, torch.tensor([0.01, 1.0]), STEPS_DRAWN[-1]).tolist()
    caption = (
        f"The learned optimizer's {STEPS_DRAWN[-1]}th move with a constant gradient: {small:.3g} for a gradient of "
        f"0.01, {large:.3g} for a gradient of 1 (gradient descent's would be 100 times as long)."
    )
    return Picture("optimizer", caption, figure)


def _rates(rule: MetaLSTM, phi: Tensors, gradient: Tensor) -> Picture:
    theta = {"x": torch.zeros_like(gradient)}
    buffers = rule.begin(theta) | {"loss": torch.ones(())}
    after = rule.step(phi, InnerState(theta, buffers), {"x": gradient}, 0).buffers
    figure = canvas(6.0, 4.0)
    for number, (gate, label) in enumerate((("rate", "rate (input gate)"), ("keep", "kept (forget gate)"))):
        axes = figure.add_subplot(2, 1, number + 1)
        axes.plot(gradient, after[gate])
        axes.set_xscale("symlog", linthresh=LINEAR)
        name_axes(axes, "", "gradient, at a parameter of 0 and a loss of 1", label)
    low, high = float(after["rate"].min()), float(after["rate"].max())
    caption = f"The meta-learner LSTM's first step: a rate from {low:.3g} to {high:.3g}, depending on the gradient."
    return Picture("optimizer", caption, figure)
