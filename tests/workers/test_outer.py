"""Outer optimizers agree with torch.optim, and keep all of their state in tensors."""

import math

import pytest
import torch

from metaloom.learners.errors import BadInput
from metaloom.learners.fields import fields_of
from metaloom.learners.outer import OLD_NAMES, OuterConfig, under_new_names
from metaloom.workers.outer import (
    OPTIMIZERS,
    SCHEDULES,
    clipped,
    decayed,
    first_non_finite,
    global_norm,
)

REFERENCES = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD, "rmsprop": torch.optim.RMSprop}


def leaves(seed):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a": (3, 4), "b": (), "c": (2, 1, 5)}
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def test_every_optimizer_has_a_reference_here():
    assert set(REFERENCES) == set(OPTIMIZERS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_goes_where_torch_goes(name):
    start, update = OPTIMIZERS[name]
    phi = leaves(0)
    reference = {key: torch.nn.Parameter(leaf.clone()) for key, leaf in phi.items()}
    optimizer = REFERENCES[name](list(reference.values()), lr=0.05)
    state = start(phi)
    for step in range(30):
        gradient = leaves(step + 1)
        for key, parameter in reference.items():
            parameter.grad = gradient[key].clone()
        optimizer.step()
        phi, state = update(phi, gradient, state, 0.05)
    for key, parameter in reference.items():
        torch.testing.assert_close(phi[key], parameter.detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_is_torchs(name):
    start, update = OPTIMIZERS[name]
    phi = leaves(0)
    reference = {key: torch.nn.Parameter(leaf.clone()) for key, leaf in phi.items()}
    optimizer = REFERENCES[name](list(reference.values()), lr=0.05, weight_decay=0.3)
    state = start(phi)
    for step in range(5):
        gradient = leaves(step + 1)
        for key, parameter in reference.items():
            parameter.grad = gradient[key].clone()
        optimizer.step()
        phi, state = update(phi, decayed(gradient, phi, 0.3), state, 0.05)
    for key, parameter in reference.items():
        torch.testing.assert_close(phi[key], parameter.detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_nothing_is_changed_in_place(name):
    start, update = OPTIMIZERS[name]
    phi, gradient = leaves(0), leaves(1)
    state = start(phi)
    copies = [{key: one.clone() for key, one in group.items()} for group in (phi, gradient, state)]
    update(phi, gradient, state, 0.1)
    for group, copy in zip((phi, gradient, state), copies, strict=True):
        assert all(torch.equal(group[key], copy[key]) for key in group)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_empty_phi_is_no_trouble(name):
    start, update = OPTIMIZERS[name]
    assert update({}, {}, start({}), 0.1)[0] == {}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_missing_leaf_is_refused(name):
    start, update = OPTIMIZERS[name]
    with pytest.raises(BadInput, match="leaves of phi: c"):
        update(leaves(0), {key: one for key, one in leaves(1).items() if key != "c"}, start(leaves(0)), 0.1)


def test_the_norm_is_over_all_leaves_and_clipping_keeps_the_direction():
    gradient = {"a": torch.tensor([3.0]), "b": torch.tensor([[4.0]])}
    assert global_norm(gradient) == 5.0
    assert global_norm({}) == 0.0
    short = clipped(gradient, 5.0, 1.0)
    assert global_norm(short) == pytest.approx(1.0)
    assert float(short["a"] / short["b"]) == pytest.approx(0.75)
    assert clipped(gradient, 5.0, 6.0) is gradient
    assert clipped(gradient, 5.0, None) is gradient


def test_a_norm_of_long_leaves_does_not_overflow_in_float32():
    assert math.isfinite(global_norm({"a": torch.full((4,), 1e19), "b": torch.full((4,), 1e19)}))


def test_the_leaf_that_is_not_finite_is_named():
    assert first_non_finite({"a": torch.ones(2), "rate": torch.tensor([1.0, math.nan])}) == "rate"
    assert first_non_finite({"a": torch.ones(2)}) is None


def test_schedules_start_at_one_and_fall_to_their_end():
    for name, schedule in SCHEDULES.items():
        values = [schedule(step, 100) for step in range(101)]
        assert values[0] == 1.0
        assert values == sorted(values, reverse=True)
        assert values[-1] == pytest.approx(1.0 if name == "constant" else 0.0, abs=1e-12)
    assert SCHEDULES["cosine"](50, 100) == pytest.approx(0.5)
    assert SCHEDULES["linear"](25, 100) == 0.75


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("optimizer", "adm", "did you mean 'adam'"),
        ("schedule", "cosin", "did you mean 'cosine'"),
        ("precision", "float16", "float32"),
        ("keep", "worst", "allowed: best, last"),
        ("steps", -1, "got -1; allowed: a whole number, at least 0"),
        ("meta_batch", 0, "at least 1"),
        ("rate", 0.0, "above 0"),
        ("clip", -1.0, "above 0"),
        ("weight_decay", -0.1, "at least 0"),
        ("patience", 0, "at least 1"),
        ("validate_every", 0, "at least 1"),
    ],
)
def test_what_cannot_work_is_refused(field, value, words):
    with pytest.raises(BadInput, match=words) as refusal:
        OuterConfig(**{field: value})
    assert f"outer.{field}" in str(refusal.value)


def test_the_learners_fields_are_passed_over():
    assert OuterConfig.of({"steps": 5, "hypergradient": "auto", "strategy": "vmap"}) == OuterConfig(
        steps=5, strategy="vmap"
    )


def test_the_best_is_kept_where_training_stops_early():
    assert not OuterConfig().keeps_best
    assert OuterConfig(patience=3).keeps_best
    assert not OuterConfig(patience=3, keep="last").keeps_best
    assert OuterConfig(keep="best").keeps_best


def test_a_stored_section_has_settings_under_their_old_names():
    assert OLD_NAMES == {"tasks": "meta_batch"}
    assert OuterConfig.of({"steps": 5, "tasks": 7}) == OuterConfig(steps=5, meta_batch=7)
    with pytest.raises(BadInput, match=r"outer\.tasks: the old name of outer\.meta_batch, which is given too"):
        under_new_names({"tasks": 1, "meta_batch": 1})


def test_the_options_that_are_declared_are_those_that_there_are():
    assert set(fields_of(OuterConfig)["optimizer"].options) == set(OPTIMIZERS)
    assert set(fields_of(OuterConfig)["schedule"].options) == set(SCHEDULES)
