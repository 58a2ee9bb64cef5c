"""The learned settings of the update rule: rates by layer and step, momentum, decay."""

from dataclasses import fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from metaloom.dashboards.canvas import canvas, name_axes
from metaloom.dashboards.knowledge_figures.base import DRAWERS, Picture, TrialKnowledge
from metaloom.learners.knowledge.update_rules import UpdateRule
from metaloom.learners.tensors import part

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WHOLE = "all layers"


@DRAWERS.register("update.rates")
def learned_settings(knowledge: TrialKnowledge) -> Picture | None:
    """Draw each learned setting of the update rule: bars by layer, or lines over the steps."""
    ((rule, phi),) = knowledge.members("update")
    if not isinstance(rule, UpdateRule) or not phi:
        return None
    knobs = {knob: values for knob in _learned(rule) if (values := by_layer(rule, phi, knob))}
    if not knobs:
        return None
    layers = max(len(values) for values in knobs.values())
    figure = canvas(7.0, len(knobs) * (1.6 + 0.22 * layers))
    for number, (knob, values) in enumerate(knobs.items()):
        _panel(figure, (len(knobs), number), knob, values, per=rule.granularity(knob))
    return Picture("rates", " ".join(_words(knob, values) for knob, values in knobs.items()), figure)


def by_layer(rule: UpdateRule, phi: dict[str, Tensor], knob: str) -> dict[str, Tensor]:
    """Return a learned setting's values by layer: name to [], [steps], or the parameter's shape."""
    real = rule.real(knob)
    if knob in phi:
        return {WHOLE: real.value(phi[knob])}
    return {name: real.value(value) for name, value in part(phi, knob).items()}


def _learned(rule: UpdateRule) -> list[str]:
    learned = rule.learned_knobs()
    return [field.name for field in fields(rule.config) if field.name in learned]


def _panel(figure: "Figure", place: tuple[int, int], knob: str, values: dict[str, Tensor], *, per: str) -> None:
    axes = figure.add_subplot(place[0], 1, place[1] + 1)
    if per in ("step", "layer_step"):
        for layer, value in values.items():
            axes.plot(range(1, len(value) + 1), value, marker="o", label=layer)
        name_axes(axes, "", "inner step", knob)
        axes.legend(fontsize=7, ncols=2)
        return
    names = list(values)
    flat = [value.flatten() for value in values.values()]
    means = torch.stack([value.mean() for value in flat])
    # The bar is the mean over a layer's parameters; the whisker spans their middle 90%.
    ends = [torch.quantile(value.double(), torch.tensor([0.05, 0.95], dtype=torch.float64)) for value in flat]
    reach = [
        [max(float(mean - end[0]), 0.0) for mean, end in zip(means, ends, strict=True)],
        [max(float(end[1] - mean), 0.0) for mean, end in zip(means, ends, strict=True)],
    ]
    axes.barh(names, means, xerr=reach if per == "parameter" else None, capsize=2)
    axes.invert_yaxis()
    name_axes(axes, "", knob, "")


def _words(knob: str, values: dict[str, Tensor]) -> str:
    """Describe a setting's range in one sentence."""
    means = {layer: float(value.mean()) for layer, value in values.items()}
    if len(means) == 1:
        ((layer, value),) = values.items()
        if value.numel() == 1:
            return f"Learned {knob}: {float(value):.4g} for {layer}."
        first, last = float(value.flatten()[0]), float(value.flatten()[-1])
        return f"Learned {knob}: from {first:.4g} at the first to {last:.4g} at the last step, for {layer}."
    low, high = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    return f"Learned {knob}: on average smallest for {low} ({means[low]:.4g}), largest for {high} ({means[high]:.4g})."
