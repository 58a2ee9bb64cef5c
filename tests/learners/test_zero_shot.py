"""Zero-shot solvers are what their papers say: each equals a plain version, and so does its gradient."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.build import build_learner
from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.testing.problems import DESCRIBED, SMOOTH, begun, built, episode_of, normal, seeded

LEARNED = {"initialization": {"kind": "learned"}, "architecture": SMOOTH}


def prototypical(task: TaskShape = DESCRIBED, **settings: Any) -> Any:
    return built({**LEARNED, "prediction": {"kind": "zero_shot_prototypical", **settings}}, task)


def eszsl(task: TaskShape = DESCRIBED, **settings: Any) -> Any:
    return built({"prediction": {"kind": "eszsl", **settings}}, task)


def training(seed: int, ids: tuple[int, ...] = (0, 1, 2), task: TaskShape = DESCRIBED) -> Episode:
    """Draw an episode of training classes, each described by the same numbers in every episode."""
    described = normal(task.classes, 4, seed=23)[list(ids)]
    drawn = episode_of(task, seed, queries=9)
    support = replace(drawn.support, class_features=described)
    return replace(drawn, support=support, class_ids=torch.tensor(ids))


def plain_prototypes(phi: dict[str, Tensor], episode: Episode, *, hidden: bool, unit: bool) -> Tensor:
    classes = episode.support.class_features
    assert classes is not None
    for index in range(1 + hidden):
        classes = torch.relu(classes) if index else classes
        classes = classes @ phi[f"prediction/classes{index}.weight"].T + phi[f"prediction/classes{index}.bias"]
    if unit:
        classes = classes / classes.square().sum(-1, keepdim=True).sqrt()
    body = phi["initialization/layer0.weight"], phi["initialization/layer0.bias"]
    queries = torch.tanh(episode.query_x @ body[0].T + body[1])
    if "prediction/queries0.weight" in phi:
        queries = queries @ phi["prediction/queries0.weight"].T + phi["prediction/queries0.bias"]
    return -(queries[:, None] - classes[None]).square().sum(-1)


@pytest.mark.parametrize("settings", [{}, {"unit": False}, {"hidden": 7}, {"hidden": 7, "width": 6}])
def test_prototypes_and_their_gradient_are_those_of_the_paper(settings: dict[str, Any]) -> None:
    learner, episode = prototypical(**settings), episode_of(DESCRIBED, 1)
    phi, state = begun(learner)
    leaves = {name: one.clone().requires_grad_() for name, one in phi.items()}
    logits = plain_prototypes(leaves, episode, hidden="hidden" in settings, unit=settings.get("unit", True))
    loss = F.cross_entropy(logits, episode.query_y)
    loss.backward()  # type: ignore[no-untyped-call]
    step = learner.meta_step(phi, state, [episode], seeded(0))
    assert step.loss == pytest.approx(float(loss.detach()), abs=1e-12)
    for name, leaf in leaves.items():
        torch.testing.assert_close(step.gradient[name], leaf.grad, rtol=1e-9, atol=1e-12)
    found = learner.adapt(phi, state, episode.support, seeded(0)).predict(episode.query_x)
    torch.testing.assert_close(found, logits.softmax(-1).detach(), rtol=1e-9, atol=1e-12)


def plain_eszsl(
    x: Tensor, y: Tensor, classes: Tensor, new: Tensor, *, gamma: float, lambda_: float, unit: bool = True
) -> Tensor:
    """The paper's formula over all examples at once; ``y`` are rows of ``classes``; returns V s_k of new classes."""
    x, classes, new = (F.normalize(one, dim=-1) if unit else one for one in (x, classes, new))
    signs = 2 * F.one_hot(y, len(classes)).to(x) - 1
    left = x.T @ x + gamma * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    right = classes.T @ classes + lambda_ * torch.eye(classes.shape[1], dtype=x.dtype)
    return new @ (torch.linalg.inv(left) @ x.T @ signs @ classes @ torch.linalg.inv(right)).T


@pytest.mark.parametrize("unit", [True, False])
def test_eszsl_is_the_papers_formula_over_all_examples_that_were_seen(unit: bool) -> None:
    learner = eszsl(gamma=0.2, lambda_=0.3, unit=unit)
    phi, state = begun(learner)
    episodes = [training(0), training(1, (3, 1, 5)), training(2, (8, 6, 0))]
    for episode in episodes[:2]:
        state = learner.advance(phi, state, [episode], seeded(0))
    state = learner.advance(phi, state, episodes[2:], seeded(0))
    seen = [0, 1, 2, 3, 5, 6, 8]
    labels = torch.cat([one.class_ids[one.query_y] for one in episodes if one.class_ids is not None])
    places = torch.tensor([seen.index(int(label)) for label in labels])
    new, queries = normal(5, 4, seed=3), normal(11, 6, seed=4)
    scores = plain_eszsl(
        torch.cat([one.query_x for one in episodes]),
        places,
        normal(9, 4, seed=23)[seen],
        new,
        gamma=0.2,
        lambda_=0.3,
        unit=unit,
    )
    queries_in = F.normalize(queries, dim=-1) if unit else queries
    support = Support(torch.zeros(0, 6), torch.zeros(0, dtype=torch.int64), new)
    found = learner.adapt(phi, state, support, seeded(0)).outputs(queries)
    torch.testing.assert_close(found, queries_in @ scores.T, rtol=1e-9, atol=1e-12)


def test_a_learned_penalty_of_eszsl_is_judged_by_classes_that_were_not_fitted() -> None:
    learner = eszsl(gamma={"learn": {"start": 0.2}}, lambda_=0.3, folds=2)
    phi, state = begun(learner)
    episode = training(0, (0, 1, 2))
    classes, labels = normal(9, 4, seed=23)[:3], episode.query_y
    step = learner.meta_step(phi, state, [episode], seeded(0))
    losses = []
    for fold, others in (([0, 2], [1]), ([1], [0, 2])):
        fitted, judged = (torch.isin(labels, torch.tensor(one)) for one in (others, fold))
        places = torch.tensor([others.index(int(one)) for one in labels[fitted]])
        scores = plain_eszsl(episode.query_x[fitted], places, classes[others], classes[fold], gamma=0.2, lambda_=0.3)
        logits = F.normalize(episode.query_x[judged], dim=-1) @ scores.T
        targets = torch.tensor([fold.index(int(one)) for one in labels[judged]])
        losses.append(F.cross_entropy(logits, targets, reduction="none"))
    # a learned start is drawn in float32
    assert step.loss == pytest.approx(float(torch.cat(losses).mean()), abs=1e-9)
    assert learner.online  # its trial takes steps although none of gradient descent may be needed


@pytest.mark.parametrize("make", [prototypical, eszsl])
def test_permuted_classes_give_permuted_answers(make: Any) -> None:
    learner = make()
    phi, state = begun(learner)
    state = learner.advance(phi, state, [training(0)], seeded(0))
    classes, queries, order = normal(3, 4, seed=5), normal(7, 6, seed=6), torch.tensor([2, 0, 1])

    def predicted(given: Tensor, x: Tensor) -> Tensor:
        support = Support(torch.zeros(0, 6), torch.zeros(0, dtype=torch.int64), given)
        found: Tensor = learner.adapt(phi, state, support, seeded(0)).predict(x)
        return found

    whole = predicted(classes, queries)
    torch.testing.assert_close(predicted(classes[order], queries), whole[:, order], rtol=1e-9, atol=1e-12)
    one_by_one = torch.cat([predicted(classes, x[None]) for x in queries])
    torch.testing.assert_close(one_by_one, whole, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("make", [prototypical, eszsl])
def test_answers_are_finite_for_equal_classes_no_features_and_one_query_in_float32(make: Any) -> None:
    learner = make()
    phi = learner.init(seeded(0))
    state = learner.begin(phi, seeded(0))
    episode = training(0).to(torch.device("cpu"), torch.float32)
    state = learner.advance(phi, state, [episode], seeded(0))
    classes = torch.tensor([[1.0, 2, 3, 4], [1, 2, 3, 4], [0, 0, 0, 0]])
    support = Support(torch.zeros(0, 6), torch.zeros(0, dtype=torch.int64), classes)
    found = learner.adapt(phi, state, support, seeded(0)).predict(torch.zeros(1, 6))
    assert torch.isfinite(found).all() and found[0, 0] == found[0, 1]


def test_eszsl_answers_alike_for_all_classes_before_it_has_seen_an_example() -> None:
    learner = eszsl()
    phi, state = begun(learner)
    found = learner.adapt(phi, state, episode_of(DESCRIBED, 0).support, seeded(0)).predict(normal(2, 6, seed=1))
    torch.testing.assert_close(found, torch.full((2, 3), 1 / 3, dtype=torch.float64))


def test_identity_starts_at_the_features_themselves_without_a_body() -> None:
    task = replace(DESCRIBED, class_features=TaskShape("classification", (6,), 0))
    learner = built(
        {
            **LEARNED,
            "architecture": {"kind": "linear"},
            "prediction": {"kind": "zero_shot_prototypical", "width": 6, "start": "identity", "metric": "cosine"},
        },
        task,
    )
    phi, state = begun(learner)
    assert sorted(phi) == [
        f"prediction/{name}0.{part}" for name in ("classes", "queries") for part in ("bias", "weight")
    ]
    episode = episode_of(task, 0)
    assert episode.support.class_features is not None
    found = learner.adapt(phi, state, episode.support, seeded(0)).outputs(episode.query_x)
    cosines = F.cosine_similarity(episode.query_x[:, None], episode.support.class_features[None], dim=-1)
    torch.testing.assert_close(found, 10 * cosines)


def test_identity_needs_one_width() -> None:
    learner = prototypical(start="identity")
    with pytest.raises(LearnerError, match=r"start: identity needs one width.*classes have 4 features, queries 5"):
        learner.init(seeded(0))


@pytest.mark.parametrize("make", [prototypical, eszsl])
def test_what_is_seen_of_an_episode(make: Any) -> None:
    learner = make()
    phi, state = begun(learner)
    state = learner.advance(phi, state, [training(0)], seeded(0))
    seen = learner.inspect(phi, state, training(1))
    width = 5 if make is prototypical else 6
    assert {name: tuple(one.shape) for name, one in seen.items()} == {
        "prototypes": (3, width),
        "queries": (9, width),
        "attribute_weights": (4,),
        "labels": (0,),
        "query_labels": (9,),
    }
    assert float(seen["attribute_weights"].min()) > 0


@pytest.mark.parametrize("kind", ["prototypes", "nearest_neighbour", "linear", "constant"])
def test_a_solver_without_use_for_it_refuses_tasks_that_describe_their_classes(kind: str) -> None:
    with pytest.raises(LearnerError, match=r"tasks\.class_features: prediction .* does not use .* zero_shot_prototyp"):
        built({"prediction": {"kind": kind}}, DESCRIBED)


@pytest.mark.parametrize("kind", ["zero_shot_prototypical", "eszsl"])
def test_a_zero_shot_solver_refuses_tasks_that_do_not(kind: str) -> None:
    task = replace(DESCRIBED, class_features=None)
    with pytest.raises(LearnerError, match=rf"tasks\.class_features: prediction {kind} predicts from features of each"):
        built({"prediction": {"kind": kind}}, task)


@pytest.mark.parametrize("make", [prototypical, eszsl])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_features": None}, r"support\.class_features: prediction \w+ needs the features of each class"),
        ({"class_features": torch.zeros(3, 5)}, r"got shape \(3, 5\); prediction \w+ takes \[n, 4\]"),
        ({"x": torch.zeros(2, 6), "y": torch.zeros(2)}, r"takes no labelled examples, but got 2; give none"),
    ],
)
def test_another_support_set_is_refused(make: Any, changes: dict[str, Any], message: str) -> None:
    learner = make()
    support = replace(episode_of(DESCRIBED, 0).support, **changes)
    with pytest.raises(LearnerError, match=message):
        learner.solver.check_support(support)


def test_batch_norm_of_a_support_set_that_has_no_examples_is_refused() -> None:
    task = TaskShape("classification", (1, 8, 8), 3, classes=9, class_features=DESCRIBED.class_features)
    settings = {
        **LEARNED,
        "architecture": {"kind": "conv4", "channels": 4, "blocks": 2},
        "prediction": {"kind": "zero_shot_prototypical"},
    }
    with pytest.raises(LearnerError, match=r"inner\.batch_norm: zero_shot_prototypical has no support examples"):
        build_learner(learner=settings, inner={"batch_norm": "support"}, outer={}, task=task)
    learner = build_learner(learner=settings, inner={"batch_norm": "batch"}, outer={}, task=task)
    assert learner.setting == "transductive" and learner.inductive() is None
