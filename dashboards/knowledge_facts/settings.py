"""The learned numbers in settings: of the update rule by layer and step, of others beside their starts."""

from dataclasses import fields
from functools import partial

import torch
from torch import Tensor

from metaloom.dashboards.knowledge_facts.base import FACTS, TrialKnowledge
from metaloom.dashboards.knowledge_facts.panels import Bars, LearnedFacts, Line, Lines, Panel, Rows, numbers
from metaloom.learners.component import Component
from metaloom.learners.knowledge.update_rules import UpdateRule
from metaloom.learners.tensors import part

SLOTS_DRAWN = ("architecture", "data", "loss", "prediction")  # other slots have their own facts
NAMED = 6  # a caption lists up to so many numbers; of more it gives the smallest and the largest
WHOLE = "all layers"


def learned_settings(slot: str, knowledge: TrialKnowledge) -> LearnedFacts | None:
    """Return the start and the present value of each learned setting of a slot."""
    settings = {
        name: (component.start(name), values)
        for component, phi in knowledge.members(slot)
        for name, values in learned_values(component, phi).items()
    }
    if not settings:
        return None
    starts = tuple((float(start),) for start, _ in settings.values())
    present = tuple(numbers(values) for _, values in settings.values())
    panel = Rows("", "value", "", tuple(settings), (("start", starts), ("learned", present)))
    caption = " ".join(_change(name, start, values) for name, (start, values) in settings.items())
    return LearnedFacts(f"{slot}-settings", caption, (panel,))


for _slot in SLOTS_DRAWN:
    FACTS.register(f"{_slot}.settings")(partial(learned_settings, _slot))


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
    told = [f"{float(value):.4g}" for value in (values if len(values) <= NAMED else torch.stack(values.aminmax()))]
    text = ", ".join(told) if len(values) <= NAMED else f"{len(values)} numbers from {' to '.join(told)}"
    return f"Learned {name}: {text} (from {start:.4g})."


@FACTS.register("update.rates")
@torch.no_grad()
def learned_rates(knowledge: TrialKnowledge) -> LearnedFacts | None:
    """Return each learned setting of the update rule: bars by layer, or lines over the steps."""
    knobs: dict[str, tuple[str, dict[str, Tensor]]] = {}
    for rule, phi in knowledge.members("update"):
        if isinstance(rule, UpdateRule) and phi:
            learned = rule.learned_knobs()
            names = [field.name for field in fields(rule.config) if field.name in learned]
            knobs |= {one: (rule.granularity(one), values) for one in names if (values := by_layer(rule, phi, one))}
    if not knobs:
        return None
    panels = tuple(_by_layer_panel(knob, values, per=per) for knob, (per, values) in knobs.items())
    return LearnedFacts("rates", " ".join(_range(knob, values) for knob, (_, values) in knobs.items()), panels)


def by_layer(rule: UpdateRule, phi: dict[str, Tensor], knob: str) -> dict[str, Tensor]:
    """Return a learned setting's values by layer: name to [], [steps], or the parameter's shape."""
    leaves = {WHOLE: phi[knob]} if knob in phi else part(phi, knob, optional=True)
    return {name: rule.real(knob).value(value) for name, value in leaves.items()}


def _by_layer_panel(knob: str, values: dict[str, Tensor], *, per: str) -> Panel:
    if per in ("step", "layer_step"):
        curves = [
            Line(layer, tuple(map(float, range(1, len(value) + 1))), numbers(value), "points")
            for layer, value in values.items()
        ]
        return Lines("", "inner step", knob, tuple(curves), whole=True)
    means = torch.stack([value.mean() for value in values.values()])
    # The bar is the mean over a layer's parameters; the whisker spans their middle 90%.
    middle = torch.tensor([0.05, 0.95], dtype=torch.float64)
    lows, highs = torch.stack([torch.quantile(value.flatten().double(), middle) for value in values.values()], 1)
    ranges = (numbers(lows), numbers(highs)) if per == "parameter" else ((), ())
    return Bars("", "", knob, tuple(values), numbers(means), *ranges, lying=True)


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
