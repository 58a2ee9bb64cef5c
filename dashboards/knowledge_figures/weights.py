"""How much examples count: by their loss, by their class, or each by itself."""

import torch
from torch import Tensor

from metaloom.dashboards.canvas import canvas, name_axes
from metaloom.dashboards.knowledge_figures.base import DRAWERS, Known, Picture
from metaloom.learners.knowledge.class_ratios import ClassRatios
from metaloom.learners.knowledge.per_sample_weights import PerSample
from metaloom.learners.knowledge.sample_weights import Examples, Focal, MetaWeightNet, Weighting
from metaloom.learners.tensors import Tensors

LARGEST_LOSS = 6.0  # what an example gets that is taken, almost surely, for another class
BINS = 40


def floats(phi: Tensors) -> Tensors:
    """Return the values in float32, in which figures are computed."""
    return {name: value.float() for name, value in phi.items()}


def curve(weighting: Weighting, phi: Tensors) -> tuple[Tensor, Tensor]:
    """Return losses from 0 to 6 and the weight of each, over the largest of them."""
    losses = torch.linspace(0.0, LARGEST_LOSS, 121)
    with torch.no_grad():
        weights = weighting.weights(floats(phi), Examples(losses, losses))
    return losses, weights / weights.max().clamp_min(torch.finfo(weights.dtype).tiny)


@DRAWERS.register("weighting.curve")
def weight_curve(known: Known) -> Picture | None:
    """Draw the weight by the loss, where it was learned."""
    learned = [(one, phi) for one, phi in known.members("weighting") if isinstance(one, Focal | MetaWeightNet) and phi]
    if not learned:
        return None
    figure = canvas(5.0, 3.5)
    axes = figure.add_subplot()
    sentences = []
    for weighting, phi in learned:
        losses, weights = curve(weighting, phi)
        axes.plot(losses, weights)
        top, low, high = (float(losses[weights.argmax()]), *(float(weights[i]) for i in (2, 80)))
        sentences.append(
            f"Of a batch's examples those of loss {top:.1f} count most; beside them one of loss 0.1 counts {low:.3g}, "
            f"one of loss 4 {high:.3g}."
        )
    name_axes(axes, "", "loss of an example", "weight (largest = 1)")
    axes.set_ylim(0, 1.05)
    return Picture("weight-curve", " ".join(sentences), figure)


@DRAWERS.register("weighting.classes")
def class_weights(known: Known) -> Picture | None:
    """Draw the weight of each class, where it was learned."""
    for weighting, phi in known.members("weighting"):
        if isinstance(weighting, ClassRatios) and phi:
            with torch.no_grad():
                weights = weighting.class_weights(floats(phi), torch.ones(1))
            figure = canvas(5.0, 3.5)
            axes = figure.add_subplot()
            axes.bar(range(len(weights)), weights)
            name_axes(axes, "", "class", "weight (mean over the examples = 1)")
            least, most = int(weights.argmin()), int(weights.argmax())
            caption = (
                f"An example of class {most} counts most ({float(weights[most]):.3g}), one of class {least} least "
                f"({float(weights[least]):.3g}); the mean over the training examples is 1."
            )
            return Picture("class-weights", caption, figure)
    return None


@DRAWERS.register("weighting.samples")
def sample_weights(known: Known) -> Picture | None:
    """Draw how the weights of single training examples are spread."""
    for weighting, phi in known.members("weighting"):
        if isinstance(weighting, PerSample):
            with torch.no_grad():
                weights = weighting.sample_weights(floats(phi))
            relative = weights / weights.mean()
            figure = canvas(5.0, 3.5)
            axes = figure.add_subplot()
            axes.hist(relative, bins=BINS)
            name_axes(axes, "", "weight over the mean", "training examples")
            small = int((relative < 0.5).sum())
            caption = f"{small} of {len(relative)} training examples count less than half of the mean."
            return Picture("sample-weights", caption, figure)
    return None
