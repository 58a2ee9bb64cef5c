"""What must hold of every transductive head: symmetries, batches, single and many queries, degenerate features."""

import pytest
import torch
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from metaloom.learners.build import build_learner
from metaloom.learners.episode import Support, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.testing.problems import SMOOTH, begun, episode_of, seeded
from tests.support.features import Features, features, head, scores

HEADS: dict[str, dict[str, object]] = {
    "pt_map": {"scale": 5.0, "epochs": 10},
    "ilpc": {},
    "epnet": {},
    "soft_k_means": {"iterations": 3},
    "laplacian_shot": {},
    "ptn": {"rounds": 5},
    "ica_msp": {"dimensions": 5},
    "oblique_manifold": {"steps": 5, "anchors": 4},
}
MARGINALS = ("uniform", "estimated", "none")
CASES = [(name, marginal) for name in HEADS for marginal in MARGINALS]


def chances(name: str, given: Features, **changed: object) -> Tensor:
    return torch.softmax(scores(head(name, ways=given.members.shape[-1], **{**HEADS[name], **changed}), given), -1)


@pytest.mark.parametrize(("name", "marginal"), CASES)
def test_the_order_of_examples_queries_and_classes_only_moves_the_answers(name: str, marginal: str) -> None:
    given = features(shots=2, queries=(6, 3, 3), seed=1)
    order, asked, classes = (torch.randperm(n, generator=seeded(n)) for n in (6, 12, 3))
    moved = Features(
        given.support[:, order], given.members[:, order][..., classes], given.queries[:, asked], given.query_labels
    )
    plain, turned = (chances(name, one, marginal=marginal) for one in (given, moved))
    torch.testing.assert_close(turned, plain[:, asked][..., classes], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("name", "marginal"), CASES)
def test_a_batch_of_episodes_is_each_of_them(name: str, marginal: str) -> None:
    given = features(episodes=3, queries=(5, 4, 3))
    together = chances(name, given, marginal=marginal)
    for index in range(3):
        one = Features(*(part[index : index + 1] for part in given[:3]), given.query_labels)
        torch.testing.assert_close(chances(name, one, marginal=marginal)[0], together[index], atol=1e-9, rtol=1e-9)


def degenerate(kind: str, dtype: torch.dtype) -> Features:
    given = features(seed=2, dtype=dtype, queries=(4, 4, 4))
    match kind:
        case "one query":
            return given._replace(queries=given.queries[:, :1])
        case "two queries":
            return given._replace(queries=given.queries[:, :2])
        case "equal queries":
            return given._replace(queries=given.queries[:, :1].expand(-1, 12, -1))
        case "all equal":
            return given._replace(support=torch.ones_like(given.support), queries=torch.ones_like(given.queries))
        case "zeros":
            return given._replace(support=torch.zeros_like(given.support), queries=torch.zeros_like(given.queries))
        case "a query is a support example":
            return given._replace(queries=torch.cat([given.support, given.queries], 1))
        case "large":
            return given._replace(support=1e4 * given.support, queries=1e4 * given.queries)
        case "an empty class":
            members = torch.cat([given.members, torch.zeros_like(given.members[..., :1])], -1)
            return given._replace(members=members)
    raise AssertionError(kind)


KINDS = (
    "one query",
    "two queries",
    "equal queries",
    "all equal",
    "zeros",
    "a query is a support example",
    "large",
    "an empty class",
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "marginal"), CASES)
def test_it_stays_finite_in_float32(name: str, marginal: str, kind: str) -> None:
    given = degenerate(kind, torch.float32)
    leaves = [given.support.clone().requires_grad_(), given.queries.clone().requires_grad_()]
    moved = given._replace(support=leaves[0], queries=leaves[1])
    found = chances(name, moved, marginal=marginal, balance_steps=40)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found.sum(-1), torch.ones_like(found[..., 0]))
    gradients = torch.autograd.grad(found[..., 0].sum(), leaves, allow_unused=True)
    assert all(one is None or bool(torch.isfinite(one).all()) for one in gradients)
    if kind == "an empty class":
        assert float(found[..., -1].detach().max()) < 1e-6


@pytest.mark.parametrize("name", HEADS)
def test_one_query_alone_goes_to_the_class_that_it_lies_in(name: str) -> None:
    given = features(apart=4.0, shots=5, queries=(4, 4, 4), seed=4)
    right = 0
    for index, label in enumerate(given.query_labels.tolist()):
        alone = given._replace(queries=given.queries[:, index : index + 1])
        right += int(chances(name, alone)[0, 0].argmax()) == label
    assert right >= 10


@pytest.mark.parametrize("name", HEADS)
def test_thousands_of_queries_take_seconds_and_are_classified(name: str) -> None:
    small = {"rounds": 2} if name == "ptn" else {"steps": 3} if name == "oblique_manifold" else {}
    small |= {"cleanest": 100, "cleaning_steps": 5} if name == "ilpc" else {}
    given = features(apart=4.0, shots=5, queries=(500, 500, 500), seed=4, dtype=torch.float32)
    with torch.no_grad():
        found = chances(name, given, **small)
    assert torch.isfinite(found).all()
    assert float((found[0].argmax(-1) == given.query_labels).double().mean()) > 0.9


@pytest.mark.parametrize("name", HEADS)
def test_padding_plays_no_part(name: str) -> None:
    task = TaskShape("classification", (6,), 3, classes=9)
    settings_of = {"architecture": SMOOTH, "initialization": {"kind": "learned"}}
    prediction = {"kind": name, **HEADS[name], **({"power": 1.0} if name in ("pt_map", "ilpc", "ptn") else {})}
    learner = build_learner(learner={**settings_of, "prediction": prediction}, inner={}, outer={}, task=task)
    phi, state = begun(learner)
    given = episode_of(task, 0, support=6, queries=12)
    filled = Support(
        torch.cat([given.support_x, 100 * given.support_x[:2]]),
        torch.cat([given.support_y, given.support_y[:2]]),
        mask=torch.tensor([True] * 6 + [False] * 2),
    )
    plain, masked = (
        learner.adapt(phi, state, support, seeded(0)).predict(given.query_x) for support in (given.support, filled)
    )
    torch.testing.assert_close(plain, masked)
    shown = learner.inspect(phi, state, given)
    assert shown["support"].shape == (6, 5)
    assert shown["prototypes"].shape == (3, 5)
    assert ("adjacency" in shown) == (name in ("ilpc", "epnet", "laplacian_shot", "ptn"))
    assert "adjacency" not in shown or shown["adjacency"].shape == (1, 18, 18)


@pytest.mark.parametrize("name", ["pt_map", "ilpc", "ica_msp", "ptn"])
def test_what_assumes_equal_classes_gives_more_wrong_answers_to_unequal_ones_than_without(name: str) -> None:
    """Of 30 queries 26 are of one class: an equal share for each must put some of them elsewhere."""
    given = features(episodes=8, apart=1.2, shots=2, queries=(26, 2, 2), width=10, seed=6)
    right = {
        marginal: float((chances(name, given, marginal=marginal).argmax(-1) == given.query_labels).double().mean())
        for marginal in MARGINALS
    }
    assert right["estimated"] > right["uniform"]
    assert right["none"] > right["uniform"]


def test_columns_must_divide_the_features() -> None:
    with pytest.raises(LearnerError, match=r"prediction\.columns: 3 columns do not divide 7 features"):
        chances("oblique_manifold", features(), columns=3)


def test_columns_are_points_of_their_own() -> None:
    """Twice the features of one column is the same point; each column has its own length."""
    given = features(width=8)
    factors = torch.tensor([2.0, 1.0]).double().repeat(4)  # the columns vary fastest
    scaled = given._replace(support=given.support * factors, queries=given.queries * factors)
    made = head("oblique_manifold", width=8, columns=2, steps=2, anchors=0)
    torch.testing.assert_close(scores(made, scaled), scores(made, given), atol=1e-9, rtol=1e-9)
    whole = head("oblique_manifold", width=8, steps=2, anchors=0)
    assert not torch.allclose(scores(whole, scaled), scores(whole, given), atol=1e-3)


@settings(max_examples=15, deadline=None)
@drawn(seed=st.integers(0, 1000), scale=st.sampled_from([0.5, 5.0, 50.0]), shots=st.integers(1, 3))
def test_the_balanced_answers_of_pt_map_have_equal_columns(seed: int, scale: float, shots: int) -> None:
    given = features(seed=seed, shots=shots)
    found = scores(head("pt_map", scale=scale, epochs=3), given).exp()
    assert float((found.sum(1) - 4).abs().max()) < 1e-9
