"""The cell as a graph, and the distilled examples as pictures."""

from typing import Any

import pytest
import torch

from metaloom.dashboards.canvas import png
from metaloom.dashboards.knowledge_facts.architecture import genotype_graph
from metaloom.dashboards.knowledge_facts.distilled import examples_by_class
from metaloom.dashboards.knowledge_facts.panels import LearnedFacts
from metaloom.dashboards.knowledge_facts.scaled import as_pictures
from metaloom.dashboards.knowledge_figures import Picture, TrialKnowledge, pictures
from metaloom.dashboards.knowledge_figures.drawing import figure_of
from metaloom.dashboards.knowledge_figures.matrices import mosaic
from metaloom.learners import build_learner
from metaloom.learners.episode import TaskShape
from metaloom.learners.knowledge.genotypes import OPERATIONS

IMAGES = TaskShape("classification", (1, 8, 8), 3, single_task=True)


def drawn(task: TaskShape, **slots: Any) -> tuple[TrialKnowledge, list[Picture]]:
    learner = {"initialization": {"kind": "random"}, **slots}
    phi = build_learner(learner=learner, inner={}, outer={}, task=task).init(torch.Generator().manual_seed(0))
    known = TrialKnowledge(learner, task, phi, {})
    return known, pictures(known)


def texts(picture: Picture) -> list[str]:
    return [one.get_text() for one in picture.figure.axes[0].texts if one.get_text()]


def test_relaxed_cells_are_drawn_as_what_their_logits_say() -> None:
    known, _ = drawn(IMAGES, architecture={"kind": "cells", "channels": 4})
    alpha = torch.zeros(3, len(OPERATIONS))
    alpha[0, OPERATIONS.index("conv3")] = alpha[1, OPERATIONS.index("skip")] = alpha[2, OPERATIONS.index("avg3")] = 2.0
    known.phi["architecture/alpha"] = alpha
    picture, mixture = pictures(known)
    share = float(torch.softmax(alpha, -1).max())
    assert texts(picture) == [*(f"{one} {share:.2f}" for one in ("conv3", "skip", "avg3")), "in", "1", "out"]
    assert picture.name == "cell"
    assert picture.caption.startswith("The cell conv3|skip|avg3: of its 3 edges 1 conv3, 1 skip, 1 avg3.")
    assert f"shares from {share:.2f} to {share:.2f}" in picture.caption
    assert (mixture.name, len(texts(mixture))) == ("operation-shares", 3 * len(OPERATIONS))
    bits = float(torch.distributions.Categorical(logits=alpha.double()).entropy().mean() / torch.tensor(2.0).log())
    assert f"An edge's choice holds {bits:.2f} bits of doubt on average; equal shares have 2.32" in mixture.caption


def test_a_genotype_is_drawn_as_it_is() -> None:
    _, (picture,) = drawn(IMAGES, architecture={"kind": "genotype", "genotype": "conv3|none|conv3", "channels": 4})
    assert texts(picture) == ["conv3", "none", "conv3", "in", "1", "out"]
    assert picture.caption == "The cell conv3|none|conv3: of its 3 edges 2 conv3, 1 none."
    assert png(picture.figure).startswith(b"\x89PNG")


@pytest.mark.parametrize(("edges", "nodes"), [(1, 2), (6, 4), (10, 5)])
def test_cells_of_every_size_are_drawn_with_no_two_labels_in_one_place(edges: int, nodes: int) -> None:
    (axes,) = figure_of(LearnedFacts("cell", "", (genotype_graph("|".join(["conv1"] * edges)),))).axes
    labels = [one.get_position() for one in axes.texts if one.get_text() == "conv1"]
    assert len(labels) == edges == len({(round(x, 2), round(y, 2)) for x, y in labels})
    assert len([one for one in axes.texts if one.get_text() in ("in", "out", "1", "2", "3")]) == nodes


def test_distilled_examples_are_drawn_a_column_a_class() -> None:
    data = {"kind": "distilled", "per_class": 2, "learn_labels": True}
    known, (picture,) = drawn(IMAGES, architecture={"kind": "mlp", "hidden": [4]}, data=data)
    (axes,) = picture.figure.axes
    assert [one.get_text() for one in axes.get_xticklabels()] == ["0", "1", "2"]
    assert axes.get_images()[0].get_array().shape == (2 * 8 + 1, 3 * 8 + 2)  # two rows of three, with gaps
    own = torch.softmax(known.phi["data/labels"], -1).max(-1).values.mean()
    assert picture.caption == (
        "6 learned examples, 2 of each class, in place of the training set. "
        f"Their learned labels give their own class {float(own):.2f} on average."
    )
    assert png(picture.figure).startswith(b"\x89PNG")


@pytest.mark.parametrize("kind", ["gradient_matching", "distribution_matching"])
def test_matched_examples_are_drawn_too(kind: str) -> None:
    _, (picture,) = drawn(IMAGES, architecture={"kind": "mlp", "hidden": [4]}, data={"kind": kind})
    assert picture.name == "distilled-data"


@pytest.mark.parametrize(
    ("inputs", "shape"),
    [((1, 8, 9), (8, 9)), ((3, 8, 9), (8, 9, 3)), ((2, 8, 9), (8, 9)), ((64,), (8, 8)), ((6,), (1, 6))],
)
def test_whatever_the_examples_are_they_become_pictures(inputs: tuple[int, ...], shape: tuple[int, ...]) -> None:
    examples = torch.rand(4, *inputs)
    found = as_pictures(examples)
    assert found.shape == (4, *shape)
    assert found.sum() == pytest.approx(float(examples.sum()) / (2 if inputs[0] == 2 else 1), rel=1e-5)
    sheet, size = mosaic(examples_by_class(examples, 2))
    assert size == shape[:2] and sheet.shape[0] == 2 * shape[0] + 1


def test_of_many_examples_the_first_are_shown() -> None:
    data = {"kind": "distilled", "per_class": 12}
    _, (picture,) = drawn(IMAGES, architecture={"kind": "mlp", "hidden": [4]}, data=data)
    assert picture.figure.axes[0].get_images()[0].get_array().shape[0] == 10 * 8 + 9
    assert "(the first 10 of each are shown)" in picture.caption
