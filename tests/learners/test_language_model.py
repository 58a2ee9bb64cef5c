"""Language models: the objective against plain torch, token by token, and what cannot be one."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from metaloom.learners import build_learner
from metaloom.learners.episode import Episode, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.networks.transformer import Transformer
from metaloom.learners.solvers.amortized import AmortizedLearner
from metaloom.learners.tensors import Tensors, as_leaves
from metaloom.testing.problems import SERIES, SINGLE, TEXTS, begun, episode_of, seeded

CAUSAL = {"kind": "transformer", "width": 4, "layers": 1, "heads": 2, "causal": True}


def language_model(task: TaskShape = TEXTS, network: Any = CAUSAL, **settings: Any) -> AmortizedLearner:
    prediction = {"kind": "language_model", **settings}
    learner = {"architecture": network, "initialization": {"kind": "learned"}, "prediction": prediction}
    built = build_learner(learner=learner, inner={}, outer={}, task=task)
    assert isinstance(built, AmortizedLearner)
    return built


def plain_losses(learner: AmortizedLearner, leaves: Tensors, given: Episode, *, tied: bool) -> list[Tensor]:
    """Predict each token from the text before it alone, which no mask could leak."""
    theta = {name.removeprefix("initialization/"): value for name, value in leaves.items() if name.startswith("init")}
    weight = theta["tokens.weight"] if tied else leaves["prediction/decoder.weight"]
    losses = []
    for text in torch.cat([given.support_x, given.query_x]):
        for place in range(1, len(text)):
            if text[place] == 0:
                continue
            before = torch.where(torch.arange(len(text)) < place, text, torch.zeros_like(text))
            network = learner.network
            assert isinstance(network, Transformer)
            state = network.states(theta, before[None], Normalization(), {})[0, place - 1]
            chances = (weight @ state + leaves["prediction/decoder.bias"]).softmax(0)
            losses.append(-chances[int(text[place])].log())
    return losses


@pytest.mark.parametrize("tied", [True, False])
def test_a_step_is_that_of_predicting_each_token_from_those_before_it(tied: bool) -> None:
    learner, given = language_model(tied=tied), episode_of(TEXTS, 1)
    phi, state = begun(learner)
    leaves = as_leaves(phi)
    expected = torch.stack(plain_losses(learner, leaves, given, tied=tied)).mean()
    step = learner.meta_step(phi, state, [given], seeded(0))
    assert step.loss == pytest.approx(expected.item(), rel=1e-9)
    slopes = torch.autograd.grad(expected, list(leaves.values()), allow_unused=True)
    for name, slope in zip(leaves, slopes, strict=True):
        expected_slope = torch.zeros_like(phi[name]) if slope is None else slope
        torch.testing.assert_close(step.gradient[name], expected_slope, rtol=1e-6, atol=1e-9)


def test_texts_of_one_token_have_a_loss_of_zero() -> None:
    learner, given = language_model(), episode_of(TEXTS, 1)
    x = torch.zeros_like(given.query_x)
    x[:, 0] = 2
    short = replace(given, support=replace(given.support, x=x[: len(given.support_y)]), query_x=x)
    phi, state = begun(learner)
    step = learner.meta_step(phi, state, [short], seeded(0))
    assert step.loss == 0 and all(bool(one.isfinite().all()) for one in step.gradient.values())


def test_training_learns_a_language_and_its_perplexity_is_that_of_the_language() -> None:
    """After a comes b or c, equally likely; after these a: half of the tokens cost one bit, the others none."""
    choice = torch.randint(0, 2, (64, 2), generator=seeded(1))
    a = torch.full((64,), 2)
    x = torch.stack([a, 3 + choice[:, 0], a, 3 + choice[:, 1], a], 1).double()
    given = replace(episode_of(TEXTS, 1, support=32, queries=32))
    given = replace(given, support=replace(given.support, x=x[:32]), query_x=x[32:])
    learner = language_model()
    phi, state = begun(learner)
    for _ in range(150):
        step = learner.meta_step(phi, state, [given], seeded(0))
        phi = {name: value - 0.5 * step.gradient[name] for name, value in phi.items()}
    assert step.loss == pytest.approx(math.log(2) / 2, abs=0.05)
    shown = learner.inspect(phi, state, given)
    assert torch.equal(shown["text"], given.query_x[:8])
    bits = shown["surprise"].mean(0)
    assert bits[0] == 0
    torch.testing.assert_close(bits[1:], torch.tensor([1.0, 0.0, 1.0, 0.0]).double(), atol=0.35, rtol=0)


@pytest.mark.parametrize(
    ("task", "network", "message"),
    [
        (SERIES, CAUSAL, r"prediction: language_model predicts the tokens of text.* \(3, 7\); .*tasks\.source: text"),
        (TEXTS, {"kind": "text_bag"}, r"needs a network with features at each place.*got text_bag; use transformer"),
        (TEXTS, {**CAUSAL, "causal": False}, r"architecture\.causal: .*set causal: true"),
        (SINGLE, {"kind": "mlp"}, r"predicts the tokens of text"),
    ],
)
def test_what_cannot_be_a_language_model_is_refused_by_name(task: TaskShape, network: Any, message: str) -> None:
    with pytest.raises(LearnerError, match=message):
        language_model(task, network)
