"""A row for every entry of the registries: a small example of each method and component, which all contracts run."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from metaloom.learners import METHODS, Learner, build_learner
from metaloom.learners.episode import Episode, TaskShape
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.tensors import Tensors, part
from tests.support.bilevel import CONTROL, IMAGES, SINGLE, episode_of, seeded

FEW_SHOT = TaskShape("classification", (6,), 3, classes=9)
SMALL: Mapping[str, Any] = {"kind": "mlp", "hidden": [8], "activation": "tanh"}
CELLS: Mapping[str, Any] = {"kind": "cells", "channels": 4}
CONV: Mapping[str, Any] = {"kind": "conv4", "channels": 4, "blocks": 2}
# straight-through choices have a biased gradient by definition
SOFT_POLICY: Mapping[str, Any] = {"operations": ["rotate", "translate_x", "contrast"], "relaxation": "soft"}

CONVNET: Mapping[str, Any] = {"kind": "convnet", "channels": 4, "blocks": 2}
# one network for all steps, so that their distances may be compared
MATCHED: Mapping[str, Any] = {"initialization": {"resample": False}, "update": {"evaluation_steps": 3}}

# method: its task, what stands in for its big parts, and the outer rate at which a few steps must help
METHOD_ROWS: dict[str, tuple[TaskShape, dict[str, Any], float]] = {
    "maml": (FEW_SHOT, {"architecture": SMALL}, 0.01),
    "first_order_maml": (FEW_SHOT, {"architecture": SMALL}, 0.01),
    "reptile": (FEW_SHOT, {"architecture": SMALL}, 0.05),
    "anil": (FEW_SHOT, {"architecture": SMALL}, 0.01),
    "meta_sgd": (FEW_SHOT, {"architecture": SMALL}, 0.01),
    "maml_plus_plus": (IMAGES, {"architecture": CONV}, 0.01),
    "imaml": (FEW_SHOT, {"architecture": SMALL}, 0.01),
    "learned_optimizer": (
        FEW_SHOT,
        {"architecture": SMALL, "update": {"steps": 4, "evaluation_steps": 4, "hidden": 5, "second_order": True}},
        0.05,
    ),
    "meta_lstm": (FEW_SHOT, {"architecture": SMALL, "update": {"rate": 0.1, "hidden": 4}}, 0.05),
    "prototypical": (FEW_SHOT, {"architecture": SMALL}, 0.01),
    "meta_weight_net": (SINGLE, {"architecture": SMALL}, 0.01),
    "learning_to_reweight": (SINGLE, {"architecture": SMALL}, 0.0),
    "learned_loss": (SINGLE, {"architecture": SMALL, "loss": {"kind": "ml3", "hidden": 6, "hand": 1.0}}, 0.05),
    "learned_reward": (CONTROL, {"architecture": SMALL, "loss": {"hidden": 6}, "update": {"steps": 2}}, 0.05),
    "policy_gradient": (CONTROL, {"architecture": SMALL}, 0.0),
    "data_cleaning": (SINGLE, {"architecture": SMALL}, 0.1),
    "distillation": (SINGLE, {"architecture": SMALL}, 0.1),
    "darts": (IMAGES, {"architecture": CELLS}, 0.1),
    "dada": (IMAGES, {"architecture": SMALL, "augmentation": SOFT_POLICY}, 0.1),
    "darts_first_order": (IMAGES, {"architecture": CELLS}, 0.1),
    "gdas": (IMAGES, {"architecture": CELLS}, 0.1),
    "pc_darts": (IMAGES, {"architecture": {**CELLS, "partial": 2}}, 0.1),
    "gradient_matching": (IMAGES, {"architecture": CONVNET, **MATCHED}, 0.1),
    "distribution_matching": (IMAGES, {"architecture": CONVNET, **MATCHED}, 0.1),
    "core_set": (SINGLE, {"architecture": SMALL, "update": {"steps": 3}}, 0.0),
    "joint_pretraining": (FEW_SHOT, {"architecture": SMALL}, 0.01),
    "fine_tuning": (FEW_SHOT, {"architecture": SMALL}, 0.0),
    "cross_entropy": (SINGLE, {"architecture": SMALL}, 0.0),
    "nearest_neighbour": (FEW_SHOT, {}, 0.0),
}

# slot and kind: settings that make all of it that can be learned learned; None where nothing is
COMPONENT_ROWS: dict[tuple[str, str], Mapping[str, Any]] = {
    ("architecture", "mlp"): SMALL,
    ("architecture", "linear"): {},
    ("architecture", "conv4"): CONV,
    ("architecture", "resnet12"): {"width": 4},
    ("architecture", "resnet"): {"width": 4, "blocks": 1},
    ("architecture", "cells"): CELLS,
    ("architecture", "convnet"): CONVNET,
    ("architecture", "genotype"): {"genotype": "conv3|skip|avg3", "channels": 4},
    ("architecture", "module"): {"of": "tests.support.modules:for_task"},
    ("initialization", "learned"): {},
    ("initialization", "random"): {"resample": True},
    ("initialization", "pretrained"): {"bundle": "a folder"},
    ("initialization", "fine_tuned"): {"bundle": "a folder"},
    ("update", "sgd"): {
        "rate": {"learn": {"per": "layer", "start": 0.1}},
        "momentum": {"learn": {"start": 0.5}},
        "weight_decay": {"learn": {"start": 0.01}},
        "steps": 2,
    },
    ("update", "adam"): {
        "rate": {"learn": {"per": "layer", "start": 0.05}},
        "beta1": {"learn": {"start": 0.8}},
        "beta2": {"learn": {"start": 0.9}},
        "weight_decay": {"learn": {"start": 0.01}},
        "steps": 2,
    },
    ("update", "adamw"): {
        "rate": {"learn": {"per": "layer", "start": 0.05}},
        "beta1": {"learn": {"per": "layer", "start": 0.8}},
        "beta2": {"learn": {"start": 0.9}},
        "weight_decay": {"learn": {"start": 0.01}},
        "steps": 2,
    },
    ("update", "rmsprop"): {
        "rate": {"learn": {"per": "layer", "start": 0.05}},
        "smoothing": {"learn": {"start": 0.9}},
        "momentum": {"learn": {"per": "layer", "start": 0.5}},
        "steps": 2,
    },
    ("update", "learned_optimizer"): {"rate": {"learn": {"per": "layer", "start": 0.1}}, "hidden": 5, "steps": 2},
    ("update", "meta_lstm"): {"rate": 0.1, "hidden": 4, "steps": 2},
    ("weighting", "uniform"): {},
    ("weighting", "focal"): {"gamma": {"learn": {"start": 1.0}}},
    ("weighting", "meta_weight_net"): {"hidden": 8},
    ("weighting", "class_ratios"): {"ratio": {"learn": {}}, "balance": {"learn": {"start": 0.5}}},
    ("weighting", "per_sample"): {},
    ("weighting", "reweight"): {},
    ("loss", "cross_entropy"): {"label_smoothing": {"learn": {"start": 0.1}}},
    ("loss", "mse"): {},
    ("loss", "task"): {},
    ("loss", "mixture"): {
        name: {"learn": {"start": 0.5}}
        for name in ("cross_entropy", "focal", "squared", "absolute", "generalized", "gamma", "q")
    },
    ("loss", "regression_mixture"): {name: {"learn": {"start": 0.5}} for name in ("squared", "absolute", "log_cosh")},
    ("loss", "ml3"): {"hidden": 5, "hand": {"learn": {"start": 0.5}}},
    ("loss", "policy_gradient"): {"deviation": {"learn": {"start": 0.5}}},
    ("loss", "shaped_policy_gradient"): {"hidden": 5, "deviation": {"learn": {"start": 0.5}}},
    ("data", "support"): {},
    ("data", "whole_task"): {},
    ("data", "core_set"): {"size": 4},
    ("data", "distilled"): {"per_class": 2, "learn_labels": True},
    ("data", "gradient_matching"): {"per_class": 2, "learn_labels": True},
    ("data", "distribution_matching"): {"per_class": 2},
    ("augmentation", "none"): {},
    ("augmentation", "policy"): {
        "sub_policies": ["rotate(0.5) + contrast", "translate_x(0.8, 0.4)"],
        "probability": {"learn": {"per": "operation"}},
        "magnitude": {"learn": {"per": "scalar", "start": 0.4}},
    },
    ("augmentation", "rand_augment"): {"magnitude": {"learn": {"start": 0.4}}},
    ("augmentation", "dada"): {"operations": ["rotate", "invert", "solarize"]},
    ("prediction", "linear"): {},
    ("prediction", "joint"): {},
    ("prediction", "matching"): {},
    ("prediction", "prototypes"): {"temperature": {"learn": {"start": 2.0}}},
    ("prediction", "nearest_neighbour"): {},
}
# a slot: settings that make it learned
KNOWLEDGE: dict[str, dict[str, Any]] = {
    "initialization": {"initialization": {"kind": "learned"}},
    "update": {"update": {"rate": {"learn": {"per": "layer", "start": 0.1}}, "steps": 2}},
    "weighting": {"weighting": {"kind": "meta_weight_net", "hidden": 6}},
    "loss": {"loss": {"kind": "cross_entropy", "label_smoothing": {"learn": {"start": 0.1}}}},
    "data": {"data": {"kind": "distilled"}},
    "architecture": {"architecture": {"kind": "cells", "channels": 4}},
}


def method(name: str) -> tuple[Learner, TaskShape]:
    """Build a method as its recipe says, small."""
    task, small, _ = METHOD_ROWS[name]
    recipe = METHODS[name]
    settings = {slot: {**recipe.learner.get(slot, {}), **small.get(slot, {})} for slot in {*recipe.learner, *small}}
    outer = {**recipe.outer, "strategy": "loop"}  # a trace costs more than these few steps
    return build_learner(learner=settings, inner=recipe.inner, outer=outer, task=task), task


def begun(learner: Learner, seed: int = 0) -> tuple[Tensors, Tensors]:
    generator = seeded(seed)
    phi = {name: value.double() for name, value in learner.init(generator).items()}
    state = learner.begin(phi, generator)
    return phi, {name: value.double() if value.is_floating_point() else value for name, value in state.items()}


def learnable(task: TaskShape, seed: int) -> Episode:
    """Draw an episode that can be learned: every class has its own fixed direction, the same in all episodes."""
    episode = episode_of(task, seed, support=6, queries=12)
    if task.environment:
        starts = torch.tensor([0.7, 0.0, 0.0, 0.0], dtype=torch.float64)
        support = replace(episode.support, x=starts + 0.1 * episode.support_x)
        return replace(episode, support=support, query_x=starts + 0.1 * episode.query_x)
    centres = torch.eye(9, max(task.inputs[-1], 6), dtype=torch.float64)[:3, : task.inputs[-1]] * 2

    def moved(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return 0.5 * x + centres[y].reshape(-1, *[1] * (len(task.inputs) - 1), task.inputs[-1])

    support = replace(episode.support, x=moved(episode.support_x, episode.support_y))
    return replace(episode, support=support, query_x=moved(episode.query_x, episode.query_y))


def component_learner(slot: str, kind: str) -> tuple[Learner, TaskShape]:
    pictures = slot == "augmentation" or (slot == "architecture" and kind not in ("mlp", "linear"))
    task = IMAGES if pictures else SINGLE
    if kind in ("mse", "regression_mixture"):
        task = TaskShape("regression", (6,), 2)
    if kind.endswith("policy_gradient"):
        task = CONTROL
    if slot == "prediction":
        task = FEW_SHOT
    settings: dict[str, Any] = {"architecture": SMALL, "initialization": {"kind": "learned"}, "update": {"steps": 2}}
    if kind.endswith("_matching"):
        settings["initialization"] = {"kind": "random"}  # they learn their examples alone
    if kind == "matching":
        task, settings = SINGLE, {"architecture": SMALL, "data": {"kind": "gradient_matching"}, "update": {"steps": 2}}
    if slot == "prediction":
        settings = {name: given for name, given in settings.items() if name in SOLVERS[kind].reads}
    settings[slot] = {"kind": kind, **COMPONENT_ROWS[slot, kind]}
    outer = {"hypergradient": "unroll", "strategy": "loop"}
    if kind not in ("pretrained", "fine_tuned"):
        return build_learner(learner=settings, inner={}, outer=outer, task=task, trust_code=True), task
    plain = build_learner(
        learner={"architecture": SMALL, "initialization": {"kind": "learned"}}, inner={}, outer={}, task=task
    )
    start = part(plain.init(seeded(9)), "initialization")
    return build_learner(learner=settings, inner={}, outer=outer, task=task, start=start), task
