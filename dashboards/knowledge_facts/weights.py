"""Learned weights of examples: by loss, by class, or one weight per example."""

import torch
from torch import Tensor

from metaloom.dashboards.knowledge_facts.base import FACTS, TrialKnowledge
from metaloom.dashboards.knowledge_facts.panels import Bars, Histogram, LearnedFacts, Line, Lines, Panel, numbers
from metaloom.learners.knowledge.sample_weights import (
    ClassRatios,
    Examples,
    Focal,
    MetaWeightNet,
    PerSample,
    Weighting,
)
from metaloom.learners.tensors import Tensors

LARGEST_LOSS = 6.0  # the loss of an example that is almost surely misclassified
BINS = 40
CLEAN, NOISY = "clean labels", "wrong labels"


@FACTS.register("weighting.curve")
@torch.no_grad()
def weight_curve(knowledge: TrialKnowledge) -> LearnedFacts | None:
    """Return a learned weight, divided by its largest value, against the loss, and the losses of training examples."""
    learned = knowledge.learned("weighting", Focal, MetaWeightNet)
    if not learned:
        return None
    curves, sentences = [], []
    losses = torch.linspace(0.0, LARGEST_LOSS, 121)
    for number, (weighting, phi) in enumerate(learned, 1):
        weights = weighting.weights(phi, Examples(losses, losses))
        weights = weights / weights.max().clamp_min(torch.finfo(weights.dtype).tiny)
        name = "weight" if len(learned) == 1 else f"weight {number}"
        curves.append(Line(name, numbers(losses), numbers(weights)))
        top, low, high = (float(losses[weights.argmax()]), *(float(weights[i]) for i in (2, 80)))
        sentences.append(
            f"Examples of loss {top:.1f} have the largest weight; relative to it an example of loss 0.1 has weight "
            f"{low:.3g}, one of loss 4 has {high:.3g}."
        )
    panels: list[Panel] = [Lines("", "loss of an example", "weight (largest = 1)", tuple(curves), low=0.0, high=1.05)]
    if (seen := _example_losses(knowledge)) is not None:
        panels.append(_loss_histogram(*seen))
        sentences.append(_separation(learned[0], *seen))
    return LearnedFacts("weight-curve", " ".join(filter(None, sentences)), tuple(panels))


def _example_losses(knowledge: TrialKnowledge) -> tuple[Tensor, Tensor | None] | None:
    """Return the losses of training examples after adaptation, and which have a wrong label, where that is known."""
    losses, wrong = knowledge.shown.get("example_losses"), knowledge.shown.get("example_noisy")
    if losses is None or losses.ndim != 1 or not losses.numel() or not bool(losses.isfinite().all()):
        return None
    return losses.float(), wrong.bool() if wrong is not None and wrong.shape == losses.shape else None


def _loss_histogram(losses: Tensor, wrong: Tensor | None) -> Histogram:
    most = max(float(losses.max()), 1e-6)
    edges = torch.linspace(0.0, most, BINS + 1)
    groups = {"training examples": losses} if wrong is None else {CLEAN: losses[~wrong], NOISY: losses[wrong]}
    counted = tuple((name, numbers(torch.histc(one, BINS, 0.0, most))) for name, one in groups.items())
    return Histogram("", "loss of an example", "training examples", numbers(edges), counted)


def _separation(learned: tuple[Weighting, Tensors], losses: Tensor, wrong: Tensor | None) -> str:
    """Say how much a wrong label lowers the mean weight, and how well the weight tells wrong from clean labels."""
    weighting, phi = learned
    if wrong is None or not bool(wrong.any()) or bool(wrong.all()):
        return ""
    return separation(weighting.weights(phi, Examples(losses, losses)), wrong)


def separation(weights: Tensor, wrong: Tensor) -> str:
    """Compare the weights of clean labels with those of wrong ones: their means, and how often a clean one is larger.

    The latter is the area under the ROC curve (Mann and Whitney's statistic): ties count half.
    """
    clean, noisy = weights[~wrong].double(), weights[wrong].double()
    order = noisy.sort().values
    below, through = torch.searchsorted(order, clean), torch.searchsorted(order, clean, right=True)
    larger = float(((below + through).double() / 2 / len(noisy)).mean())
    return (
        f"Of {len(weights)} training examples {len(noisy)} have a wrong label: their mean weight is "
        f"{float(noisy.mean()):.3g}, that of the others {float(clean.mean()):.3g}; a clean one has the larger weight "
        f"in {larger:.0%} of the pairs."
    )


@FACTS.register("weighting.classes")
@torch.no_grad()
def class_weights(knowledge: TrialKnowledge) -> LearnedFacts | None:
    """Return the learned weight of each class."""
    for weighting, phi in knowledge.learned("weighting", ClassRatios):
        weights = weighting.class_weights(phi, torch.ones(1))
        names = tuple(map(str, range(len(weights))))
        panel = Bars("", "class", "weight (mean over the examples = 1)", names, numbers(weights))
        least, most = int(weights.argmin()), int(weights.argmax())
        caption = (
            f"Class {most} has the largest weight ({float(weights[most]):.3g}), class {least} the smallest "
            f"({float(weights[least]):.3g}); the mean over the training examples is 1."
        )
        return LearnedFacts("class-weights", caption, (panel,))
    return None


@FACTS.register("weighting.samples")
@torch.no_grad()
def sample_weights(knowledge: TrialKnowledge) -> LearnedFacts | None:
    """Return the distribution of the training examples' weights, apart for wrong labels where these are known."""
    for weighting, phi in knowledge.learned("weighting", PerSample):
        if "sample" not in phi:  # a snapshot may lack what is large
            continue
        weights = weighting.sample_weights(phi)
        relative = weights / weights.mean()
        wrong = knowledge.shown.get("training_noisy")
        known = wrong is not None and wrong.shape == relative.shape and bool(wrong.any())
        groups = {"training examples": relative}
        if wrong is not None and known:
            groups = {CLEAN: relative[~wrong.bool()], NOISY: relative[wrong.bool()]}
        low, high = float(relative.min()), float(relative.max())
        high = high if high > low else low + 1e-6
        counted = tuple((name, numbers(torch.histc(one, BINS, low, high))) for name, one in groups.items())
        edges = numbers(torch.linspace(low, high, BINS + 1))
        small = int((relative < 0.5).sum())
        caption = f"{small} of {len(relative)} training examples weigh less than half of the mean."
        if wrong is not None and known and not bool(wrong.all()):
            caption += f" {separation(relative, wrong.bool())}"
        panel = Histogram("", "weight over the mean", "training examples", edges, counted)
        return LearnedFacts("sample-weights", caption, (panel,))
    return None
