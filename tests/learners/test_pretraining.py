"""Pre-training against plain torch: the objectives, their corruptions and decoders, and how a task is solved."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from metaloom.learners import build_learner
from metaloom.learners.episode import Episode, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.solvers.amortized import AmortizedLearner
from metaloom.learners.solvers.pretraining.autoencoder import Autoencoder
from metaloom.learners.solvers.pretraining.masked_autoencoder import MaskedAutoencoder
from metaloom.learners.solvers.pretraining.supervised import target_weights
from metaloom.learners.tensors import Tensors, as_leaves
from metaloom.testing.problems import begun, episode_of, seeded

TABLE = TaskShape("classification", (6,), 3, classes=9)
IMAGES = TaskShape("classification", (2, 9, 6), 3, classes=9)
MLP = {"kind": "mlp", "hidden": [5], "activation": "tanh"}
CONV = {"kind": "conv4", "channels": 4, "blocks": 2}


def learner_of(kind: str, task: TaskShape = TABLE, network: Any = MLP, **settings: Any) -> AmortizedLearner:
    learner = {"architecture": network, "initialization": {"kind": "learned"}, "prediction": {"kind": kind, **settings}}
    built = build_learner(learner=learner, inner={"batch_norm": "frozen"}, outer={}, task=task)
    assert isinstance(built, AmortizedLearner)
    return built


def fixed_noise(learner: AmortizedLearner, episode: Episode, monkeypatch: pytest.MonkeyPatch) -> Tensors:
    """Draw the random numbers of an objective once, and hand the same ones to every step."""
    noise = learner.solver.draw_loss(episode, seeded(7))
    monkeypatch.setattr(learner.solver, "draw_loss", lambda *_: noise)
    return noise


def check_step(learner: AmortizedLearner, phi: Tensors, expected: Tensor, given: Episode, leaves: Tensors) -> None:
    """Compare the loss and the gradient of a step with those of ``expected``, which is a function of ``leaves``."""
    step = learner.meta_step(phi, begun(learner)[1], [given], seeded(0))
    assert step.loss == pytest.approx(expected.item(), rel=1e-9)
    for name, slope in zip(leaves, torch.autograd.grad(expected, list(leaves.values())), strict=True):
        torch.testing.assert_close(step.gradient[name], slope, rtol=1e-7, atol=1e-10)


def examples(given: Episode) -> Tensor:
    return torch.cat([given.support_x, given.query_x])


def decoded(leaves: Tensors, x: Tensor) -> Tensor:
    """The body with one hidden layer, and the decoder with one, written out."""
    hidden = torch.tanh(x @ leaves["initialization/layer0.weight"].T + leaves["initialization/layer0.bias"])
    hidden = torch.tanh(hidden @ leaves["prediction/decoder0.weight"].T + leaves["prediction/decoder0.bias"])
    return hidden @ leaves["prediction/decoder1.weight"].T + leaves["prediction/decoder1.bias"]


@pytest.mark.parametrize("corruption", ["gaussian", "masking", "salt_and_pepper"])
def test_a_denoising_step_is_that_of_plain_torch(corruption: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"hidden": [4], "activation": "tanh", "corruption": corruption, "noise": 0.4, "emphasis": 0.7}
    learner, given = learner_of("denoising_autoencoder", **settings), episode_of(TABLE, 1)
    phi, _ = begun(learner)
    drawn, x = fixed_noise(learner, given, monkeypatch)["drawn"], examples(given)
    if corruption == "gaussian":
        noisy, weights = x + 0.4 * drawn, torch.ones_like(x)
    else:
        low, high = (0.0, 0.0) if corruption == "masking" else (float(x.min()), float(x.max()))
        noisy, weights = x.clone(), torch.full_like(x, 0.3)
        noisy[drawn < 0.4] = high
        noisy[drawn < 0.2] = low
        weights[drawn < 0.4] = 1.0
    leaves = as_leaves(phi)
    loss = (weights * (decoded(leaves, noisy) - x) ** 2).sum() / weights.sum()
    check_step(learner, phi, loss, given, leaves)


def test_noise_is_drawn_as_the_paper_has_it() -> None:
    x = torch.randn(2000, 6, generator=seeded(1), dtype=torch.float64)
    for corruption in ("masking", "salt_and_pepper"):
        solver = learner_of("denoising_autoencoder", corruption=corruption, noise=0.3).solver
        assert isinstance(solver, Autoencoder)
        changed = solver.corrupted({}, x, solver.corruption(x, seeded(2))).examples
        share = float((changed != x).double().mean())
        assert share == pytest.approx(0.3, abs=0.015)  # 3.6 deviations of 12,000 draws
        kinds = {0.0} if corruption == "masking" else {float(x.min()), float(x.max())}
        assert {float(value) for value in changed[changed != x]} == kinds
    solver = learner_of("denoising_autoencoder", noise=0.3).solver
    assert isinstance(solver, Autoencoder)
    added = solver.corrupted({}, x, solver.corruption(x, seeded(2))).examples - x
    assert float(added.std()) == pytest.approx(0.3, abs=0.01)
    assert float(added.mean()) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("fill", ["zero", "learned"])
def test_a_masked_step_is_that_of_plain_torch(fill: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"hidden": [4], "activation": "tanh", "masked": 0.4, "patch": 2, "fill": fill}
    learner, given = learner_of("masked_autoencoder", **settings), episode_of(TABLE, 1)
    phi, _ = begun(learner)
    if fill == "learned":
        phi["prediction/fill"] = torch.linspace(-1, 1, 6, dtype=torch.float64)
    order, x = fixed_noise(learner, given, monkeypatch)["order"], examples(given)
    hidden = torch.zeros_like(x, dtype=torch.bool)
    for row, ranked in enumerate(order):
        patch = int(ranked.argmin())  # 0.4 of three patches is one
        hidden[row, 2 * patch : 2 * patch + 2] = True
    leaves = as_leaves(phi)
    seen = torch.where(hidden, leaves.get("prediction/fill", torch.zeros(6).double()), x)
    check_step(learner, phi, F.mse_loss(decoded(leaves, seen)[hidden], x[hidden]), given, leaves)


@pytest.mark.parametrize(
    ("inputs", "patch", "patches"), [((7,), None, 7), ((7,), 3, 3), ((2, 9), None, 3), ((2, 9, 6), None, 6)]
)
def test_whole_patches_are_hidden_of_tables_series_and_images(inputs: Any, patch: int | None, patches: int) -> None:
    task = TaskShape("classification", inputs, 3, classes=9)
    solver = learner_of("masked_autoencoder", task, masked=0.5, patch=patch, fill="zero").solver
    assert isinstance(solver, MaskedAutoencoder)
    x = torch.ones(4, *inputs)
    noise = solver.corruption(x, seeded(1))
    assert noise["order"].shape == (4, patches)
    given = solver.corrupted({}, x, noise)
    assert torch.equal(given.examples, 1 - given.weights)
    assert torch.equal(given.weights, given.weights[:, :1].expand_as(x)) or len(inputs) == 1  # all channels alike
    side = solver.patch
    for example in given.weights:
        blocks = (
            [part for rows in example.split(side, -2) for part in rows.split(side, -1)]
            if len(inputs) == 3
            else (example.split(side, -1))
        )
        whole = [float(block.mean()) for block in blocks]
        assert set(whole) == {0.0, 1.0}  # a patch is hidden as a whole or not at all
        assert sum(whole) == max(round(0.5 * patches), 1)


@pytest.mark.parametrize("kind", ["denoising_autoencoder", "masked_autoencoder"])
def test_what_was_not_observed_of_a_series_does_not_count(kind: str) -> None:
    series = TaskShape("classification", (2, 8), 3, classes=9, observed=True)
    learner, given = learner_of(kind, series), episode_of(series, 1)
    solver = learner.solver
    assert isinstance(solver, Autoencoder)
    there = (torch.rand(len(given.query_x), 8, generator=seeded(2)) < 0.7).double()
    x = torch.stack([given.query_x[:, 0] * there, there], 1)
    seen = solver.seen({}, x, solver.corruption(solver.values(x), seeded(3)))
    assert not seen.weights[:, 1].any()
    assert not (seen.weights[:, 0] * (1 - there)).any()
    assert not (seen.examples[:, 0] * (1 - there)).any()
    hidden = there - seen.examples[:, 1]
    if kind == "masked_autoencoder":  # a hidden step is one that was not observed
        assert float(hidden.sum()) > 0
        assert torch.equal(seen.weights[:, 0], hidden)
        assert not any("fill" in name for name in learner.init(seeded(0)))
    else:
        assert not hidden.any()


def test_a_supervised_step_is_that_of_plain_torch() -> None:
    weights = [1.0, 2.0, 0.0, 1.0, 1.0, 1.0, 3.0, 1.0, 4.0]
    learner = learner_of("supervised", weights=weights, power=0.5, label_smoothing=0.2)
    given = replace(episode_of(TABLE, 1), class_ids=torch.tensor([8, 1, 6]))
    phi, state = begun(learner)
    leaves = as_leaves(phi)
    hidden = torch.tanh(
        examples(given) @ leaves["initialization/layer0.weight"].T + leaves["initialization/layer0.bias"]
    )
    scores = hidden @ leaves["prediction/classes.weight"].T + leaves["prediction/classes.bias"]
    y = torch.tensor([[8, 1, 6][label] for label in torch.cat([given.support_y, given.query_y]).tolist()])
    target = 0.8 * F.one_hot(y, 9).double() + 0.2 / 9
    roots = torch.tensor(weights, dtype=torch.float64).sqrt()
    each = -(target * scores.log_softmax(-1)).sum(-1)
    check_step(learner, phi, (roots[y] / roots.mean() * each).mean(), given, leaves)
    accuracy = float((scores.argmax(-1) == y).double().mean())
    assert learner.meta_step(phi, state, [given], seeded(0)).outcomes[0].accuracies == (accuracy,)


def test_equal_weights_and_a_power_of_zero_weigh_all_alike() -> None:
    given = episode_of(TABLE, 1)
    found = [
        learner_of("supervised", **settings).meta_step(*begun(learner_of("supervised")), [given], seeded(0)).loss
        for settings in ({}, {"weights": [7.0] * 9}, {"weights": list(range(1, 10)), "power": 0.0})
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-12)
    assert found[0] == pytest.approx(found[2], rel=1e-12)


def test_a_single_task_has_a_head_of_its_own_classes() -> None:
    single = TaskShape("classification", (6,), 3, single_task=True, counts=(5, 5, 5))
    phi = learner_of("supervised", single).init(seeded(0))
    assert phi["prediction/classes.weight"].shape == (3, 5)


def test_target_weights_are_ratios_of_frequencies() -> None:
    probabilities = torch.tensor([[0.8, 0.2, 0.0], [0.4, 0.2, 0.4]])
    found = target_weights(probabilities, torch.tensor([2.0, 1.0, 1.0]))
    torch.testing.assert_close(found, torch.tensor([0.6 / 0.5, 0.2 / 0.25, 0.2 / 0.25]))
    assert target_weights(probabilities, torch.tensor([1.0, 0.0, 1.0]))[1] == 0.0


def test_without_noise_and_as_wide_as_the_examples_the_error_can_vanish() -> None:
    network = {"kind": "mlp", "hidden": [6], "activation": "tanh"}
    learner = learner_of("denoising_autoencoder", network=network, hidden=[], noise=0.0)
    phi, state = begun(learner)
    small, eye = 1e-3, torch.eye(6, dtype=torch.float64)
    phi |= {"initialization/layer0.weight": small * eye, "initialization/layer0.bias": torch.zeros(6).double()}
    phi |= {"prediction/decoder0.weight": eye / small, "prediction/decoder0.bias": torch.zeros(6).double()}
    assert learner.objective(phi, state, [episode_of(TABLE, 1)], seeded(0)) < 1e-9


@pytest.mark.parametrize("network", [CONV, MLP])
def test_a_transposed_convolution_covers_the_image(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"decoder": "convolution", "channels": 4, "activation": "tanh"}
    learner, given = learner_of("denoising_autoencoder", IMAGES, network, **settings), episode_of(IMAGES, 1)
    phi, state = begun(learner)
    noise, x = fixed_noise(learner, given, monkeypatch), examples(given)
    own = {name.removeprefix("prediction/"): value for name, value in phi.items() if name.startswith("prediction/")}
    hidden = learner._embedding(phi, state, training=True)(x + 0.3 * noise["drawn"])
    hidden = hidden.reshape(len(x), *((4, 2, 1) if network is CONV else (5, 1, 1)))
    layers = 3 if network is CONV else 4  # doublings from 2x1 to 16x8, and from 1x1 to 16x16
    assert len(own) == 2 * layers
    for layer in range(layers):
        layers_of_torch = torch.nn.ConvTranspose2d(*own[f"decoder{layer}.weight"].shape[:2], 4, stride=2, padding=1)
        layers_of_torch.double().load_state_dict({n: own[f"decoder{layer}.{n}"] for n in ("weight", "bias")})
        hidden = layers_of_torch(hidden)
        hidden = torch.tanh(hidden) if layer < layers - 1 else hidden
    found = hidden[:, :, 3:12, 1:7] if network is CONV else hidden[:, :, 3:12, 5:11]
    expected = F.mse_loss(found, x)
    assert learner.meta_step(phi, state, [given], seeded(0)).loss == pytest.approx(expected.item(), rel=1e-9)


def test_the_running_statistics_are_those_of_the_clean_examples() -> None:
    learner, given = learner_of("denoising_autoencoder", IMAGES, CONV, noise=0.9), episode_of(IMAGES, 1)
    phi, state = begun(learner)
    running = learner.meta_step(phi, state, [given], seeded(0)).after(state).running
    maps = F.conv2d(examples(given), phi["initialization/conv0.weight"], padding=1)
    torch.testing.assert_close(running["norm0.mean"], maps.mean((0, 2, 3)))
    torch.testing.assert_close(running["norm0.var"], maps.var((0, 2, 3), correction=0))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_a_task_is_solved_as_prototypes_solve_it(metric: str) -> None:
    given = episode_of(TABLE, 3)
    learner = learner_of("denoising_autoencoder", metric=metric)
    phi, state = begun(learner)
    body = {name: value for name, value in phi.items() if name.startswith("initialization/")}
    plain = learner_of("prototypes", metric=metric)
    expected = plain.evaluate(body, begun(plain)[1], given, seeded(0))
    assert learner.evaluate(phi, state, given, seeded(0)) == expected
    assert learner.meta_step(phi, state, [given], seeded(0)).outcomes[0].accuracies == expected.accuracies


def test_examples_that_are_not_there_play_no_part() -> None:
    given = episode_of(TABLE, 1)
    learner = learner_of("denoising_autoencoder")
    phi, state = begun(learner)
    mask = torch.tensor([True] * (len(given.support_y) - 1) + [False])
    masked = replace(given, support=replace(given.support, mask=mask))
    without = replace(given, support=replace(given.support, x=given.support_x[:-1], y=given.support_y[:-1]))
    losses = [learner.meta_step(phi, state, [one], seeded(0)).loss for one in (masked, without)]
    assert losses[0] == losses[1]


def test_a_shown_episode_has_its_reconstructions() -> None:
    learner, given = learner_of("denoising_autoencoder"), episode_of(TABLE, 1)
    phi, state = begun(learner)
    shown, again = (learner.inspect(phi, state, given) for _ in range(2))
    assert torch.equal(shown["original"], given.query_x[:8])
    assert shown["reconstruction"].shape == shown["corrupted"].shape == shown["original"].shape
    assert all(torch.equal(value, again[name]) for name, value in shown.items())
    assert {"support", "queries", "prototypes"} <= set(shown)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("denoising_autoencoder", {"decoder": "convolution"}, r"decoder: convolution reconstructs images .*use mlp"),
        ("masked_autoencoder", {"patch": 6}, r"patch: a patch of 6 leaves one patch of an example of 6.*a smaller one"),
        ("masked_autoencoder", {"masked": 1.0}, r"masked.*below 1"),
        ("supervised", {"weights": [1.0, 2.0]}, r"weights: got 2 for 9 training classes; give one for each"),
        ("supervised", {"weights": [0.0] * 9}, r"weights: all are 0"),
        ("denoising_autoencoder", {"noise": -0.1}, r"noise.*at least 0"),
        ("denoising_autoencoder", {"temperature": {"learn": {}}}, r"temperature"),
    ],
)
def test_settings_that_cannot_work_are_named(kind: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(LearnerError, match=message):
        learner_of(kind, **settings)
