"""The features of an episode: its examples and what stands for each class, along their two main directions."""

from typing import Any

import torch
from torch import Tensor

from metaloom.dashboards.canvas import legend, name_axes, panel
from metaloom.dashboards.knowledge_figures.base import DRAWERS, Picture, TrialKnowledge

MARKS = {"support": "o", "queries": ".", "prototypes": "X"}
SIZES = {"support": 45, "queries": 30, "prototypes": 130}


@DRAWERS.register("prediction.features")
@torch.no_grad()
def features(knowledge: TrialKnowledge) -> Picture | None:
    """Draw support examples, queries and prototypes in two dimensions, by their principal components."""
    points = {name: one for name in MARKS if (one := knowledge.matrix(name)) is not None}
    if len(points) < 2 or len({one.shape[1] for one in points.values()}) > 1:
        return None
    flat, share = plane(torch.cat(list(points.values())))
    figure, axes = panel(6.0, 4.5)
    start = 0
    for name, one in points.items():
        part = flat[start : (start := start + len(one))]
        settings = {"marker": MARKS[name], "s": SIZES[name], "label": name, **_colours(knowledge, name, len(one))}
        axes.scatter(part[:, 0], part[:, 1], **settings)
    name_axes(axes, "", "first main direction", "second main direction")
    legend(axes)
    counted = ", ".join(f"{len(one)} {name}" for name, one in points.items())
    caption = (
        f"A validation episode ({counted}) along the two main directions of its features, which hold {share:.0%} of "
        f"their variance; the colour is the class.{_nearest(knowledge, points)}"
    )
    return Picture("episode-features", caption, figure)


def plane(points: Tensor) -> tuple[Tensor, float]:
    """Return the two principal components of points [n, d] as [n, 2], and the share of the variance that they hold.

    The sign of a component is that in which its largest weight is above 0.
    """
    centred = points.double() - points.double().mean(0)
    _, sizes, directions = torch.linalg.svd(centred, full_matrices=False)
    first = directions[:2]
    signs = torch.gather(first, 1, first.abs().argmax(1, keepdim=True)).sign()
    flat = centred @ (first * signs).T
    flat = torch.nn.functional.pad(flat, (0, 2 - flat.shape[1]))  # features of a single number lie on a line
    whole = float(sizes.square().sum())
    return flat, float(sizes[:2].square().sum()) / whole if whole else 1.0


def _colours(knowledge: TrialKnowledge, name: str, count: int) -> dict[str, Any]:
    """Return the settings that colour points by their classes, or grey where these are not known."""
    given = {"support": "labels", "queries": "query_labels"}
    labels = torch.arange(count) if name == "prototypes" else knowledge.labels(given[name], count)
    edge = {"edgecolors": "black", "linewidths": 0.8} if name != "queries" else {}
    ways = max(knowledge.task.outputs, 2)
    coloured = {"color": "grey"} if labels is None else {"c": labels, "cmap": "tab20", "vmin": 0, "vmax": ways - 1}
    return {**coloured, **edge}


def _nearest(knowledge: TrialKnowledge, points: dict[str, Tensor]) -> str:
    """Say how many queries lie nearest to the prototype of their own class; empty where that is not known."""
    if "prototypes" not in points or "queries" not in points:
        return ""
    labels = knowledge.labels("query_labels", len(points["queries"]))
    if labels is None:
        return ""
    nearest = torch.cdist(points["queries"], points["prototypes"]).argmin(1)
    right = int((nearest == labels).sum())
    return f" Of {len(labels)} queries {right} lie nearest to the prototype of their own class."
