"""Relaxed cells and genotypes: the mixture, its limit, what it is made discrete to, and DARTS on top."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metaloom.learners import METHODS
from metaloom.learners.build import make_config
from metaloom.learners.component import OUTER_STEP
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.knowledge.cells import CellsConfig, RelaxedCells, derive_genotype, shares_of_nodes
from metaloom.learners.knowledge.genotypes import (
    EDGES,
    OPERATIONS,
    DiscreteCells,
    GenotypeConfig,
    edges_of,
    nodes_of,
    parse_genotype,
)
from metaloom.learners.networks.base import discretized
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.tensors import Tensors
from metaloom.testing.problems import (
    IMAGES,
    begun,
    built,
    central_difference,
    episode_of,
    errors_by_slot,
    relative_error,
    seeded,
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
    settings = discretized(learner, {"architecture/alpha": alpha, "weighting/other": torch.zeros(1)})
    assert settings == {
        "method": "darts",
        "architecture": {"kind": "genotype", "genotype": "conv1|conv1|conv1", "channels": 4, "cells": 2},
        "update": {"kind": "sgd", "rate": 0.1},
    }
    rest = {name: value for name, value in settings.items() if name != "method"}
    assert built(rest, IMAGES, inner={"mode": "online"}).init(seeded(0)) == {}  # nothing is left to learn


def test_only_relaxed_cells_are_made_discrete() -> None:
    with pytest.raises(LearnerError, match=r"outer\.retrain_steps: only a relaxed architecture"):
        discretized({"architecture": {"kind": "conv4"}}, {})


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
    theta = state.theta
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


# GDAS: one drawn operation an edge


def drawn(alpha: torch.Tensor, seed: int, *, step: int = 0, **settings: Any) -> tuple[RelaxedCells, Tensors]:
    """Return sampled cells, and what one pass reads of phi."""
    network = relaxed(relaxation="sampled", **settings)
    noise = {name: row[0] for name, row in network.draw_noise(alpha, 1, seeded(seed), training=True).items()}
    return network, network.sampled({"alpha": alpha}, {OUTER_STEP: torch.tensor(step), **noise})


@pytest.mark.parametrize("seed", range(6))
def test_a_sampled_pass_is_the_network_of_the_operations_drawn(seed: int) -> None:
    network, own = drawn(torch.zeros(3, len(OPERATIONS)), seed, cells=2)
    assert torch.equal(own["shares"].sort(-1).values, torch.eye(len(OPERATIONS))[-1].expand(3, -1))
    genotype = "|".join(OPERATIONS[index] for index in own["shares"].argmax(-1).tolist())
    theta = network.parameters(seeded(0))
    single = discrete(genotype, cells=2)
    its = {name: theta.get(name, default) for name, default in single.parameters(seeded(0)).items()}
    x = episode_of(IMAGES, 0).support_x.float()
    found = network.features(theta, x, Normalization(fused=True), own)
    torch.testing.assert_close(found, single.features(its, x, Normalization(), {}), rtol=1e-5, atol=1e-6)
    every = network.features(theta, x, Normalization(fused=False), own)  # as a batched pass computes it
    torch.testing.assert_close(every, found, rtol=1e-5, atol=1e-6)


def test_operations_are_drawn_by_their_shares() -> None:
    """The Gumbel trick: the argmax of logits plus Gumbel noise falls as the softmax says."""
    alpha = torch.randn(3, len(OPERATIONS), generator=seeded(0))
    network = relaxed(relaxation="sampled")
    noise = network.draw_noise(alpha, 3999, seeded(1), training=True)["gumbel"]
    chosen = (torch.log_softmax(alpha, -1) + noise).argmax(-1)  # [4000, edges]
    found = torch.stack([(chosen == index).double().mean(0) for index in range(len(OPERATIONS))], -1)
    shares = torch.softmax(alpha, -1).double()
    assert ((found - shares).abs() < 5 * (shares * (1 - shares) / 4000).sqrt()).all()


def test_the_gradient_of_the_logits_is_straight_through() -> None:
    """d h_k times what the drawn operation does to the loss, h the softmax at the temperature of the step."""
    alpha = torch.randn(3, len(OPERATIONS), generator=seeded(0), dtype=torch.float64).requires_grad_()
    settings = {"temperature": 4.0, "final_temperature": 1.0, "annealing": 30}
    network, own = drawn(alpha, 3, step=10, **settings)
    theta = {name: value.double() for name, value in network.parameters(seeded(0)).items()}
    x = episode_of(IMAGES, 0).support_x
    chosen = own["shares"].argmax(-1)
    held = own["shares"].detach().requires_grad_()
    loss = network.features(theta, x, Normalization(fused=True), {"shares": held}).square().sum()
    effect = torch.autograd.grad(loss, held)[0].gather(1, chosen[:, None])[:, 0]  # of each edge's own operation
    gumbel = network.draw_noise(alpha, 1, seeded(3), training=True)["gumbel"][0].double()
    soft = torch.softmax((torch.log_softmax(alpha, -1) + gumbel) / 3.0, -1)  # 4 falls by 3 in 30 steps: 3 at step 10
    expected = torch.autograd.grad((effect * soft.gather(1, chosen[:, None])[:, 0]).sum(), alpha)[0]
    found = torch.autograd.grad(network.features(theta, x, Normalization(fused=True), own).square().sum(), alpha)[0]
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert float(found.abs().max()) > 0


def test_what_is_not_drawn_is_not_computed_and_gets_no_gradient() -> None:
    alpha = torch.zeros(3, len(OPERATIONS))
    alpha[:, OPERATIONS.index("conv3")] = 50.0
    network, own = drawn(alpha, 0)
    theta = {name: value.requires_grad_() for name, value in network.parameters(seeded(0)).items()}
    norm = Normalization(fused=True)
    loss = network.features(theta, episode_of(IMAGES, 0).support_x.float(), norm, own).sum()
    assert not any("conv1" in name for name in norm.collected)
    loss.backward()
    assert all((value.grad is None) == ("conv1" in name or "head" in name) for name, value in theta.items())


def test_what_is_evaluated_is_the_derived_genotype() -> None:
    network = relaxed(relaxation="sampled")
    alpha = torch.randn(3, len(OPERATIONS), generator=seeded(2))
    assert network.draw_noise(alpha, 2, seeded(0), training=False) == {}
    chosen = network.sampled({"alpha": alpha}, {})["shares"].argmax(-1)
    assert "|".join(OPERATIONS[index] for index in chosen.tolist()) == derive_genotype(alpha)


def test_a_learned_start_under_drawn_operations_is_exact_and_the_loss_is_flat_in_the_logits() -> None:
    """The same noise on both sides of the difference: what the logits get is no derivative, and declared so."""
    architecture = {**METHODS["gdas"].learner["architecture"], "channels": 4}
    settings = {"architecture": architecture, "initialization": {"kind": "learned"}, "update": {"steps": 2}}
    learner, episodes = built(settings, IMAGES), [episode_of(IMAGES, 1)]
    phi, state = begun(learner)
    seen = learner.meta_step(phi, state, episodes, seeded(0))
    start = {name: value for name, value in seen.gradient.items() if name.startswith("initialization/")}

    def objective(moved: Tensors) -> float:
        return learner.objective(moved, state, episodes, seeded(0))

    size = sum(float(value.square().sum()) for value in start.values()) ** 0.5
    measured = central_difference(objective, phi, {name: value / size for name, value in start.items()}, 1e-8)
    assert measured == pytest.approx(size, rel=1e-5)
    alpha = seen.gradient["architecture/alpha"]
    assert float(alpha.abs().max()) > 0
    assert objective({**phi, "architecture/alpha": phi["architecture/alpha"] + 1e-6 * alpha}) == seen.loss


def test_partial_channels_and_normalized_edges_are_exact() -> None:
    architecture = {**METHODS["pc_darts"].learner["architecture"], "channels": 4}
    settings = {"architecture": architecture, "initialization": {"kind": "learned"}, "update": {"steps": 2}}
    errors = errors_by_slot(built(settings, IMAGES), [episode_of(IMAGES, 1)], length=1e-8, directions=1)
    assert max(errors.values()) < 1e-5, errors


@pytest.mark.parametrize("name", ["darts", "darts_first_order", "gdas", "pc_darts"])
def test_every_relaxation_is_made_discrete(name: str) -> None:
    learner = {slot: dict(settings) for slot, settings in METHODS[name].learner.items()}
    learner["architecture"] |= {"channels": 4}
    found = built(learner, IMAGES, inner={"mode": "online"}, estimator=METHODS[name].outer["hypergradient"])
    phi = found.init(seeded(0))
    settings = discretized(learner, phi)
    assert settings["architecture"] == {
        "kind": "genotype",
        "genotype": derive_genotype(phi["architecture/alpha"]),
        "channels": 4,
    }
    again = built(settings, IMAGES, inner={"mode": "online"})
    assert parse_genotype(settings["architecture"]["genotype"]) == again.slots.architecture.operations


def test_frozen_statistics_of_drawn_operations_are_refused() -> None:
    cells = {"architecture": {"kind": "cells", "relaxation": "sampled"}}
    with pytest.raises(LearnerError, match=r"inner\.batch_norm: frozen averages .* draws other operations"):
        built(cells, IMAGES, inner={"batch_norm": "frozen"})


# PC-DARTS: a part of the channels, and normalized edges


def test_the_channels_that_are_not_active_pass_by_and_turn() -> None:
    network = relaxed(partial=4)
    assert network.active == 1
    theta = network.parameters(seeded(0))
    assert theta["cell0.edge0.conv3.conv.weight"].shape == (1, 1, 3, 3)
    certain = torch.full((3, len(OPERATIONS)), -1e4)
    certain[:, OPERATIONS.index("skip")] = 0.0
    x = episode_of(IMAGES, 0).support_x.float()
    nodes = torch.randn(2, 4, 8, 8, generator=seeded(1))
    own = network.sampled({"alpha": certain}, {})
    sent = network.edge(theta, "cell0.edge0", 0, nodes, Normalization(), own)
    torch.testing.assert_close(sent, nodes.roll(-1, 1))
    assert network.outputs(theta, x, Normalization(), {"alpha": certain}).shape == (6, 3)


def test_the_edges_of_a_node_share_it() -> None:
    edges = edges_of(4)
    shares = shares_of_nodes(torch.randn(len(edges), generator=seeded(0)), edges)
    sums = [float(sum(shares[i] for i, (_, target) in enumerate(edges) if target == node)) for node in (1, 2, 3)]
    assert sums == pytest.approx([1, 1, 1])
    assert torch.allclose(shares_of_nodes(torch.zeros(6), edges), torch.tensor([1, 1 / 2, 1 / 2, *[1 / 3] * 3]))


@pytest.mark.parametrize("field", ["temperature", "final_temperature", "annealing", "partial"])
def test_settings_that_make_no_sense_are_refused(field: str) -> None:
    allowed = r"got 0(\.0)?; allowed: a (whole number, at least 1|number, above 0)"
    with pytest.raises(LearnerError, match=rf"learner\.architecture\.{field}: {allowed}"):
        relaxed(**{field: 0})


# the genotype as text


@given(st.sampled_from([1, 3, 6, 10]).flatmap(lambda n: st.lists(st.sampled_from(OPERATIONS), min_size=n, max_size=n)))
def test_a_genotype_survives_being_written_and_read(operations: list[str]) -> None:
    text = "|".join(operations)
    assert parse_genotype(text) == tuple(operations)
    certain = torch.full((len(operations), len(OPERATIONS)), -9.0)
    for edge, operation in enumerate(operations):
        certain[edge, OPERATIONS.index(operation)] = 0.0
    if "none" not in operations:
        assert derive_genotype(certain) == text
    assert set(EDGES) == {len(edges_of(nodes)) for nodes in (2, 3, 4, 5)}
