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
        ("denoising_autoencoder", {"noise": -0.1}, r"noise.*at least 0"),
        ("denoising_autoencoder", {"temperature": {"learn": {}}}, r"temperature"),
    ],
)
def test_settings_that_cannot_work_are_named(kind: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(LearnerError, match=message):
        learner_of(kind, **settings)
