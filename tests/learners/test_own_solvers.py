"""A solver is one class and one recipe: zero-shot, transductive, model-based and closed-form ones of a package."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.base import METHODS, Recipe
from metaloom.learners.build import build_learner, only_read
from metaloom.learners.domains import Learned, Real
from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.networks.base import linear_parameters
from metaloom.learners.solvers.amortized import AmortizedSolver, Embedding, Outputs
from metaloom.learners.solvers.base import SEMI_SUPERVISED, SOLVERS, TRANSDUCTIVE
from metaloom.learners.solvers.metric import class_means
from metaloom.learners.tensors import Tensors
from metaloom.testing import SolverContract, SolverRow
from metaloom.testing.problems import SMOOTH, begun, episode_of, seeded

FEW_SHOT = TaskShape("classification", (6,), 3, classes=9)
WIDTH, ATTRIBUTES = 5, 4


class ByAttributes(AmortizedSolver):
    """Zero-shot: a linear map of each class's attributes is its prototype (Romera-Paredes and Torr, 2015)."""

    learns = True
    needs_classes = True
    reads_support = frozenset({"class_features"})

    def init(self, theta: Tensors, generator: Generator) -> Tensors:
        return linear_parameters("map", ATTRIBUTES, WIDTH, generator)

    def adapt(self, phi: Tensors, embed: Embedding, support: Support) -> Outputs:
        if support.class_features is None:
            raise LearnerError("support.class_features: zero-shot learning needs the features of each class")
        prototypes = F.linear(support.class_features, phi["map.weight"], phi["map.bias"])
        return lambda query_x: embed(query_x) @ prototypes.T


class SoftMeans(AmortizedSolver):
    """Transductive: prototypes are moved by all queries' soft labels (Ren et al., 2018)."""

    needs_classes = True
    setting = TRANSDUCTIVE

    def adapt(self, phi: Tensors, embed: Embedding, support: Support) -> Outputs:
        both = embed.beside(support.x)

        def outputs(query_x: Tensor) -> Tensor:
            features, queries = both(query_x)
            means = class_means(features, support.y, self.task.outputs)
            shares = torch.softmax(-torch.cdist(queries, means).square(), -1)
            counts = F.one_hot(support.y, self.task.outputs).to(shares).sum(0)
            moved = (counts[:, None] * means + shares.T @ queries) / (counts + shares.sum(0))[:, None]
            return -torch.cdist(queries, moved).square()

        return outputs


class SemiMeans(AmortizedSolver):
    """Semi-supervised: prototypes are moved by the soft labels of examples without labels (Ren et al., 2018)."""

    needs_classes = True
    setting = SEMI_SUPERVISED
    reads_support = frozenset({"unlabelled"})

    def adapt(self, phi: Tensors, embed: Embedding, support: Support) -> Outputs:
        means = class_means(embed(support.x), support.y, self.task.outputs)
        if support.unlabelled is not None:
            more = embed(support.unlabelled)
            shares = torch.softmax(-torch.cdist(more, means).square(), -1)
            counts = F.one_hot(support.y, self.task.outputs).to(shares).sum(0)
            means = (counts[:, None] * means + shares.T @ more) / (counts + shares.sum(0))[:, None]
        return lambda query_x: -torch.cdist(embed(query_x), means).square()


class Generated(AmortizedSolver):
    """Model-based: a network maps each class's mean embedding to its row of the head (Requeima et al., 2019)."""

    learns = True
    needs_classes = True

    def init(self, theta: Tensors, generator: Generator) -> Tensors:
        return linear_parameters("weights", WIDTH, WIDTH, generator)

    def adapt(self, phi: Tensors, embed: Embedding, support: Support) -> Outputs:
        both = embed.beside(support.x)

        def outputs(query_x: Tensor) -> Tensor:
            features, queries = both(query_x)
            means = class_means(features, support.y, self.task.outputs)
            return queries @ torch.tanh(F.linear(means, phi["weights.weight"], phi["weights.bias"])).T

        return outputs


@dataclass(frozen=True)
class RidgeConfig:
    """The penalty of the head."""

    penalty: Annotated[float | Learned, Real(1e-4, 100.0, log=True, positive=True)] = 1.0


class Ridge(AmortizedSolver):
    """Closed form: W = (X'X + penalty I)^-1 X'Y over the embedding (Bertinetto et al., 2019)."""

    Config = RidgeConfig
    config: RidgeConfig

    def adapt(self, phi: Tensors, embed: Embedding, support: Support) -> Outputs:
        both = embed.beside(support.x)
        kind = self.task.task_kind
        targets = F.one_hot(support.y, self.task.outputs).to(support.x) if kind.has_classes else support.y

        def outputs(query_x: Tensor) -> Tensor:
            features, queries = both(query_x)
            eye = torch.eye(features.shape[1], dtype=features.dtype)
            gram = features.T @ features + self.knob(phi, "penalty") * eye
            return queries @ torch.linalg.solve(gram, features.T @ targets)

        return outputs


OWN: dict[str, tuple[type[AmortizedSolver], dict[str, Any]]] = {
    "by_attributes": (ByAttributes, {}),
    "soft_means": (SoftMeans, {}),
    "semi_means": (SemiMeans, {}),
    "generated": (Generated, {}),
    "normal_equations": (Ridge, {"penalty": {"learn": {"start": 0.5}}}),
}


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """Register the four solvers and their recipes for one test."""
    for name, (solver, settings) in OWN.items():
        SOLVERS.add(name, solver)
        learner = {"initialization": {"kind": "learned"}, "prediction": {"kind": name, **settings}}
        METHODS.add(name, Recipe(summary="a test's", paper="none", learner=learner))
    yield
    for name in OWN:
        SOLVERS.remove(name)
        METHODS.remove(name)


def built(name: str, task: TaskShape = FEW_SHOT) -> Any:
    learner = {**METHODS[name].learner, "architecture": SMOOTH}
    return build_learner(learner=learner, inner={}, outer={}, task=task)


def episode_for(name: str, task: TaskShape, seed: int) -> Episode:
    """Draw an episode; the zero-shot solver gets attributes and no support examples, the semi-supervised one more."""
    drawn = episode_of(task, seed, support=6, queries=12)
    if name == "semi_means":
        more = torch.randn(7, *task.inputs, dtype=torch.float64, generator=seeded(seed))
        return replace(drawn, support=replace(drawn.support, unlabelled=more))
    if name != "by_attributes":
        return drawn
    attributes = torch.randn(task.outputs, ATTRIBUTES, dtype=torch.float64, generator=seeded(seed))
    return replace(drawn, support=Support(drawn.support_x[:0], drawn.support_y[:0], class_features=attributes))


class TestOwnSolvers(SolverContract):
    rows = {name: SolverRow(settings, episode=partial(episode_for, name)) for name, (_, settings) in OWN.items()}


def test_a_closed_form_solver_is_the_closed_form_and_solves_a_regression_too() -> None:
    task = TaskShape("regression", (6,), 2)
    learner = built("normal_equations", task)
    phi, state = begun(learner)
    given = episode_of(task, 0, support=8, queries=4)
    embed = torch.tanh(
        F.linear(given.support_x, phi["initialization/layer0.weight"], phi["initialization/layer0.bias"])
    )
    query = torch.tanh(F.linear(given.query_x, phi["initialization/layer0.weight"], phi["initialization/layer0.bias"]))
    gram = embed.T @ embed + 0.5 * torch.eye(embed.shape[1], dtype=torch.float64)
    expected = query @ torch.linalg.solve(gram, embed.T @ given.support_y)
    found = learner.adapt(phi, state, given.support, seeded(0)).predict(given.query_x)
    torch.testing.assert_close(found, expected)


def test_a_solver_that_takes_no_steps_is_built_by_itself_and_never_as_gradient_descent() -> None:
    """A registered prediction without inner steps must not become five SGD steps on a linear head."""
    learner = built("generated")
    assert isinstance(learner.solver, Generated)
    assert (learner.evaluation_steps, learner.estimator) == (0, "direct")


@pytest.mark.parametrize(
    ("slots", "message"),
    [
        (
            {"update": {"steps": 2}},
            r"learner\.update: normal_equations takes no inner steps \(prediction normal_equations reads architecture",
        ),
        (
            {"loss": {"kind": "cross_entropy"}},
            r"learner\.loss: normal_equations does not use loss \(prediction normal_equations reads",
        ),
        (
            {"data": {"kind": "gradient_matching"}},
            r"learner\.prediction: normal_equations does not serve learner\.data",
        ),
    ],
)
def test_a_slot_that_a_solver_does_not_read_is_refused(slots: dict[str, Any], message: str) -> None:
    learner = {**METHODS["normal_equations"].learner, "architecture": SMOOTH, **slots}
    with pytest.raises(LearnerError, match=message):
        build_learner(learner=learner, inner={}, outer={}, task=FEW_SHOT)


def test_what_was_stored_with_unread_slots_is_read_without_them() -> None:
    stored = {
        "method": "normal_equations",
        **METHODS["normal_equations"].learner,
        "loss": {"kind": "cross_entropy"},
        "architecture": SMOOTH,
    }
    learner, outer = only_read(stored, {"steps": 3, "hypergradient": {"kind": "unroll"}})
    assert set(learner) == {"method", "initialization", "prediction", "architecture"}
    assert outer == {"steps": 3}
    assert only_read({"method": "maml"}, {"hypergradient": "unroll"})[1] == {"hypergradient": "unroll"}


@pytest.mark.parametrize("prediction", ["normal_equations", "prototypes", "nearest_neighbour", "joint"])
@pytest.mark.parametrize("hypergradient", ["unroll", {"kind": "neumann", "terms": 3}])
def test_an_estimator_that_a_solver_does_not_take_is_refused(prediction: str, hypergradient: Any) -> None:
    learner = {"prediction": {"kind": prediction}}
    with pytest.raises(
        LearnerError, match=rf"outer\.hypergradient: prediction {prediction} takes auto or direct, not "
    ):
        build_learner(learner=learner, inner={}, outer={"hypergradient": hypergradient}, task=FEW_SHOT)
    for taken in ("auto", {"kind": "direct"}):
        built_learner = build_learner(learner=learner, inner={}, outer={"hypergradient": taken}, task=FEW_SHOT)
        assert built_learner.estimator in ("direct", "none")


def test_examples_without_labels_move_a_semi_supervised_learner() -> None:
    learner = built("semi_means")
    assert learner.setting == "semi-supervised"
    phi, state = begun(learner)
    given = episode_for("semi_means", FEW_SHOT, 0)
    supports = (given.support, replace(given.support, unlabelled=None))
    with_them, without = (learner.adapt(phi, state, one, seeded(0)).predict(given.query_x) for one in supports)
    assert not torch.allclose(with_them, without)
    assert Episode.of(given.tensors()).support.unlabelled is given.support.unlabelled


def test_a_support_set_is_embedded_once_for_all_predictions(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"architecture": SMOOTH, "initialization": {"kind": "learned"}, "prediction": {"kind": "prototypes"}}
    learner = build_learner(learner=settings, inner={}, outer={}, task=FEW_SHOT)
    phi, state = begun(learner)
    given, embedded = episode_of(FEW_SHOT, 0, support=6, queries=12), list[int]()
    features = learner.network.features  # type: ignore[attr-defined]

    def counting(theta: Tensors, x: Tensor, *rest: Any) -> Tensor:
        embedded.append(len(x))
        return features(theta, x, *rest)  # type: ignore[no-any-return]

    monkeypatch.setattr(learner.network, "features", counting)  # type: ignore[attr-defined]
    adapted = learner.adapt(phi, state, given.support, seeded(0))
    for count in (12, 3):
        adapted.predict(given.query_x[:count])
    assert embedded == [6, 12, 3]


@pytest.mark.parametrize("name", ["soft_means", "linear", "joint"])
def test_a_part_of_a_support_set_that_a_solver_does_not_use_is_refused(name: str) -> None:
    settings = {"architecture": SMOOTH, "initialization": {"kind": "learned"}, "prediction": {"kind": name}}
    learner = build_learner(learner=settings, inner={}, outer={}, task=FEW_SHOT)
    phi, state = begun(learner)
    drawn = replace(episode_of(FEW_SHOT, 0), class_ids=torch.arange(3))
    marked = replace(drawn, support=replace(drawn.support, mask=torch.ones(len(drawn.support_y), dtype=torch.bool)))
    with pytest.raises(LearnerError, match=r"support\.mask: .* not use it"):
        learner.adapt(phi, state, marked.support, seeded(0))
    with pytest.raises(LearnerError, match=r"support\.mask: .* not use it"):
        learner.meta_step(phi, state, [marked], seeded(0))


def test_masked_examples_play_no_part_in_prototypes() -> None:
    settings = {"architecture": SMOOTH, "initialization": {"kind": "learned"}, "prediction": {"kind": "prototypes"}}
    learner = build_learner(learner=settings, inner={}, outer={}, task=FEW_SHOT)
    phi, state = begun(learner)
    given = episode_of(FEW_SHOT, 0, support=6, queries=12)
    filled = Support(
        torch.cat([given.support_x, 100 * given.support_x[:2]]),
        torch.cat([given.support_y, given.support_y[:2]]),
        mask=torch.tensor([True] * 6 + [False] * 2),
    )
    plain, masked = (
        learner.adapt(phi, state, support, seeded(0)).predict(given.query_x) for support in (given.support, filled)
    )
    torch.testing.assert_close(plain, masked)
