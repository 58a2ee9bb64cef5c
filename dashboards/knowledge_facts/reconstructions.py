"""Examples of an episode as they are, as an autoencoder sees them, and as it reconstructs them."""

import torch
from torch import Tensor

from metaloom.dashboards.knowledge_facts.base import FACTS, TrialKnowledge
from metaloom.dashboards.knowledge_facts.panels import Images, LearnedFacts, Line, Lines, Panel, numbers
from metaloom.dashboards.knowledge_facts.scaled import as_pictures, between, is_image

NAMES = ("original", "corrupted", "reconstruction")
SHOWN = 8
CURVES = 4  # examples that are drawn as curves
STYLES = {"original": "line", "corrupted": "thin", "reconstruction": "dashed"}


@FACTS.register("prediction.reconstructions")
@torch.no_grad()
def reconstructions(knowledge: TrialKnowledge) -> LearnedFacts | None:
    """Return the queries that are shown: images in rows, or a panel of curves for each."""
    found = {name: one for name in NAMES if (one := knowledge.shown.get(name)) is not None}
    shapes = {tuple(one.shape) for one in found.values()}
    finite = all(bool(one.isfinite().all()) and one.ndim > 1 and one.numel() for one in found.values())
    if not {"original", "reconstruction"} <= set(found) or len(shapes) > 1 or not finite:
        return None
    shown = {name: one[:SHOWN].double() for name, one in found.items()}
    if is_image(shown["original"]):
        return LearnedFacts("reconstructions", _words(shown), (_images(shown),))
    return LearnedFacts("reconstructions", _words(shown), _curves(shown), beside=True)


def _images(shown: dict[str, Tensor]) -> Images:
    """Return images on the scale of the originals."""
    low, high = float(shown["original"].min()), float(shown["original"].max())
    columns = tuple(map(str, range(1, len(shown["original"]) + 1)))
    rows = ((name, between(as_pictures(examples), low, high)) for name, examples in shown.items())
    return Images("", columns, tuple(rows))


def _curves(shown: dict[str, Tensor]) -> tuple[Panel, ...]:
    """Return a panel for each of the first examples, with a line for each of its channels."""
    length = shown["original"].shape[-1]
    at = tuple(map(float, range(length)))
    low, high = float(shown["original"].min()), float(shown["original"].max())
    margin = 0.1 * (high - low) + 1e-12
    panels = []
    for index in range(min(CURVES, len(shown["original"]))):
        curves = [
            Line(name if number == 0 else f"{name}, channel {number + 1}", at, numbers(line), STYLES[name], name)
            for name, examples in shown.items()
            for number, line in enumerate(examples[index].reshape(-1, length))
        ]
        title = f"query {index + 1}"
        panels.append(Lines(title, "place", "value", tuple(curves), low=low - margin, high=high + margin, whole=True))
    return tuple(panels)


def _words(shown: dict[str, Tensor]) -> str:
    original = shown["original"]
    errors = {name: float((one - original).square().mean()) for name, one in shown.items() if name != "original"}
    spread = float((original - original.mean(0)).square().mean())
    seen = errors.get("corrupted")
    middle = "" if seen is None else f", what the network sees of them (mean squared error {seen:.3g})"
    return (
        f"{len(original)} queries of a validation episode as they are{middle}, and reconstructed (mean squared error "
        f"{errors['reconstruction']:.3g}; their mean in place of each of them has {spread:.3g})."
    )
