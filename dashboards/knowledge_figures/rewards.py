"""A learned shaping of the reward, by where the mass is."""

import torch

from metaloom.dashboards.canvas import canvas, name_axes
from metaloom.dashboards.knowledge_figures.base import DRAWERS, Known, Picture
from metaloom.dashboards.knowledge_figures.weights import floats
from metaloom.learners.knowledge.policy_gradient import ShapedPolicyGradient

REACH = 1.5  # how far from the goal, which is the origin, is drawn
POINTS = 61
START = 1.0  # the distance at which episodes start


@DRAWERS.register("loss.potential")
def learned_potential(known: Known) -> Picture | None:
    """Draw the learned potential of a mass at rest, by its place in the plane."""
    for loss, phi in known.members("loss"):
        if not isinstance(loss, ShapedPolicyGradient) or not phi:
            continue
        line = torch.linspace(-REACH, REACH, POINTS)
        places = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)  # [y, x, 2]
        around = START * torch.stack([(angles := torch.linspace(0, 2 * torch.pi, POINTS)).cos(), angles.sin()], -1)
        with torch.no_grad():
            values, goal, start = (
                loss.potential(floats(phi), torch.cat([one, torch.zeros_like(one)], -1))
                for one in (places, torch.zeros(1, 2), around)
            )
        figure = canvas(5.0, 4.2)
        axes = figure.add_subplot()
        drawn = axes.contourf(line, line, values, levels=20)
        figure.colorbar(drawn, ax=axes, label="potential")
        axes.plot([0], [0], "x", color="white")
        name_axes(axes, "", "place", "place")
        caption = (
            f"The learned potential of a mass at rest is {float(goal):.3g} at the goal and on average "
            f"{float(start.mean()):.3g} at distance {START:g}: coming closer is "
            f"{'rewarded' if float(goal) > float(start.mean()) else 'punished'} on the way."
        )
        return Picture("potential", caption, figure)
    return None
