"""A learned potential that shapes the reward, against the place of the mass."""

import torch

from metaloom.dashboards.canvas import canvas, name_axes
from metaloom.dashboards.knowledge_figures.base import DRAWERS, Picture, TrialKnowledge
from metaloom.dashboards.knowledge_figures.weights import floats
from metaloom.learners.knowledge.policy_gradient import ShapedPolicyGradient

REACH = 1.5  # the largest distance drawn from the goal, the origin
POINTS = 61
START = 1.0  # the distance at which episodes start


@DRAWERS.register("loss.potential")
def learned_potential(knowledge: TrialKnowledge) -> Picture | None:
    """Draw the learned potential of a mass at rest over the plane."""
    for loss, phi in knowledge.members("loss"):
        if not isinstance(loss, ShapedPolicyGradient) or not phi:
            continue
        line = torch.linspace(-REACH, REACH, POINTS)
        places = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)  # [y, x, 2]
        around = START * torch.stack([(angles := torch.linspace(0, 2 * torch.pi, POINTS)).cos(), angles.sin()], -1)
        with torch.no_grad():
            values, goal, start = (
                loss.potential(floats(phi), torch.cat([place, torch.zeros_like(place)], -1))
                for place in (places, torch.zeros(1, 2), around)
            )
        figure = canvas(5.0, 4.2)
        axes = figure.add_subplot()
        figure.colorbar(axes.contourf(line, line, values, levels=20), ax=axes, label="potential")
        axes.plot([0], [0], "x", color="white")
        name_axes(axes, "", "place", "place")
        caption = (
            f"The learned potential of a mass at rest is {float(goal):.3g} at the goal and on average "
            f"{float(start.mean()):.3g} at distance {START:g}: coming closer is "
            f"{'rewarded' if float(goal) > float(start.mean()) else 'punished'} on the way."
        )
        return Picture("potential", caption, figure)
    return None
