"""The learned numbers among the settings of a component, such as a label smoothing or a temperature."""

from functools import partial

import torch
from torch import Tensor

from metaloom.dashboards.canvas import canvas, name_axes
from metaloom.dashboards.knowledge_figures.base import DRAWERS, Known, Picture
from metaloom.learners.component import Component

DRAWN = ("architecture", "data", "loss", "prediction")  # the other slots' settings have drawers of their own
NAMED = 6  # learned numbers that are named one by one; of more, the least and the greatest are


def learned_settings(slot: str, known: Known) -> Picture | None:
    """Draw each learned setting of a slot: where it started, and where it stands."""
    found = {
        name: (component.start(name), values)
        for component, phi in known.members(slot)
        for name, values in learned_values(component, phi).items()
    }
    if not found:
        return None
    figure = canvas(6.0, 1.2 + 0.5 * len(found))
    axes = figure.add_subplot()
    for place, (start, values) in enumerate(found.values()):
        axes.plot([start], [place], "|", markersize=14, color="tab:gray", label="" if place else "start")
        axes.plot(values, [place] * len(values), "o", color="tab:blue", label="" if place else "learned")
    axes.set_yticks(range(len(found)), list(found))
    axes.invert_yaxis()
    name_axes(axes, "", "value", "")
    axes.legend(fontsize=8)
    told = " ".join(_words(name, start, values) for name, (start, values) in found.items())
    return Picture(f"{slot}-settings", told, figure)


for _slot in DRAWN:
    DRAWERS.register(f"{_slot}.settings")(partial(learned_settings, _slot))


def learned_values(component: Component, phi: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the values of a component's learned settings: name to [numbers]."""
    found: dict[str, Tensor] = {}
    for name in component.learned_knobs():
        leaves = [value for leaf, value in phi.items() if leaf == name or leaf.startswith(f"{name}/")]
        if leaves:
            real = component.real(name)
            found[name] = torch.cat([real.value(leaf).flatten() for leaf in leaves])
    return found


def _words(name: str, start: float, values: Tensor) -> str:
    numbers = [f"{float(value):.4g}" for value in (values if len(values) <= NAMED else torch.stack(values.aminmax()))]
    told = ", ".join(numbers) if len(values) <= NAMED else f"{len(values)} numbers from {' to '.join(numbers)}"
    return f"Learned {name}: {told} (from {start:.4g})."
