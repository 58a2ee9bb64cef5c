"""Relaxed cells and genotypes: the mixture, its limit, what it is made discrete to, and DARTS on top."""

from typing import Any

import pytest
import torch
from bilevel import IMAGES, begun, built, episode_of, errors_by_slot, relative_error, seeded

from metaloom.learners import METHODS
from metaloom.learners.base import Tensors
from metaloom.learners.batch_norm import Normalization
from metaloom.learners.build import make_config
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.knowledge.cells import (
    OPERATIONS,
    CellsConfig,
    DiscreteCells,
    GenotypeConfig,
    RelaxedCells,
    derive_genotype,
    discretize,
    edges_of,
    nodes_of,
    parse_genotype,
)

FLAT = TaskShape("classification", (64,), 3, single_task=True)


def relaxed(task: TaskShape = IMAGES, **settings: Any) -> RelaxedCells:
    return RelaxedCells(make_config(CellsConfig, {"channels": 4, **settings}, "learner.architecture"), task)


def discrete(genotype: str, task: TaskShape = IMAGES, **settings: Any) -> DiscreteCells:
    return DiscreteCells(
        make_config(GenotypeConfig, {"genotype": genotype, "channels": 4, **settings}, "learner.architecture"), task
    )


def test_three_nodes_have_three_edges_and_so_125_genotypes() -> None:
    assert edges_of(3) == [(0, 1), (0, 2), (1, 2)]
    assert [len(edges_of(nodes)) for nodes in (2, 3, 4, 5)] == [1, 3, 6, 10]
    assert [nodes_of(edges) for edges in (1, 3, 6, 10)] == [2, 3, 4, 5]
    assert len(OPERATIONS) ** len(edges_of(3)) == 125


@pytest.mark.parametrize("genotype", ["conv3|skip|avg3", "conv1|conv3|none", "skip|none|conv3"])
def test_a_certain_mixture_is_its_genotype(genotype: str) -> None:
    """With all the mass on one operation an edge, the mixture computes what the genotype's network does."""
    mixture, network = relaxed(cells=2), discrete(genotype, cells=2)
    theta = mixture.parameters(seeded(0))
    certain = torch.full((3, len(OPERATIONS)), -1e4)
    for edge, operation in enumerate(parse_genotype(genotype)):
        certain[edge, OPERATIONS.index(operation)] = 0.0
    own = {name: theta.get(name, default) for name, default in network.parameters(seeded(0)).items()}
    x = episode_of(IMAGES, 0).support_x.float()
    found = mixture.outputs(theta, x, Normalization(), {"alpha": certain})
    torch.testing.assert_close(found, network.outputs(own, x, Normalization(), {}), rtol=1e-5, atol=1e-6)


def test_the_derived_genotype_is_the_strongest_but_none() -> None:
    alpha = torch.zeros(3, len(OPERATIONS))
    alpha[:, OPERATIONS.index("none")] = 9.0
    alpha[0, OPERATIONS.index("conv3")] = alpha[1, OPERATIONS.index("skip")] = alpha[2, OPERATIONS.index("avg3")] = 1.0
    assert derive_genotype(alpha) == "conv3|skip|avg3"


def test_flat_examples_are_read_as_square_images() -> None:
    images, flat = relaxed(), relaxed(FLAT)
    theta, phi = images.parameters(seeded(0)), {"alpha": torch.zeros(3, len(OPERATIONS))}
    x = episode_of(IMAGES, 0).support_x.float()
    same = flat.outputs(theta, x.flatten(1), Normalization(), phi)
    torch.testing.assert_close(same, images.outputs(theta, x, Normalization(), phi), rtol=0, atol=0)


@pytest.mark.parametrize(("nodes", "cells"), [(2, 1), (4, 2), (5, 1)])
def test_other_sizes_work(nodes: int, cells: int) -> None:
    network = relaxed(nodes=nodes, cells=cells)
    phi = network.init({}, seeded(0))
    assert phi["alpha"].shape == (len(edges_of(nodes)), len(OPERATIONS))
    genotype = derive_genotype(phi["alpha"])
    x = episode_of(IMAGES, 0).support_x.float()
    for one, part in ((network, phi), (discrete(genotype, cells=cells), {})):
        outputs = one.outputs(one.parameters(seeded(0)), x, Normalization(), part)
        assert outputs.shape == (6, 3)
        assert torch.isfinite(outputs).all()


def test_a_cell_of_nothing_still_answers() -> None:
    network = discrete("none|none|none")
    outputs = network.outputs(network.parameters(seeded(0)), torch.randn(4, 1, 8, 8), Normalization(), {})
    assert torch.equal(outputs, outputs[:1].expand_as(outputs))


@pytest.mark.parametrize(
    ("genotype", "message"),
    [
        ("conv3|skp|avg3", r"'conv3\|skp\|avg3': no operation is named 'skp'; did you mean 'skip'\?"),
        ("conv3|skip", r"'conv3\|skip' has 2 edges; a cell has 1, 3, 6 or 10"),
        ("", r"no operation is named ''"),
    ],
)
def test_a_wrong_genotype_is_refused(genotype: str, message: str) -> None:
    with pytest.raises(LearnerError, match=message):
        discrete(genotype)


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        (TaskShape("classification", (60,), 3), {}, r"cells read images .* have shape \(60,\); use mlp"),
        (TaskShape("classification", (4, 4), 3), {}, r"have shape \(4, 4\); use mlp"),
        (IMAGES, {"cells": 5}, r"architecture\.cells: 4 halvings leave nothing of 8x8 images; use fewer"),
    ],
)
def test_a_task_without_room_for_cells_is_refused(task: TaskShape, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(LearnerError, match=message):
        relaxed(task, **settings)


def test_discretize_keeps_everything_else_of_the_learner() -> None:
    learner = {
        "method": "darts",
        "architecture": {"kind": "cells", "channels": 4, "cells": 2, "nodes": 3},
        "update": {"kind": "sgd", "rate": 0.1},
    }
    alpha = torch.zeros(3, len(OPERATIONS))
    alpha[:, OPERATIONS.index("conv1")] = 1.0
    settings = discretize(learner, {"architecture/alpha": alpha, "weighting/other": torch.zeros(1)})
    assert settings == {
        "method": "darts",
        "architecture": {"kind": "genotype", "genotype": "conv1|conv1|conv1", "channels": 4, "cells": 2},
        "update": {"kind": "sgd", "rate": 0.1},
    }
    rest = {name: value for name, value in settings.items() if name != "method"}
    assert built(rest, IMAGES, inner={"mode": "online"}).init(seeded(0)) == {}  # nothing is left to learn


def test_only_relaxed_cells_are_made_discrete() -> None:
    with pytest.raises(LearnerError, match=r"outer\.retrain_steps: only an architecture of relaxed cells"):
        discretize({"architecture": {"kind": "conv4"}}, {})


def darts(name: str) -> tuple[Any, Tensors, Tensors]:
    recipe = METHODS[name]
    learner = built(
        {**recipe.learner, "architecture": {"kind": "cells", "channels": 4}},
        IMAGES,
        inner=recipe.inner,
        estimator=recipe.outer["hypergradient"],
    )
    return learner, *begun(learner)


def test_second_order_darts_is_exact() -> None:
    learner, _, _ = darts("darts")
    assert errors_by_slot(learner, [episode_of(IMAGES, 1)], length=1e-8, directions=1)["architecture"] < 1e-5


def test_first_order_darts_is_the_loss_by_alpha_at_theta() -> None:
    learner, phi, state = darts("darts_first_order")
    episode = episode_of(IMAGES, 1)
    found = learner.meta_step(phi, state, [episode], seeded(0)).gradient["architecture/alpha"]
    alpha = phi["architecture/alpha"].clone().requires_grad_()
    theta = {name.removeprefix("theta/"): value for name, value in state.items() if name.startswith("theta/")}
    outputs = learner.slots.architecture.outputs(theta, episode.query_x, Normalization(), {"alpha": alpha})
    loss = torch.nn.functional.cross_entropy(outputs, episode.query_y)
    torch.testing.assert_close(found, torch.autograd.grad(loss, alpha)[0], rtol=1e-12, atol=1e-14)


def test_the_reference_codes_difference_quotient_is_near_but_not_exact() -> None:
    exact, phi, state = darts("darts")
    recipe = METHODS["darts"]
    settings = {**recipe.learner, "architecture": {"kind": "cells", "channels": 4}}
    quotient = built(settings, IMAGES, inner=recipe.inner, estimator="finite_difference")
    found = [
        one.meta_step(phi, state, [episode_of(IMAGES, 1)], seeded(0)).gradient["architecture/alpha"]
        for one in (exact, quotient)
    ]
    assert 1e-9 < relative_error(found[1], found[0]) < 0.2
