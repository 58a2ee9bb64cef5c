"""The learned numbers in settings: of the update rule by layer and step, of others beside their starts."""

from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from metaloom.dashboards.canvas import canvas, legend, name_axes, panel
from metaloom.dashboards.knowledge_figures.base import DRAWERS, Picture, TrialKnowledge
from metaloom.learners.component import Component
from metaloom.learners.knowledge.update_rules import UpdateRule
from metaloom.learners.tensors import part

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SLOTS_DRAWN = ("architecture", "data", "loss", "prediction")  # other slots have their own drawers
NAMED = 6  # a caption lists up to so many numbers; of more it gives the smallest and the largest
WHOLE = "all layers"


def learned_settings(slot: str, knowledge: TrialKnowledge) -> Picture | None:
    """Draw the start and the present value of each learned setting of a slot."""
    settings = {
        name: (component.start(name), values)
        for component, phi in knowledge.members(slot)
        for name, values in learned_values(component, phi).items()
    }
    if not settings:
        return None
    figure, axes = panel(6.0, 1.2 + 0.5 * len(settings))
    for place, (start, values) in enumerate(settings.values()):
        axes.plot([start], [place], "|", markersize=14, color="tab:gray", label="" if place else "start")
        axes.plot(values, [place] * len(values), "o", color="tab:blue", label="" if place else "learned")
    axes.set_yticks(range(len(settings)), list(settings))
    axes.invert_yaxis()
    name_axes(axes, "", "value", "")
    legend(axes)
    caption = " ".join(_change(name, start, values) for name, (start, values) in settings.items())
    return Picture(f"{slot}-settings", caption, figure)


for _slot in SLOTS_DRAWN:
    DRAWERS.register(f"{_slot}.settings")(partial(learned_settings, _slot))


def learned_values(component: Component, phi: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the values of a component's learned settings: name to [numbers]."""
    leaves = {
        name: [value for leaf, value in phi.items() if leaf == name or leaf.startswith(f"{name}/")]
        for name in component.learned_knobs()
    }
    return {
        name: torch.cat([component.real(name).value(value).flatten() for value in values])
        for name, values in leaves.items()
        if values
    }


def _change(name: str, start: float, values: Tensor) -> str:
    numbers = [f"{float(value):.4g}" for value in (values if len(values) <= NAMED else torch.stack(values.aminmax()))]
    text = ", ".join(numbers) if len(values) <= NAMED else f"{len(values)} numbers from {' to '.join(numbers)}"
    return f"Learned {name}: {text} (from {start:.4g})."


@DRAWERS.register("update.rates")
def learned_rates(knowledge: TrialKnowledge) -> Picture | None:
    """Draw each learned setting of the update rule: bars by layer, or lines over the steps."""
    ((rule, phi),) = knowledge.members("update")
    if not isinstance(rule, UpdateRule) or not phi:
        return None
    learned = rule.learned_knobs()
    names = [field.name for field in fields(rule.config) if field.name in learned]
    knobs = {knob: values for knob in names if (values := by_layer(rule, phi, knob))}
    if not knobs:
        return None
    layers = max(len(values) for values in knobs.values())
    figure = canvas(7.0, len(knobs) * (1.6 + 0.22 * layers))
    for number, (knob, values) in enumerate(knobs.items()):
        _draw_by_layer(figure.add_subplot(len(knobs), 1, number + 1), knob, values, per=rule.granularity(knob))
    return Picture("rates", " ".join(_range(knob, values) for knob, values in knobs.items()), figure)


def by_layer(rule: UpdateRule, phi: dict[str, Tensor], knob: str) -> dict[str, Tensor]:
    """Return a learned setting's values by layer: name to [], [steps], or the parameter's shape."""
    leaves = {WHOLE: phi[knob]} if knob in phi else part(phi, knob)
    return {name: rule.real(knob).value(value) for name, value in leaves.items()}


def _draw_by_layer(axes: "Axes", knob: str, values: dict[str, Tensor], *, per: str) -> None:
    if per in ("step", "layer_step"):
        for layer, value in values.items():
            axes.plot(range(1, len(value) + 1), value, marker="o", label=layer)
        name_axes(axes, "", "inner step", knob)
        legend(axes, columns=1 + len(values) // 16)
        return
    means = torch.stack([value.mean() for value in values.values()])
    # The bar is the mean over a layer's parameters; the whisker spans their middle 90%.
    middle = torch.tensor([0.05, 0.95], dtype=torch.float64)
    low, high = torch.stack([torch.quantile(value.flatten().double(), middle) for value in values.values()], 1)
    reach = torch.stack([means - low, high - means]).clamp_min(0.0).tolist()
    axes.barh(list(values), means, xerr=reach if per == "parameter" else None, capsize=2)
    axes.invert_yaxis()
    name_axes(axes, "", knob, "")


def _range(knob: str, values: dict[str, Tensor]) -> str:
    means = {layer: float(value.mean()) for layer, value in values.items()}
    if len(means) == 1:
        ((layer, value),) = values.items()
        if value.numel() == 1:
            return f"Learned {knob}: {float(value):.4g} for {layer}."
        first, last = float(value.flatten()[0]), float(value.flatten()[-1])
        return f"Learned {knob}: from {first:.4g} at the first to {last:.4g} at the last step, for {layer}."
    low, high = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    return f"Learned {knob}: on average smallest for {low} ({means[low]:.4g}), largest for {high} ({means[high]:.4g})."
