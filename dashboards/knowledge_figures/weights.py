"""Learned weights of examples: by loss, by class, or one weight per example."""

import torch

from metaloom.dashboards.canvas import name_axes, panel
from metaloom.dashboards.knowledge_figures.base import DRAWERS, Picture, TrialKnowledge
from metaloom.learners.knowledge.sample_weights import ClassRatios, Examples, Focal, MetaWeightNet, PerSample

LARGEST_LOSS = 6.0  # the loss of an example that is almost surely misclassified
BINS = 40


@DRAWERS.register("weighting.curve")
@torch.no_grad()
def weight_curve(knowledge: TrialKnowledge) -> Picture | None:
    """Draw a learned weight, divided by its largest value, against the loss."""
    learned = knowledge.learned("weighting", Focal, MetaWeightNet)
    if not learned:
        return None
    figure, axes = panel(5.0, 3.5)
    sentences = []
    losses = torch.linspace(0.0, LARGEST_LOSS, 121)
    for weighting, phi in learned:
        weights = weighting.weights(phi, Examples(losses, losses))
        weights = weights / weights.max().clamp_min(torch.finfo(weights.dtype).tiny)
        axes.plot(losses, weights)
        top, low, high = (float(losses[weights.argmax()]), *(float(weights[i]) for i in (2, 80)))
        sentences.append(
            f"Examples of loss {top:.1f} have the largest weight; relative to it an example of loss 0.1 has weight "
            f"{low:.3g}, one of loss 4 has {high:.3g}."
        )
    name_axes(axes, "", "loss of an example", "weight (largest = 1)")
    axes.set_ylim(0, 1.05)
    return Picture("weight-curve", " ".join(sentences), figure)


@DRAWERS.register("weighting.classes")
@torch.no_grad()
def class_weights(knowledge: TrialKnowledge) -> Picture | None:
    """Draw the learned weight of each class."""
    for weighting, phi in knowledge.learned("weighting", ClassRatios):
        weights = weighting.class_weights(phi, torch.ones(1))
        figure, axes = panel(5.0, 3.5)
        axes.bar(range(len(weights)), weights)
        name_axes(axes, "", "class", "weight (mean over the examples = 1)")
        least, most = int(weights.argmin()), int(weights.argmax())
        caption = (
            f"Class {most} has the largest weight ({float(weights[most]):.3g}), class {least} the smallest "
            f"({float(weights[least]):.3g}); the mean over the training examples is 1."
        )
        return Picture("class-weights", caption, figure)
    return None


@DRAWERS.register("weighting.samples")
@torch.no_grad()
def sample_weights(knowledge: TrialKnowledge) -> Picture | None:
    """Draw the distribution of the training examples' weights."""
    for weighting, phi in knowledge.learned("weighting", PerSample):
        weights = weighting.sample_weights(phi)
        relative = weights / weights.mean()
        figure, axes = panel(5.0, 3.5)
        axes.hist(relative, bins=BINS)
        name_axes(axes, "", "weight over the mean", "training examples")
        small = int((relative < 0.5).sum())
        caption = f"{small} of {len(relative)} training examples weigh less than half of the mean."
        return Picture("sample-weights", caption, figure)
    return None
