"""Policies: what is applied is what is said, and what is learned has the hypergradient of the objective."""

from typing import Any

import pytest
import torch

from metaloom.learners.build import SLOTS, make_component
from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.knowledge.augmentation import (
    ChainOfAugmentations,
    Policy,
    SubPolicy,
    Use,
    apply_policies,
    from_document,
    parse_sub_policy,
    to_document,
)
from metaloom.learners.knowledge.image_augmentation import ImageAugmentation, choice, gate
from metaloom.learners.knowledge.image_operations import OPERATIONS
from metaloom.learners.tensors import Tensors
from metaloom.testing.problems import IMAGES, SINGLE, SMOOTH, begun, built, episode_of, errors_by_slot, seeded

SMOOTH_OPERATIONS = ["rotate", "contrast", "cutout"]
KINDS: dict[str, dict[str, Any]] = {
    "dada": {"kind": "dada", "operations": SMOOTH_OPERATIONS, "relaxation": "soft"},
    "rand_augment": {
        "kind": "rand_augment",
        "operations": SMOOTH_OPERATIONS,
        "magnitude": {"learn": {"start": 0.4}},
    },
    "policy": {
        "kind": "policy",
        "sub_policies": ["rotate(0.5, 0.3) + contrast", "translate_x + sharpness + cutout(0.9)"],
        "probability": {"learn": {"per": "operation", "start": 0.6}},
        "magnitude": {"learn": {"per": "scalar", "start": 0.4}},
        "relaxation": "soft",
    },
}


def component(settings: dict[str, Any]) -> ImageAugmentation:
    made = make_component(SLOTS["augmentation"], settings, IMAGES)
    assert isinstance(made, ImageAugmentation)
    return made


def pictures(n: int = 6) -> torch.Tensor:
    return torch.rand(n, 1, 8, 8, generator=seeded(3), dtype=torch.float64)


def noise_for(one: ImageAugmentation, x: torch.Tensor, seed: int = 0) -> Tensors:
    drawn = one.draw_noise(x, 0, seeded(seed), training=True)
    return {name: value[0].double() if value.is_floating_point() else value[0] for name, value in drawn.items()}


def image_episode(seed: int) -> Episode:
    episode = episode_of(IMAGES, seed)
    return Episode(
        Support(episode.support_x.sigmoid(), episode.support_y),
        episode.query_x.sigmoid(),
        episode.query_y,
        episode.class_ids,
    )


def learner(settings: dict[str, Any], steps: int, estimator: str = "unroll", online: bool = False, **more: Any) -> Any:
    start = {} if online else {"initialization": {"kind": "learned"}}
    parts = {"architecture": SMOOTH, "update": {"rate": 0.2, "steps": steps}, "augmentation": settings, **start}
    inner = {"mode": "online"} if online else None
    return built({**parts, **more.pop("learner", {})}, IMAGES, inner=inner, estimator=estimator, **more)


@pytest.mark.parametrize("estimator", ["unroll", "adjoint"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_learned_policy_has_the_hypergradient_of_the_objective(kind: str, estimator: str) -> None:
    errors = errors_by_slot(learner(KINDS[kind], 3, estimator), [image_episode(1), image_episode(2)], length=1e-6)
    assert set(errors) == {"augmentation", "initialization"}
    assert max(errors.values()) < 1e-6, errors


def test_online_and_with_everything_else() -> None:
    assert (
        errors_by_slot(learner(KINDS["dada"], 1, online=True), [image_episode(1)], length=1e-6)["augmentation"] < 1e-6
    )
    more = {
        "weighting": {"kind": "meta_weight_net", "hidden": 5},
        "architecture": {"kind": "cells", "channels": 2},
        "update": {"rate": {"learn": {"per": "layer", "start": 0.1}}, "steps": 3},
        "loss": {"kind": "cross_entropy", "label_smoothing": {"learn": {"start": 0.1}}},
    }
    errors = errors_by_slot(learner(KINDS["dada"], 3, learner=more), [image_episode(1)], length=1e-7, directions=1)
    assert set(errors) == {"architecture", "augmentation", "initialization", "loss", "update", "weighting"}
    assert max(errors.values()) < 1e-5, errors


@pytest.mark.parametrize("kind", KINDS)
def test_batched_equals_the_loop(kind: str) -> None:
    episodes = [image_episode(seed) for seed in range(2)]
    settings = KINDS[kind] | ({"relaxation": "straight_through"} if kind != "rand_augment" else {})
    found, expected = (learner(settings, 2, strategy=strategy) for strategy in ("vmap", "loop"))
    phi, state = begun(expected)
    one, other = (each.meta_step(phi, state, episodes, seeded(0)) for each in (found, expected))
    for name, value in other.gradient.items():
        torch.testing.assert_close(one.gradient[name], value, rtol=1e-8, atol=1e-10)


def test_straight_through_applies_whole_operations_and_points_the_soft_way() -> None:
    settings = {**KINDS["dada"], "relaxation": "straight_through", "operations": ["invert", "translate_x", "cutout"]}
    one, x = component(settings), pictures()
    phi = {n: v.double() for n, v in one.init({}, seeded(0)).items()}
    noise = noise_for(one, x)
    found = one.transform(phi, x, noise)
    pairs = (torch.log_softmax(phi["choice"], -1) + noise["choice"]).argmax(-1)
    for image in range(len(x)):
        expected = x
        for stage, operation in enumerate(one.pairs[int(pairs[image])]):  # type: ignore[attr-defined]
            if float(noise["apply"][image, stage]) > 0:  # at probability 1/2
                name, half = one.config.operations[operation], torch.full((len(x),), 0.5, dtype=x.dtype)
                expected = OPERATIONS[name].function(expected, half, one.chance(noise, stage))
        torch.testing.assert_close(found[image], expected[image])
    episodes = [image_episode(1)]
    phi, state = begun(learner(settings, 1))
    gradient = learner(settings, 1).meta_step(phi, state, episodes, seeded(0)).gradient
    for name in ("choice", "probability", "magnitude"):
        assert float(gradient[f"augmentation/{name}"].abs().max()) > 0


def test_the_relaxations_have_the_right_odds() -> None:
    """Gumbel's and logistic noise make the hard choices exactly as likely as they should be."""
    one = component({"kind": "dada", "operations": ["rotate", "invert", "flip"]})
    noise = noise_for(one, torch.zeros(40_000, 1, 2, 2))
    wanted = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    shares = choice(wanted.log(), noise["choice"], 0.5, "straight_through").mean(0)
    torch.testing.assert_close(shares, wanted, rtol=0, atol=0.01)
    hits = gate(torch.tensor(0.3, dtype=torch.float64), noise["apply"][:, 0], 0.5, "none").mean()
    assert float(hits) == pytest.approx(0.3, abs=0.01)
    for probability, expected in ((1.0, 1.0), (0.0, 0.0)):
        certain = gate(torch.tensor(probability, dtype=torch.float64), noise["apply"][:, 0], 0.5, "none")
        assert float(certain.mean()) == expected
    soft = choice(wanted.log(), noise["choice"], 0.01, "soft")
    hard = choice(wanted.log(), noise["choice"], 0.01, "straight_through")
    assert float((soft - hard).abs().mean()) < 0.01


def test_a_given_policy_does_what_it_says() -> None:
    one, x = (
        component({"kind": "policy", "sub_policies": ["invert(1.0) + brightness(1.0, 0.5)", "flip(1.0)"]}),
        pictures(),
    )
    noise = noise_for(one, x)
    found = one.transform({}, x, noise)
    half = torch.full((len(x),), 0.5, dtype=x.dtype)
    inverted = OPERATIONS["brightness"].function(1 - x, half, one.chance(noise, 1))
    for image, sub_policy in enumerate(noise["sub_policy"].tolist()):
        torch.testing.assert_close(found[image], (inverted if sub_policy == 0 else x.flip(-1))[image])
    assert set(noise["sub_policy"].tolist()) == {0, 1}


def test_rand_augment_with_one_operation_is_that_operation() -> None:
    one, x = component({"kind": "rand_augment", "number": 1, "magnitude": 0.5, "operations": ["rotate"]}), pictures()
    noise = noise_for(one, x)
    half = torch.full((len(x),), 0.5, dtype=x.dtype)
    torch.testing.assert_close(
        one.transform({}, x, noise), OPERATIONS["rotate"].function(x, half, one.chance(noise, 0))
    )
    flat = one.transform({}, x.reshape(len(x), 64), noise)
    torch.testing.assert_close(flat.reshape(x.shape), one.transform({}, x, noise))


def test_per_operation_starts_where_each_says() -> None:
    one = component(KINDS["policy"])
    phi = one.init({}, seeded(0))
    assert phi["probability"].shape == (5,)
    assert torch.sigmoid(phi["probability"]).tolist() == pytest.approx([0.5, 0.6, 0.6, 0.6, 0.9], abs=1e-6)
    uses = [use for sub in one.policies(phi)[0].sub_policies for use in sub.uses]
    assert [use.magnitude for use in uses] == pytest.approx([0.3, 0.4, 0.4, 0.4, 0.4], abs=1e-6)


def test_the_exported_policy_is_the_most_likely_part() -> None:
    one = component({"kind": "dada", "operations": ["rotate", "invert", "flip"], "keep": 2})
    phi = one.init({}, seeded(0)) | {"choice": torch.tensor([0.6, 0.1, 0.3]).log()}
    (policy,) = one.policies(phi)
    assert [sub.share for sub in policy.sub_policies] == pytest.approx([2 / 3, 1 / 3])
    assert [[use.operation for use in sub.uses] for sub in policy.sub_policies] == [
        ["rotate", "invert"],
        ["invert", "flip"],
    ]
    assert policy.rows()[0]["meaning"] == "turned by +-15 degrees"
    chain = ChainOfAugmentations([one, component({"kind": "rand_augment"})])
    policies = chain.policies({f"0/{name}": value for name, value in phi.items()})
    assert [each.kind for each in policies] == ["dada", "rand_augment"]
    assert from_document(to_document(policies)) == policies


def test_applying_a_policy_follows_its_shares() -> None:
    subs = (SubPolicy(0.75, (Use("invert", 1.0, 0.0),)), SubPolicy(0.25, (Use("brightness", 1.0, 0.0),)))
    x = torch.full((4000, 1, 2, 2), 0.9)
    found = apply_policies([Policy("dada", subs)], x, seeded(0))
    assert float((found < 0.5).float().mean()) == pytest.approx(0.75, abs=0.03)
    assert torch.equal(found, apply_policies([Policy("dada", subs)], x, seeded(0)))
    assert float(x.min()) == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rotat(0.5, 0.3)", "no image operation is named 'rotat'; did you mean 'rotate'"),
        ("rotate(0.5 0.3)", "cannot read 'rotate(0.5 0.3)'; write operation(probability, magnitude)"),
        ("rotate(0.5, 0.3, 1)", "cannot read"),
        ("rotate(1.5)", "rotate: its probability must be in [0, 1], got 1.5"),
    ],
)
def test_a_sub_policy_that_cannot_be_read_says_why(text: str, message: str) -> None:
    with pytest.raises(LearnerError) as raised:
        parse_sub_policy(text)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"kind": "rand_augment", "magnitude": 1.5},
            "learner.augmentation.magnitude: got 1.5; allowed: a number, at least 0 and at most 1",
        ),
        ({"kind": "dada", "operations": ["rotate"]}, "needs at least two, got rotate"),
        ({"kind": "rand_augment", "operations": ["rotat"]}, "did you mean 'rotate'?"),
        ({"kind": "policy", "sub_policies": []}, "at least one is needed"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(LearnerError) as raised:
        component(settings)
    assert message in str(raised.value)


def test_tasks_that_are_no_images_are_refused() -> None:
    settings = {"architecture": SMOOTH, "augmentation": {"kind": "rand_augment"}}
    for task, message in (
        (SINGLE, r"examples have shape \(6,\)"),
        (TaskShape("regression", (64,), 2), "this regression task's"),
        (TaskShape("classification", (4,), 3, mean=(0.0,) * 4, deviation=(1.0,) * 4), "a table's rows"),
    ):
        with pytest.raises(LearnerError, match=message):
            built(settings, task)


def test_a_policy_file_of_another_form_is_refused() -> None:
    for document, message in (({"format": 2}, "format 2"), ({"format": 1, "policies": [{}]}, "form of a policy")):
        with pytest.raises(LearnerError, match=message):
            from_document(document)
