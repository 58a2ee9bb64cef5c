"""What silently loses a gradient in the field's own packages, each met by a refusal or computed right."""

import functools
import gc
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.base import Learner
from metaloom.learners.build import build_learner
from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.knowledge.loss import LOSSES, Loss
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.networks.module import ModuleConfig, ModuleNetwork
from metaloom.learners.networks.probes import named_operation
from metaloom.learners.tensors import Tensors, as_leaves, derivative, flatten
from metaloom.testing.problems import seeded
from metaloom.workers.checking import check_hypergradient
from metaloom.workers.data.base import SampledEpisode
from metaloom.workers.device import Device

TASK = TaskShape("classification", (6,), 3, classes=9)


def bound(name: str, /, **settings: Any) -> ModuleNetwork:
    return ModuleNetwork(ModuleConfig(f"tests.support.guarded:{name}", settings), TASK)


def learner_of(name: str, estimator: str = "unroll", /, **settings: Any) -> Learner:
    architecture = {"kind": "module", "of": f"tests.support.guarded:{name}", "settings": settings}
    return build_learner(
        learner={
            "architecture": architecture,
            "initialization": {"kind": "learned"},
            "update": {"steps": 1, "rate": 0.1},
        },
        inner={},
        outer={"hypergradient": estimator},
        task=TASK,
        trust_code=True,
    )


def episode(seed: int = 0) -> Episode:
    x = torch.rand(12, 6, generator=seeded(seed))
    y = torch.arange(12) % 3
    return Episode(Support(x[:6], y[:6]), x[6:], y[6:])


def meta_gradient(learner: Learner) -> Tensors:
    phi = learner.init(seeded(0))
    state = learner.begin(phi, seeded(0))
    return dict(learner.meta_step(phi, state, [episode()], seeded(0)).gradient)


def assert_second_order(network: ModuleNetwork, *, training: bool = False) -> None:
    """Compare the slope of the squared slope with a central difference in float64, and with forward mode."""
    theta = {name: value.double() for name, value in network.parameters(seeded(0)).items()}
    x = torch.rand(5, 6, generator=seeded(1), dtype=torch.float64)
    noise = {"training": torch.ones(())} if training else {}

    def value(moved: Tensors) -> Tensor:
        return network.outputs(moved, x, Normalization(fused=True), {}, noise).square().mean()

    def slope(at: Tensors, graph: bool = False) -> Tensors:
        leaves = at if graph else as_leaves(at)
        names = list(leaves)
        slopes = torch.autograd.grad(value(leaves), [leaves[n] for n in names], create_graph=graph, allow_unused=True)
        zipped = zip(names, slopes, strict=True)
        return {n: torch.zeros_like(leaves[n]) if s is None else s.to_dense() for n, s in zipped}

    direction = {name: torch.randn(v.shape, generator=seeded(2), dtype=v.dtype) for name, v in theta.items()}
    leaves = as_leaves(theta)
    pushed = sum((s * direction[n]).sum() for n, s in slope(leaves, graph=True).items())
    exact = flatten(derivative(pushed, leaves))
    step = 1e-5
    ends = [flatten(slope({n: v + sign * step * direction[n] for n, v in theta.items()})) for sign in (1, -1)]
    torch.testing.assert_close(exact, (ends[0] - ends[1]) / (2 * step), rtol=1e-5, atol=1e-6)


def test_the_probe_names_the_parameter_the_mode_and_the_remedy() -> None:  # 1
    with pytest.raises(
        LearnerError, match=r"parameter scale moves the output but has no gradient in train mode.*detach"
    ):
        bound("Detached")


@pytest.mark.parametrize("kind", ["weight_norm", "orthogonal", "spectral_norm"])
def test_parametrized_weights_are_moved_by_their_originals(kind: str) -> None:  # 2
    network = bound("Parametrized", kind=kind)
    assert "body.weight" not in network.names
    assert any(name.startswith("body.parametrizations.weight.") for name in network.names)
    assert_second_order(network)
    theta = network.parameters(seeded(0))
    with pytest.raises(LearnerError, match=r"no parameter is named 'body\.weight'"):
        network.outputs(theta | {"body.weight": torch.zeros(6, 6)}, torch.rand(2, 6), Normalization(), {})


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_old_weight_norm_leaves_no_graph_behind() -> None:  # 3
    network = bound("Parametrized", kind="old_weight_norm")
    assert {"body.weight_g", "body.weight_v"} <= network.names.keys()
    assert_second_order(network)
    outputs = network.outputs(as_leaves(network.parameters(seeded(0))), torch.rand(2, 6), Normalization(), {})
    assert outputs.requires_grad and not network.module.get_submodule("body").weight.requires_grad


def test_an_ode_is_differentiated_through_its_solver_and_not_by_an_adjoint() -> None:  # 4
    pytest.importorskip("torchdiffeq", reason="torchdiffeq is not installed (pip install metaloom[modules])")
    assert_second_order(bound("Ode", solver="odeint"))
    with pytest.raises(LearnerError, match=r"field\.layer\.(weight|bias) .*no gradient.*odeint_adjoint for odeint"):
        bound("Ode", solver="odeint_adjoint")


def test_a_weight_that_changes_in_place_is_cast_again_under_autocast() -> None:  # 5
    weight, x = torch.ones(4, 4, requires_grad=True), torch.ones(2, 4)
    with Device(torch.device("cpu"), torch.float32, mixed=True).precision():
        first = F.linear(x, weight)
        with torch.no_grad():
            weight.data.mul_(3)
        torch.testing.assert_close(F.linear(x, weight), 3 * first)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["encoder", "weights", "plain"])
def test_attention_has_its_second_derivative(kind: str, training: bool) -> None:  # 6
    network = bound("Attention", kind=kind)
    assert_second_order(network, training=training)
    assert network.refuses("forward") == ""
    # torch 2.13 batches layer norm to another second derivative, which trying has found out
    differs = "torch gives it another second derivative than a loop does"
    assert network.refuses("vmap") == (differs if kind == "encoder" else "")
    assert torch.backends.mha.get_fastpath_enabled()  # as it was


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_bert_has_its_second_derivative(attention: str) -> None:  # 7
    pytest.importorskip("transformers", reason="transformers is not installed (pip install metaloom[modules])")
    network = bound("Bert", attention=attention)
    theta = as_leaves(network.parameters(seeded(0)))
    value = network.outputs(theta, torch.rand(3, 6), Normalization(), {}).square().mean()
    slopes = torch.autograd.grad(value, list(theta.values()), create_graph=True, allow_unused=True)
    total = torch.stack([slope.square().sum() for slope in slopes if slope is not None]).sum()
    assert flatten(derivative(total, theta)).isfinite().all()


@pytest.mark.filterwarnings("ignore:None of the inputs")  # what a reentrant checkpoint says of itself
def test_gradient_checkpointing_is_differentiated_by_autograd_alone() -> None:  # 8
    network = bound("Checkpointed", reentrant=False)
    assert_second_order(network)
    with pytest.raises(LearnerError, match="use_reentrant=True"):
        bound("Checkpointed", reentrant=True)


@pytest.mark.parametrize("name", ["hardsigmoid", "embedding_bag", "segment_reduce", "pdist", "multi_margin_loss"])
def test_an_operation_without_a_second_derivative_is_named(name: str) -> None:  # 9
    x = torch.rand(4, 6, generator=seeded(0), dtype=torch.float64)
    network = bound("Operation", name=name)
    theta = as_leaves({key: value.double() for key, value in network.parameters(seeded(0)).items()})

    def twice() -> None:
        value = network.outputs(theta, x, Normalization(), {}).square().mean()
        slopes = torch.autograd.grad(value, list(theta.values()), create_graph=True)
        torch.autograd.grad(flatten(dict(zip(theta, slopes, strict=True))).square().sum(), list(theta.values()))

    try:
        twice()
    except RuntimeError:
        with pytest.raises(LearnerError, match=f"{name} has no second derivative.*first_order"), named_operation():
            twice()
    else:
        assert_second_order(network)  # this torch has it: pdist from 2.14 on


def test_a_learner_names_the_operation_and_first_order_runs_it() -> None:  # 9
    with pytest.raises(LearnerError, match="hardsigmoid has no second derivative"):
        meta_gradient(learner_of("Operation", name="hardsigmoid"))
    assert flatten(meta_gradient(learner_of("Operation", "first_order", name="hardsigmoid"))).isfinite().all()


class OneEpisode:
    """A source of the same episode."""

    def episode(self, split: str, number: int) -> SampledEpisode:
        return SampledEpisode(episode(number), 0, (0, 1, 2), ())


def test_a_second_order_that_is_not_finite_at_the_real_start_is_named() -> None:  # 10
    source: Any = OneEpisode()
    with pytest.raises(
        LearnerError, match=r"learner\.initialization .*not finite at its start \(initialization/matrix\)"
    ):
        check_hypergradient(learner_of("Degenerate"), source, seed=0)
    assert flatten(meta_gradient(learner_of("Degenerate", "first_order"))).isfinite().all()


@pytest.mark.parametrize("kind", [kind for kind in LOSSES if "classification" in LOSSES[kind].serves])
def test_a_loss_and_its_gradient_are_finite_at_hard_targets(kind: str) -> None:  # 11
    component: Any = LOSSES[kind]
    loss: Loss = component(component.Config(), TASK)
    outputs = torch.tensor([[60.0, -60.0, 0.0], [-1e4, 1e4, 0.0]], requires_grad=True)
    phi = loss.init({"head.weight": torch.zeros(3, 6)}, seeded(0))
    for targets in (torch.tensor([0, 0]), torch.eye(3)[:2]):
        values = loss.losses(phi, outputs, targets)
        (slope,) = torch.autograd.grad(values.sum(), outputs)
        assert values.isfinite().all() and slope.isfinite().all()


def test_an_embedding_that_writes_into_its_weights_is_refused() -> None:  # 12
    with pytest.raises(LearnerError, match=r"table has max_norm=1\.0, which overwrites the fast weights"):
        bound("Embedded", max_norm=1.0)


def test_a_sparse_embedding_gives_dense_gradients() -> None:  # 13
    sparse, dense = (meta_gradient(learner_of("Embedded", sparse=sparse)) for sparse in (True, False))
    for name, value in dense.items():
        assert not sparse[name].is_sparse
        torch.testing.assert_close(sparse[name], value)


def test_buffers_do_not_move_from_one_task_to_the_next() -> None:  # 14
    network = ModuleNetwork(ModuleConfig("tests.support.modules:Normalized"), TASK)
    theta, x = network.parameters(seeded(0)), torch.rand(5, 6)
    noise = {"training": torch.ones(())}
    first, again = (network.outputs(theta, x, Normalization(), {}, noise) for _ in range(2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert all(value.eq(0).all() for value in dict(network.module.named_buffers()).values())


@pytest.mark.filterwarnings("ignore")
def test_merged_adapters_are_refused() -> None:  # 15
    pytest.importorskip("peft", reason="peft is not installed (pip install metaloom[modules])")
    network = bound("adapted")
    assert all("lora_" in name for name in network.names.values())
    assert_second_order(network)
    with pytest.raises(LearnerError, match=r"merged adapters, which get no gradient; call unmerge_adapter\(\)"):
        bound("adapted", merged=True)


def test_a_tied_weight_is_saved_once_and_serves_both_its_places() -> None:  # 16
    pytest.importorskip("transformers", reason="transformers is not installed (pip install metaloom[modules])")
    network = bound("Gpt2")
    assert "model.lm_head.weight" not in network.names.values()
    assert [key for key in network.names if key.startswith("head.")] == ["head.weight"]  # the tied one, as the head
    theta, x = network.parameters(seeded(3)), torch.rand(3, 6)
    plain = network.build(0)
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            key = next(key for key, one in network.names.items() if one == name)
            parameter.copy_(theta[key])
        torch.testing.assert_close(network.outputs(theta, x, Normalization(), {}), plain.eval()(x))


def test_a_selective_scan_learns_in_the_order_that_it_has() -> None:
    pytest.importorskip("mambapy", reason="mambapy is not installed (pip install metaloom[modules])")
    parallel, sequential = (learner_of("SelectiveScan", parallel=one) for one in (True, False))
    with pytest.raises(LearnerError, match=r"backward pass writes in place has no second derivative.*first_order"):
        meta_gradient(parallel)
    assert flatten(meta_gradient(sequential)).isfinite().all()
    first = [meta_gradient(learner_of("SelectiveScan", "first_order", parallel=one)) for one in (True, False)]
    for name, value in first[0].items():
        torch.testing.assert_close(value, first[1][name], rtol=1e-4, atol=1e-6)


def test_a_selective_scan_of_transformers_is_bound_without_its_unused_embedding() -> None:
    pytest.importorskip("transformers", reason="transformers is not installed (pip install metaloom[modules])")
    with pytest.raises(LearnerError, match=r"body\.embeddings\.weight has no effect on the output in train mode"):
        bound("Mamba", frozen=False)
    assert flatten(meta_gradient(learner_of("Mamba", frozen=True))).isfinite().all()


def test_nothing_of_a_bound_module_is_kept_by_the_probe() -> None:
    network = bound("Embedded")
    gc.collect()
    assert not any(one.grad_fn is not None for one in network.module.parameters())
    assert functools.reduce(lambda total, one: total + (one.grad is not None), network.module.parameters(), 0) == 0
