"""The features of an episode: its examples and what stands for each class, along their two main directions."""

import torch
from torch import Tensor

from metaloom.dashboards.knowledge_facts.base import FACTS, TrialKnowledge
from metaloom.dashboards.knowledge_facts.panels import LearnedFacts, Plane, Points, numbers

MARKS = {"support": "o", "queries": ".", "prototypes": "X"}


@FACTS.register("prediction.features")
@torch.no_grad()
def features(knowledge: TrialKnowledge) -> LearnedFacts | None:
    """Return support examples, queries and prototypes in two dimensions, by their principal components."""
    points = {name: one for name in MARKS if (one := knowledge.matrix(name)) is not None}
    if len(points) < 2 or len({one.shape[1] for one in points.values()}) > 1:
        return None
    flat, share = plane(torch.cat(list(points.values())))
    clouds, start = [], 0
    for name, one in points.items():
        part = flat[start : (start := start + len(one))]
        classes = _classes(knowledge, name, len(one))
        clouds.append(Points(name, numbers(part[:, 0]), numbers(part[:, 1]), classes, MARKS[name]))
    ways = max(knowledge.task.outputs, 2)
    panel = Plane("", "first main direction", "second main direction", tuple(clouds), ways)
    counted = ", ".join(f"{len(one)} {name}" for name, one in points.items())
    caption = (
        f"A validation episode ({counted}) along the two main directions of its features, which hold {share:.0%} of "
        f"their variance; the colour is the class.{_nearest(knowledge, points)}"
    )
    return LearnedFacts("episode-features", caption, (panel,))


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


def _classes(knowledge: TrialKnowledge, name: str, count: int) -> tuple[int, ...]:
    """Return the class of each point; nothing where these are not known."""
    if name == "prototypes":
        return tuple(range(count))
    labels = knowledge.labels({"support": "labels", "queries": "query_labels"}[name], count)
    return () if labels is None else tuple(labels.tolist())


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
