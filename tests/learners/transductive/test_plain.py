"""Each transductive head equals a plain version of its paper on the same features, and so does its gradient."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from tests.learners.transductive import plain
from tests.support.features import Features, features, head, scores

Plain = Callable[[Tensor, Tensor, Tensor, int], Tensor]

HEADS: dict[str, tuple[dict[str, object], Plain]] = {
    "pt_map": ({"scale": 5.0, "rate": 0.3}, partial(plain.pt_map, scale=5.0, rate=0.3)),
    "epnet": ({"smoothing": 0.6, "spreading": 0.3}, partial(plain.epnet, smoothing=0.6, spreading=0.3)),
    "soft_k_means": (
        {"temperature": 0.7},
        lambda s, y, q, ways: plain.soft_k_means(s, y, q, q, ways, temperature=0.7),
    ),
    "laplacian_shot": (
        {"smoothness": 0.5, "neighbours": 4},
        partial(plain.laplacian_shot, smoothness=0.5, neighbours=4),
    ),
    "ica_msp": ({"dimensions": 4, "scale": 5.0}, partial(plain.ica_msp, dimensions=4, scale=5.0)),
    "ptn": ({"neighbours": 5, "rounds": 3}, partial(plain.ptn, neighbours=5, rounds=3)),
    "oblique_manifold": (
        {"anchors": 2, "scale": 8.0, "steps": 3},
        partial(plain.oblique_manifold, anchors=2, scale=8.0, steps=3),
    ),
}
# where QR or an eigenvector of all features has no derivative for fewer features than examples, more of them
WIDE = {"pt_map": 20, "ica_msp": 20}


def expected(name: str, given: Features) -> Tensor:
    rows = zip(given.support, given.members.argmax(-1), given.queries, strict=True)
    return torch.stack([HEADS[name][1](support, labels, queries, 3) for support, labels, queries in rows])


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("shots", [1, 2])
def test_a_head_is_its_paper(name: str, shots: int) -> None:
    given = features(episodes=2, shots=shots, width=9)
    found = scores(head(name, width=9, **HEADS[name][0]), given)
    chances = [torch.softmax(one, -1) for one in (found, expected(name, given))]
    torch.testing.assert_close(chances[0], chances[1], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", HEADS)
def test_its_gradient_is_that_of_the_plain_version(name: str) -> None:
    given = features(width=WIDE.get(name, 7), shots=2)
    weights = torch.randn(1, 12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    gradients = []
    for function in (
        partial(scores, head(name, width=given.support.shape[-1], **HEADS[name][0])),
        partial(expected, name),
    ):
        leaves = [one.clone().requires_grad_() for one in (given.support, given.queries)]
        moved = given._replace(support=leaves[0], queries=leaves[1])
        total = (torch.log_softmax(function(moved), -1) * weights).sum()
        gradients.append(torch.cat(torch.autograd.grad(total, leaves), 1))
    error = float((gradients[0] - gradients[1]).norm() / gradients[1].norm())
    assert error < 1e-6


@pytest.mark.parametrize("best", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_ilpc_guesses_as_the_plain_version_that_makes_its_graph_again_in_each_round(best: int, seed: int) -> None:
    given = features(shots=1, queries=(5, 5, 5), apart=0.6, seed=seed, width=20)
    made = head("ilpc", width=20, cleanest=best, neighbours=18)
    answers = plain.ilpc(given.support[0], given.members[0].argmax(-1), given.queries[0], 3, neighbours=18, best=best)
    assert torch.equal(scores(made, given)[0].argmax(-1), answers)


def test_a_turn_of_the_components_changes_no_prediction_so_that_whitening_is_all_of_ica() -> None:
    given = features(width=20)
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    support, labels, queries = given.support[0], given.members[0].argmax(-1), given.queries[0]
    turned = plain.ica_msp(support, labels, queries, 3, dimensions=4, scale=5.0, turned=turn)
    found = scores(head("ica_msp", width=20, dimensions=4, scale=5.0), given)[0]
    torch.testing.assert_close(found, turned, atol=1e-6, rtol=1e-6)


def test_examples_without_labels_refine_the_means_as_the_queries_do() -> None:
    given, others = features(), features(seed=3).queries[0]
    labels = given.members[0].argmax(-1)
    made = head("soft_k_means", over="unlabelled", temperature=0.7)
    assert made.setting == "semi-supervised"
    found = made._distances({}, given.support, given.members, others[None], given.queries)[0]  # type: ignore[attr-defined]
    wanted = plain.soft_k_means(given.support[0], labels, others, given.queries[0], 3, temperature=0.7)
    torch.testing.assert_close(found, wanted, atol=1e-9, rtol=1e-9)
