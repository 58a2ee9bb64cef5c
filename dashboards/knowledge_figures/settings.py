"""The learned numbers in a component's settings, such as a label smoothing or a temperature."""

from functools import partial

import torch
from torch import Tensor

from metaloom.dashboards.canvas import canvas, name_axes
from metaloom.dashboards.knowledge_figures.base import DRAWERS, Picture, TrialKnowledge
from metaloom.learners.component import Component

SLOTS_DRAWN = ("architecture", "data", "loss", "prediction")  # other slots have their own drawers
NAMED = 6  # a caption lists up to so many numbers; of more it gives the smallest and the largest


def learned_settings(slot: str, knowledge: TrialKnowledge) -> Picture | None:
    """Draw the start and the present value of each learned setting of a slot."""
    settings = {
        name: (component.start(name), values)
        for component, phi in knowledge.members(slot)
        for name, values in learned_values(component, phi).items()
    }
    if not settings:
        return None
    figure = canvas(6.0, 1.2 + 0.5 * len(settings))
    axes = figure.add_subplot()
    for place, (start, values) in enumerate(settings.values()):
        axes.plot([start], [place], "|", markersize=14, color="tab:gray", label="" if place else "start")
        axes.plot(values, [place] * len(values), "o", color="tab:blue", label="" if place else "learned")
    axes.set_yticks(range(len(settings)), list(settings))
    axes.invert_yaxis()
    name_axes(axes, "", "value", "")
    axes.legend(fontsize=8)
    caption = " ".join(_words(name, start, values) for name, (start, values) in settings.items())
    return Picture(f"{slot}-settings", caption, figure)


for _slot in SLOTS_DRAWN:
    DRAWERS.register(f"{_slot}.settings")(partial(learned_settings, _slot))


def learned_values(component: Component, phi: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the values of a component's learned settings: name to [numbers]."""
    settings: dict[str, Tensor] = {}
    for name in component.learned_knobs():
        leaves = [value for leaf, value in phi.items() if leaf == name or leaf.startswith(f"{name}/")]
        if leaves:
            real = component.real(name)
            settings[name] = torch.cat([real.value(leaf).flatten() for leaf in leaves])
    return settings


def _words(name: str, start: float, values: Tensor) -> str:
    numbers = [f"{float(value):.4g}" for value in (values if len(values) <= NAMED else torch.stack(values.aminmax()))]
    text = ", ".join(numbers) if len(values) <= NAMED else f"{len(values)} numbers from {' to '.join(numbers)}"
    return f"Learned {name}: {text} (from {start:.4g})."
