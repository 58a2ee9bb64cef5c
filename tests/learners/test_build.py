"""From settings to a learner: what is built, and every way in which it is refused."""

import re
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
import torch

from metaloom.learners import ESTIMATORS, METHODS, SLOTS, build_learner
from metaloom.learners.build import make_component
from metaloom.learners.component import Component, NoConfig
from metaloom.learners.domains import Int
from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.knowledge.update_rules.optimizers import SGDConfig
from metaloom.learners.networks.mlp import MLP
from metaloom.learners.registry import Registry
from metaloom.learners.solvers.amortized import AmortizedLearner
from metaloom.learners.solvers.gradient import GradientLearner
from metaloom.learners.solvers.joint import JointLearner
from metaloom.learners.solvers.metric import NearestNeighbour, Prototypes
from metaloom.testing.problems import CONTROL, IMAGES, SERIES, SINGLE, SMOOTH, begun, built, episode_of, seeded

REGRESSION = TaskShape("regression", (3,), 2)
FEW_SHOT = TaskShape("classification", (6,), 3, classes=9)
START = {"initialization": {"kind": "learned"}}
WEIGHTS = {"weighting": {"kind": "meta_weight_net"}}
CONV = {"kind": "conv4", "channels": 4, "blocks": 2}


def test_everything_has_a_default() -> None:
    learner = built({}, SINGLE, estimator="auto", strategy="auto")
    assert isinstance(learner, GradientLearner)
    assert learner.init(seeded(0)) == {}
    assert (learner.estimator, learner.batch_norm, learner.setting) == ("unroll", "none", "inductive")


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"prediction": {"kind": "linear"}}, GradientLearner),
        ({"prediction": {"kind": "joint"}, **START}, JointLearner),
        ({"prediction": {"kind": "prototypes"}, **START}, Prototypes),
        ({"prediction": {"kind": "nearest_neighbour"}}, NearestNeighbour),
    ],
)
def test_the_prediction_slot_chooses_the_solver(settings: dict[str, Any], kind: type) -> None:
    learner = built(settings, FEW_SHOT)
    assert type(learner.solver if isinstance(learner, AmortizedLearner) else learner) is kind


def test_the_loss_follows_the_task() -> None:
    for task, name in ((SINGLE, "cross_entropy"), (REGRESSION, "mse")):
        learner = built({}, task)
        assert isinstance(learner, GradientLearner)
        assert type(learner.slots.loss) is SLOTS["loss"].registry[name]


WIDE = {"kind": "mlp", "hidden": [600, 600]}
RATE = {"rate": {"learn": {"per": "scalar", "start": 0.1}}}


@pytest.mark.parametrize(
    ("learner", "estimator", "kind", "reason"),
    [
        ({**START, "update": {"steps": 1}}, "auto", "unroll", "1 inner step, .* learned numbers: the graphs of all"),
        ({**START, "update": {"steps": 20}}, {"kind": "auto"}, "unroll", "20 inner steps"),
        ({**START, "update": {"steps": 21}}, "auto", "adjoint", "21 inner steps, .* every theta and one graph"),
        ({"update": {"steps": 50, **RATE}}, "auto", "forward", "50 inner steps, 1 learned number: pushing 1 forwards"),
        ({"update": {"steps": 20, **RATE}}, "auto", "unroll", "20 inner steps, 1 learned number"),
        (
            {**START, "architecture": WIDE, "update": {"steps": 20}},
            {"memory_mb": 20},
            "checkpointed",
            "above memory_mb",
        ),
        ({**START, "architecture": WIDE, "update": {"steps": 20}}, {"memory_mb": 60}, "adjoint", "would take about"),
        ({"update": {"steps": 5}}, "auto", "unroll", "0 learned numbers: there is nothing to differentiate for"),
    ],
)
def test_auto_chooses_by_steps_numbers_and_memory(
    learner: dict[str, Any], estimator: Any, kind: str, reason: str
) -> None:
    chosen = built(learner, SINGLE, estimator=estimator)
    assert chosen.estimator == kind
    assert re.search(reason, chosen.estimator_reason), chosen.estimator_reason


def test_what_the_experiment_names_needs_no_reason() -> None:
    assert built(START, SINGLE, estimator="unroll").estimator_reason == ""


def test_auto_never_chooses_what_gives_no_signal() -> None:
    """Any slot learned, any length of the inner loop, any memory: what is chosen sees it."""
    for slot, settings in {"initialization": START, "update": {"update": RATE}}.items():
        for steps in (1, 30, 300):
            for memory in (1, 1024):
                learner = {**settings, "update": {**settings.get("update", {}), "steps": steps}}
                chosen = built(learner, SINGLE, estimator={"kind": "auto", "memory_mb": memory})
                assert ESTIMATORS[chosen.estimator].gives_signal(slot)


@pytest.mark.parametrize(
    ("batch_norm", "setting"),
    [("batch", "transductive"), ("support", "inductive"), ("frozen", "inductive"), ("per_step", "transductive")],
)
def test_the_setting_follows_batch_norm(batch_norm: str, setting: str) -> None:
    learner = built({"architecture": CONV, **START}, IMAGES, inner={"batch_norm": batch_norm})
    assert (learner.setting, learner.batch_norm) == (setting, batch_norm)


REFUSED: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("a slot", {"learner": {"optimiser": {}}}, {}, r"learner: no slot is named 'optimiser' \(allowed: "),
    (
        "a kind",
        {"learner": {"architecture": {"kind": "conv5"}}},
        {},
        r"no architecture is named 'conv5'; did you mean 'conv4'",
    ),
    (
        "a setting",
        {"learner": {"architecture": {"kind": "mlp", "hiden": [3]}}},
        {},
        r"learner\.architecture\.hiden: no setting of mlp is named 'hiden'; did you mean 'hidden'",
    ),
    (
        "an inner setting",
        {"inner": {"mod": "online"}},
        {},
        r"no setting of the inner loop is named 'mod'; did you mean 'mode'",
    ),
    (
        "an estimator",
        {"outer": {"hypergradient": "unrol"}},
        {},
        r"no hypergradient estimator is named 'unrol'; did you mean 'unroll'",
    ),
    (
        "an estimator's setting",
        {"outer": {"hypergradient": {"kind": "neumann", "term": 3}}},
        {},
        r"outer\.hypergradient\.term: no setting of neumann is named 'term'; did you mean 'terms'",
    ),
    (
        "online few-shot",
        {"inner": {"mode": "online"}},
        {"task": FEW_SHOT},
        r"inner\.mode: an online .* needs a single task",
    ),
    (
        "an online start",
        {"inner": {"mode": "online"}, "learner": START},
        {},
        r"inner\.mode: an online inner loop starts once, so it cannot learn its initialization",
    ),
    (
        "a loss",
        {"learner": {"loss": {"kind": "mse"}}},
        {},
        r"learner\.loss: a classification task needs one of cross_entropy, .*; mse serves regression alone",
    ),
    (
        "a loss",
        {"learner": {"loss": {"kind": "cross_entropy"}}},
        {"task": REGRESSION},
        r"a regression task needs one of .*mse, .*; cross_entropy serves classification alone",
    ),
    (
        "class weights",
        {"learner": {"weighting": {"kind": "class_ratios"}}},
        {"task": REGRESSION},
        r"learner\.weighting: a regression task needs one of .*uniform; class_ratios serves classification alone",
    ),
    (
        "too few ratios",
        {"learner": {"weighting": {"kind": "class_ratios", "ratios": [1.0, 2.0]}}},
        {},
        r"learner\.weighting\.ratios: 2 given, but the task has 3 classes",
    ),
    (
        "negative ratios",
        {"learner": {"weighting": {"kind": "class_ratios", "ratios": [1.0, -2.0, 1.0]}}},
        {},
        r"learner\.weighting\.ratios\[1\]: got -2\.0; allowed: a number, at least 0",
    ),
    (
        "numbers of learned data",
        {"learner": {"weighting": {"kind": "per_sample"}, "data": {"kind": "distilled"}}},
        {},
        r"learner\.weighting: per_sample learns a weight for every training example, .* learner\.data: support",
    ),
    (
        "numbers of few-shot tasks",
        {"learner": {"weighting": {"kind": "per_sample"}}},
        {"task": FEW_SHOT},
        r"learner\.weighting: per_sample .* so it needs a single task",
    ),
    (
        "a loss of another kind of task",
        {"learner": {"loss": {"kind": "mse"}}},
        {"task": CONTROL},
        r"learner\.loss: a control task needs one of policy_gradient, shaped_policy_gradient; mse serves",
    ),
    (
        "data of a control task",
        {"learner": {"data": {"kind": "whole_task"}}},
        {"task": CONTROL},
        r"learner\.data: a control task starts from its own states; use support",
    ),
    (
        "a control task by prototypes",
        {"learner": {"prediction": {"kind": "prototypes"}}},
        {"task": CONTROL},
        r"learner\.prediction: prototypes needs classes, which a control task has not",
    ),
    (
        "per_step",
        {"inner": {"batch_norm": "per_step"}},
        {},
        r"inner\.batch_norm: per_step needs a network with batch norm",
    ),
    (
        "flat conv4",
        {"learner": {"architecture": CONV}},
        {"drawn": True},
        r"conv4 reads images .*have shape \(6,\); use mlp",
    ),
    (
        "small images",
        {"learner": {"architecture": {"kind": "conv4", "channels": 4}}},
        {"task": IMAGES, "drawn": True},
        r"architecture\.blocks: 4 halvings leave nothing of 8x8 images",
    ),
    (
        "distilled few-shot",
        {"learner": {"data": {"kind": "distilled"}}},
        {"task": FEW_SHOT},
        r"learner\.data: distilled data belong to one classification task",
    ),
    (
        "prototypes of a regression",
        {"learner": {"prediction": {"kind": "prototypes"}, **START}},
        {"task": REGRESSION},
        r"learner\.prediction: prototypes needs classes, which a regression task has not",
    ),
    (
        "prototypes per step",
        {"learner": {"prediction": {"kind": "prototypes"}, **START}, "inner": {"batch_norm": "per_step"}},
        {},
        r"inner\.batch_norm: prototypes takes no inner steps",
    ),
    (
        "prototypes without a body",
        {"learner": {"architecture": {"kind": "mlp", "hidden": []}, "prediction": {"kind": "prototypes"}, **START}},
        {"drawn": True},
        r"learner\.architecture: prototypes needs a network with a body",
    ),
    (
        "neighbours of a regression",
        {"learner": {"prediction": {"kind": "nearest_neighbour"}}},
        {"task": REGRESSION},
        r"learner\.prediction: nearest_neighbour needs classes",
    ),
    (
        "joint without classes",
        {"learner": {"prediction": {"kind": "joint"}, **START}},
        {"drawn": True},
        r"learner\.prediction: joint pre-training needs a few-shot task source",
    ),
    (
        "joint per step",
        {
            "learner": {"architecture": CONV, "prediction": {"kind": "joint"}, **START},
            "inner": {"batch_norm": "per_step"},
        },
        {"task": IMAGES},
        r"inner\.batch_norm: joint pre-training takes no inner steps",
    ),
    *(
        (
            f"{kind} without a proximal term",
            {"learner": START, "outer": {"hypergradient": kind}},
            {},
            rf"hypergradient: {kind} gives no signal to learner\.initialization without a proximal term",
        )
        for kind in ("conjugate_gradient", "neumann")
    ),
    (
        "alpha",
        {"outer": {"hypergradient": {"kind": "neumann", "alpha": 0.0}}},
        {},
        r"alpha: got 0\.0; allowed: a number, above 0",
    ),
    (
        "epsilon",
        {"outer": {"hypergradient": {"kind": "finite_difference", "epsilon": -1.0}}},
        {},
        r"epsilon: got -1\.0; allowed: a number or null, above 0",
    ),
]


@pytest.mark.parametrize(("sections", "more", "message"), [one[1:] for one in REFUSED], ids=[one[0] for one in REFUSED])
def test_what_cannot_work_is_refused(sections: dict[str, Any], more: dict[str, Any], message: str) -> None:
    parts: dict[str, Any] = {"learner": {}, "inner": {}, "outer": {}, **sections}
    with pytest.raises(LearnerError, match=message):
        learner = build_learner(**parts, task=more.get("task", SINGLE))
        if more.get("drawn"):
            learner.init(seeded(0))


BLIND = [
    ("first_order", {"update": {"rate": {"learn": {}}}}, "update"),
    ("first_order", WEIGHTS, "weighting"),
    ("first_order", {"data": {"kind": "distilled"}}, "data"),
    ("displacement", {"loss": {"kind": "cross_entropy", "label_smoothing": {"learn": {"start": 0.1}}}}, "loss"),
    ("one_step", START, "initialization"),
    ("finite_difference", START, "initialization"),
    ("conjugate_gradient", {"update": {"rate": {"learn": {}}}}, "update"),
    ("neumann", {"update": {"momentum": {"learn": {"start": 0.5}}}}, "update"),
    ("truncated", {**START, "update": {"steps": 8}}, "initialization"),
    ("nystrom", {"update": {"rate": {"learn": {}}}}, "update"),
    ("normal_equations", {"update": {"rate": {"learn": {}}}}, "update"),
    ("direct", START, "initialization"),
    ("direct", WEIGHTS, "weighting"),
]


@pytest.mark.parametrize(("kind", "knowledge", "slot"), BLIND)
def test_an_estimator_that_gives_no_signal_is_refused(kind: str, knowledge: dict[str, Any], slot: str) -> None:
    with pytest.raises(
        LearnerError, match=rf"outer\.hypergradient: {kind} gives no signal to learner\.{slot}, which is learned"
    ) as told:
        built(knowledge, SINGLE, estimator=kind)
    able = str(told.value).split("choose one of ")[1].split(", or fix")[0].split(", ")
    assert "unroll" in able
    assert all(ESTIMATORS[name].gives_signal(slot) for name in able if name != "auto")


@pytest.mark.parametrize(("kind", "knowledge", "slot"), BLIND)
def test_what_is_refused_is_truly_blind(kind: str, knowledge: dict[str, Any], slot: str) -> None:
    """Past the guard, the estimator's gradient is zero where the exact one is not (implicit: the update alone)."""
    inner = {"proximal": 1.0} if ESTIMATORS[kind].at_solution else {}  # convex enough to solve
    exact = built({"architecture": SMOOTH, **knowledge}, SINGLE, inner=inner)
    assert isinstance(exact, GradientLearner)
    phi, state = begun(exact)
    episode = episode_of(SINGLE, 0)
    good = exact.meta_step(phi, state, [episode], seeded(0)).gradient
    estimator = ESTIMATORS[kind](ESTIMATORS[kind].Config())
    blind = GradientLearner(exact.slots, exact.inner, SINGLE, estimator, strategy="loop")
    bad = blind.meta_step(phi, state, [episode], seeded(0)).gradient
    assert all(float(value.abs().max()) == 0 for name, value in bad.items() if name.startswith(slot))
    assert any(float(value.abs().max()) > 0 for name, value in good.items() if name.startswith(slot))


def test_a_component_of_the_wrong_configuration_is_refused() -> None:
    with pytest.raises(LearnerError, match="architecture: expected a MLPConfig, got NoConfig"):
        MLP(NoConfig(), SINGLE)


def test_an_episode_of_unequal_parts_is_refused() -> None:
    x, y = torch.zeros(4, 6), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(LearnerError, match=r"episode support: \(4,\) inputs but \(3,\) labels"):
        Episode(Support(x, y), x, torch.zeros(4, dtype=torch.int64))
    with pytest.raises(LearnerError, match=r"episode query: \(4,\) inputs but \(3,\) labels"):
        Episode(Support(x, torch.zeros(4, dtype=torch.int64)), x, y)


def test_joint_pretraining_needs_the_names_of_classes() -> None:
    learner = built({"prediction": {"kind": "joint"}, **START}, FEW_SHOT)
    phi, state = begun(learner)
    episode = episode_of(FEW_SHOT, 0)
    nameless = Episode(Support(episode.support_x, episode.support_y), episode.query_x, episode.query_y)
    with pytest.raises(LearnerError, match="joint pre-training needs episodes that name their classes"):
        learner.meta_step(phi, state, [nameless], seeded(0))


def test_a_registry_takes_a_name_once() -> None:
    registry: Registry[int] = Registry("number")
    registry.add("one", 1)
    with pytest.raises(LearnerError, match="two numbers are named 'one'"):
        registry.add("one", 2)


@pytest.mark.parametrize("name", METHODS)
def test_a_recipe_names_only_what_exists(name: str) -> None:
    for slot, settings in METHODS[name].learner.items():
        of_images = ("cells", "conv4", "resnet12", "augmented_shots", "easy")
        task = IMAGES if settings.get("kind") in of_images else SINGLE
        task = SERIES if settings.get("kind") in ("time_net", "conv_time_net", "time_warping") else task
        make_component(SLOTS[slot], settings, task)


@dataclass(frozen=True)
class WidthConfig:
    """How wide."""

    width: Annotated[int, Int(1, 9)] = 3


def test_a_component_names_its_configuration_once_and_checks_its_values() -> None:
    class Inferred(Component):
        slot = "loss"
        config: WidthConfig

    class Inherited(Inferred):
        pass

    class Named(Inferred):
        Config = SGDConfig
        config: WidthConfig

    assert Inferred.Config is WidthConfig is Inherited.Config and Named.Config is SGDConfig
    with pytest.raises(LearnerError, match=r"learner\.loss\.width: got 0; allowed: a whole number, at least 1"):
        Inferred(WidthConfig(0))
