"""A row for every entry of the registries: a small example of each method and component, which all contracts run."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from metaloom.learners import Learner
from metaloom.learners.episode import TaskShape
from metaloom.testing import ComponentRow, MethodRow
from metaloom.testing.components import PLAIN
from metaloom.testing.methods import SMALL
from metaloom.testing.problems import CONTROL, DESCRIBED, IMAGES, SEARCHED, SERIES, SINGLE, TEXTS

CELLS: Mapping[str, Any] = {"kind": "cells", "channels": 4}
CONV: Mapping[str, Any] = {"kind": "conv4", "channels": 4, "blocks": 2}
# straight-through choices have a biased gradient by definition
SOFT_POLICY: Mapping[str, Any] = {"operations": ["rotate", "translate_x", "contrast"], "relaxation": "soft"}

# without kinks, which central differences would cross
SMOOTH_RELATION: Mapping[str, Any] = {"channels": 16, "activation": "tanh", "combine": "mean"}
SMALL_GRAPH: Mapping[str, Any] = {"width": 8, "blocks": 2, "activation": "tanh", "distance": "squared"}
CONVNET: Mapping[str, Any] = {"kind": "convnet", "channels": 4, "blocks": 2}
# one network for all steps, so that their distances may be compared
MATCHED: Mapping[str, Any] = {"initialization": {"resample": False}, "update": {"evaluation_steps": 3}}
VALUES = TaskShape("regression", (6,), 2)
# they learn their examples alone
RANDOM_START: Mapping[str, Any] = {**PLAIN, "initialization": {"kind": "random"}}
MATCHING: Mapping[str, Any] = {
    "architecture": SMALL,
    "data": {"kind": "gradient_matching"},
    "update": {"steps": 2},
}

SHOTS = replace(IMAGES, single_task=False, counts=())
MEMORY: Mapping[str, Any] = {"width": 6, "slots": 8, "slot_width": 4, "heads": 2}

SMALL_GRU: Mapping[str, Any] = {"kind": "gru", "width": 6, "read": "states"}
FILTERS: Mapping[str, Any] = {"kind": "conv1d", "channels": 4, "blocks": 2, "lengths": [2, 3]}
CAUSAL: Mapping[str, Any] = {"kind": "transformer", "width": 4, "layers": 1, "heads": 2, "causal": True}


def gentle(**settings: Any) -> Mapping[str, Any]:
    """Return the settings of a head whose scores are smooth and not yet saturated, beside a small network."""
    return {"architecture": SMALL, "prediction": settings}


# without the kinks of the gradients' preprocessing and of ReLU
GENTLE: Mapping[str, Any] = {"width": 5, "hidden": 3, "p": 0.01, "activation": "tanh"}

METHOD_ROWS: dict[str, MethodRow] = {
    "maml": MethodRow(),
    "first_order_maml": MethodRow(unbiased=False),
    "reptile": MethodRow(outer_rate=0.05, unbiased=False),
    "anil": MethodRow(),
    "meta_sgd": MethodRow(),
    "maml_plus_plus": MethodRow(IMAGES, {"architecture": CONV}),
    "imaml": MethodRow(),
    "learned_optimizer": MethodRow(
        learner={
            "architecture": SMALL,
            "update": {"steps": 4, "evaluation_steps": 4, "hidden": 5, "second_order": True},
        },
        outer_rate=0.05,
    ),
    "meta_lstm": MethodRow(learner={"architecture": SMALL, "update": {"rate": 0.1, "hidden": 4}}, outer_rate=0.05),
    "prototypical": MethodRow(),
    "siamese": MethodRow(),
    "relation": MethodRow(
        learner={"architecture": SMALL, "prediction": {**SMOOTH_RELATION, "objective": "cross_entropy"}},
        outer_rate=0.1,
    ),
    "graph": MethodRow(learner={"architecture": SMALL, "prediction": SMALL_GRAPH}, outer_rate=0.1),
    "snail": MethodRow(learner={"architecture": SMALL, "prediction": {"width": 8, "reach": 7}}, outer_rate=0.1),
    "matching": MethodRow(),
    "matching_fce": MethodRow(),
    "knn": MethodRow(),
    "knn_inputs": MethodRow(learner={}, outer_rate=0.0),
    "easy": MethodRow(SHOTS, gentle(crops=2, sharpness=1.0), outer_rate=0.1),
    "augmented_shots": MethodRow(SHOTS, gentle(crops=2, sharpness=1.0), outer_rate=0.1),
    "denoising_autoencoder": MethodRow(learner=gentle(hidden=[8], activation="tanh", noise=0.1), outer_rate=0.1),
    "time_net": MethodRow(SERIES, {"architecture": SMALL_GRU}, outer_rate=0.1),
    "conv_time_net": MethodRow(SERIES, {"architecture": FILTERS}, outer_rate=0.05),
    "language_model": MethodRow(TEXTS, {"architecture": CAUSAL}, outer_rate=0.1),
    "masked_autoencoder": MethodRow(learner=gentle(hidden=[8], activation="tanh", masked=0.2), outer_rate=0.1),
    "supervised": MethodRow(outer_rate=0.1),
    "cnaps": MethodRow(IMAGES, {"architecture": CONV, "prediction": {"width": 4}}),
    "simple_cnaps": MethodRow(IMAGES, {"architecture": CONV, "prediction": {"width": 4}}),
    "pt_map": MethodRow(learner=gentle(scale=2.0, epochs=3, power=1.0, balance_steps=20)),
    "ilpc": MethodRow(learner=gentle(power=1.0, sharpness=1.0, balance_steps=20, cleaning_steps=5)),
    "epnet": MethodRow(),
    "soft_k_means": MethodRow(),
    "laplacian_shot": MethodRow(),
    "ptn": MethodRow(learner=gentle(power=1.0, rounds=0, poisson_steps=10, scale=1.0)),
    "ica_msp": MethodRow(learner=gentle(scale=1.0, dimensions=3)),
    "oblique_manifold": MethodRow(learner=gentle(steps=3, anchors=2, scale=5.0)),
    "meta_networks": MethodRow(learner={"architecture": SMALL, "prediction": GENTLE}),
    "zero_shot_prototypical": MethodRow(DESCRIBED),
    "eszsl": MethodRow(DESCRIBED, learner={}, outer_rate=0.0, online=True),
    "r2d2": MethodRow(),
    "metaoptnet": MethodRow(),
    "meta_weight_net": MethodRow(SINGLE, online=True),
    "learning_to_reweight": MethodRow(SINGLE, outer_rate=0.0, online=True),
    "learned_loss": MethodRow(
        SINGLE, {"architecture": SMALL, "loss": {"kind": "ml3", "hidden": 6, "hand": 1.0}}, outer_rate=0.05, online=True
    ),
    "learned_reward": MethodRow(
        CONTROL, {"architecture": SMALL, "loss": {"hidden": 6}, "update": {"steps": 2}}, outer_rate=0.05
    ),
    "policy_gradient": MethodRow(CONTROL, outer_rate=0.0),
    "data_cleaning": MethodRow(SINGLE, outer_rate=0.1, online=True),
    "distillation": MethodRow(SINGLE, outer_rate=0.1),
    "darts": MethodRow(IMAGES, {"architecture": CELLS}, outer_rate=0.1, online=True),
    "dada": MethodRow(IMAGES, {"architecture": SMALL, "augmentation": SOFT_POLICY}, outer_rate=0.1, online=True),
    "darts_first_order": MethodRow(IMAGES, {"architecture": CELLS}, outer_rate=0.1, online=True, unbiased=False),
    "gdas": MethodRow(IMAGES, {"architecture": CELLS}, outer_rate=0.1, online=True, unbiased=False),
    "pc_darts": MethodRow(
        IMAGES, {"architecture": {**CELLS, "partial": 2}}, outer_rate=0.1, online=True, unbiased=False
    ),
    "gradient_matching": MethodRow(IMAGES, {"architecture": CONVNET, **MATCHED}, outer_rate=0.1),
    "distribution_matching": MethodRow(IMAGES, {"architecture": CONVNET, **MATCHED}, outer_rate=0.1),
    "core_set": MethodRow(SINGLE, {"architecture": SMALL, "update": {"steps": 3}}, outer_rate=0.0),
    "joint_pretraining": MethodRow(),
    "fine_tuning": MethodRow(outer_rate=0.0),
    "cross_entropy": MethodRow(SINGLE, outer_rate=0.0, online=True),
    "mann": MethodRow(learner={"prediction": MEMORY}, outer_rate=0.05),
    "nearest_neighbour": MethodRow(learner={}, outer_rate=0.0),
    "time_warping": MethodRow(SERIES, learner={}, outer_rate=0.0),
    "constant": MethodRow(learner={}, outer_rate=0.0),
    "search_settings": MethodRow(SEARCHED, learner={}, outer_rate=0.0),
}

# where nothing of a component can be learned its settings are empty
COMPONENT_ROWS: dict[tuple[str, str], ComponentRow] = {
    ("architecture", "mlp"): ComponentRow(SMALL, task=SINGLE),
    ("architecture", "linear"): ComponentRow(task=SINGLE),
    ("architecture", "conv4"): ComponentRow(CONV),
    ("architecture", "resnet12"): ComponentRow({"width": 4}),
    ("architecture", "ensemble"): ComponentRow({"member": CONV, "members": 2}),
    ("architecture", "resnet"): ComponentRow({"width": 4, "blocks": 1}),
    ("architecture", "cells"): ComponentRow(CELLS),
    ("architecture", "convnet"): ComponentRow(CONVNET),
    ("architecture", "genotype"): ComponentRow({"genotype": "conv3|skip|avg3", "channels": 4}),
    ("architecture", "gru"): ComponentRow({"width": 4, "layers": 2}, task=SERIES),
    ("architecture", "lstm"): ComponentRow({"width": 4, "read": "mean"}, task=SERIES),
    ("architecture", "conv1d"): ComponentRow({"channels": 4, "blocks": 2, "lengths": [2, 3]}, task=SERIES),
    ("architecture", "transformer"): ComponentRow({"width": 4, "layers": 1, "heads": 2, "expansion": 2}, task=TEXTS),
    ("architecture", "text_bag"): ComponentRow({"width": 4, "hidden": 4}, task=TEXTS),
    ("architecture", "module"): ComponentRow({"of": "tests.support.modules:for_task"}),
    ("initialization", "learned"): ComponentRow(),
    ("initialization", "random"): ComponentRow({"resample": True}),
    ("initialization", "pretrained"): ComponentRow({"bundle": "a folder"}, starts=True),
    ("initialization", "fine_tuned"): ComponentRow({"bundle": "a folder"}, starts=True),
    ("update", "sgd"): ComponentRow(
        {
            "rate": {"learn": {"per": "layer", "start": 0.1}},
            "momentum": {"learn": {"start": 0.5}},
            "weight_decay": {"learn": {"start": 0.01}},
            "steps": 2,
        }
    ),
    ("loss", "penalty"): ComponentRow(
        {"l2": {"learn": {"start": 0.1}}, "l1": {"learn": {"start": 0.05}}, "toward": "zero"},
        after=({"kind": "cross_entropy"},),
    ),
    ("update", "adagrad"): ComponentRow(
        {
            "rate": {"learn": {"per": "layer", "start": 0.05}},
            "weight_decay": {"learn": {"start": 0.01}},
            "steps": 2,
        }
    ),
    ("update", "adam"): ComponentRow(
        {
            "rate": {"learn": {"per": "layer", "start": 0.05}},
            "beta1": {"learn": {"start": 0.8}},
            "beta2": {"learn": {"start": 0.9}},
            "weight_decay": {"learn": {"start": 0.01}},
            "steps": 2,
        }
    ),
    ("update", "adamw"): ComponentRow(
        {
            "rate": {"learn": {"per": "layer", "start": 0.05}},
            "beta1": {"learn": {"per": "layer", "start": 0.8}},
            "beta2": {"learn": {"start": 0.9}},
            "weight_decay": {"learn": {"start": 0.01}},
            "steps": 2,
        }
    ),
    ("update", "rmsprop"): ComponentRow(
        {
            "rate": {"learn": {"per": "layer", "start": 0.05}},
            "smoothing": {"learn": {"start": 0.9}},
            "momentum": {"learn": {"per": "layer", "start": 0.5}},
            "steps": 2,
        }
    ),
    ("update", "learned_optimizer"): ComponentRow(
        {"rate": {"learn": {"per": "layer", "start": 0.1}}, "hidden": 5, "steps": 2}
    ),
    ("update", "meta_lstm"): ComponentRow({"rate": 0.1, "hidden": 4, "steps": 2}),
    ("weighting", "uniform"): ComponentRow(),
    ("weighting", "focal"): ComponentRow({"gamma": {"learn": {"start": 1.0}}}),
    ("weighting", "meta_weight_net"): ComponentRow({"hidden": 8}),
    ("weighting", "class_ratios"): ComponentRow({"ratio": {"learn": {}}, "balance": {"learn": {"start": 0.5}}}),
    ("weighting", "per_sample"): ComponentRow(),
    ("weighting", "reweight"): ComponentRow(),
    ("loss", "cross_entropy"): ComponentRow({"label_smoothing": {"learn": {"start": 0.1}}}),
    ("loss", "mse"): ComponentRow(task=VALUES),
    ("loss", "task"): ComponentRow(),
    ("loss", "mixture"): ComponentRow(
        {
            name: {"learn": {"start": 0.5}}
            for name in ("cross_entropy", "focal", "squared", "absolute", "generalized", "gamma", "q")
        }
    ),
    ("loss", "regression_mixture"): ComponentRow(
        {name: {"learn": {"start": 0.5}} for name in ("squared", "absolute", "log_cosh")}, task=VALUES
    ),
    ("loss", "ml3"): ComponentRow({"hidden": 5, "hand": {"learn": {"start": 0.5}}}),
    ("loss", "policy_gradient"): ComponentRow({"deviation": {"learn": {"start": 0.5}}}, task=CONTROL),
    ("loss", "shaped_policy_gradient"): ComponentRow(
        {"hidden": 5, "deviation": {"learn": {"start": 0.5}}}, task=CONTROL
    ),
    ("data", "support"): ComponentRow(),
    ("data", "whole_task"): ComponentRow(),
    ("data", "core_set"): ComponentRow({"size": 4}),
    ("data", "distilled"): ComponentRow({"per_class": 2, "learn_labels": True}),
    ("data", "gradient_matching"): ComponentRow({"per_class": 2, "learn_labels": True}, beside=RANDOM_START),
    ("data", "distribution_matching"): ComponentRow({"per_class": 2}, beside=RANDOM_START),
    ("augmentation", "none"): ComponentRow(),
    ("augmentation", "policy"): ComponentRow(
        {
            "sub_policies": ["rotate(0.5) + contrast", "translate_x(0.8, 0.4)"],
            "probability": {"learn": {"per": "operation"}},
            "magnitude": {"learn": {"per": "scalar", "start": 0.4}},
        }
    ),
    ("augmentation", "rand_augment"): ComponentRow({"magnitude": {"learn": {"start": 0.4}}}),
    ("augmentation", "dada"): ComponentRow({"operations": ["rotate", "invert", "solarize"]}),
    ("prediction", "linear"): ComponentRow(),
    ("prediction", "joint"): ComponentRow(),
    ("prediction", "matching"): ComponentRow(task=SINGLE, beside=MATCHING),
    ("prediction", "prototypes"): ComponentRow({"temperature": {"learn": {"start": 2.0}}}),
    ("prediction", "easy"): ComponentRow({"crops": 2, "sharpness": 2.0}, task=SHOTS),
    ("prediction", "augmented_shots"): ComponentRow({"crops": 2, "sharpness": {"learn": {"start": 2.0}}}, task=SHOTS),
    ("prediction", "denoising_autoencoder"): ComponentRow({"hidden": [8]}),
    ("prediction", "time_net"): ComponentRow(
        {"cell": "lstm", "width": 4, "layers": 2}, task=SERIES, beside={**PLAIN, "architecture": SMALL_GRU}
    ),
    ("prediction", "conv_time_net"): ComponentRow(task=SERIES, beside={**PLAIN, "architecture": SMALL_GRU}),
    ("prediction", "language_model"): ComponentRow(
        {"tied": False}, task=TEXTS, beside={"architecture": CAUSAL, "initialization": {"kind": "learned"}}
    ),
    ("prediction", "masked_autoencoder"): ComponentRow({"hidden": [8], "masked": 0.5}),
    ("prediction", "supervised"): ComponentRow(),
    ("prediction", "cnaps"): ComponentRow({"width": 4, "hidden": 4}),
    ("prediction", "simple_cnaps"): ComponentRow({"width": 4, "ridge": {"learn": {"start": 2.0}}}),
    ("prediction", "mann"): ComponentRow({**MEMORY, "strength": {"learn": {"start": 2.0}}}),
    ("prediction", "meta_networks"): ComponentRow({**GENTLE, "scale": {"learn": {}}, "fast_scale": {"learn": {}}}),
    ("prediction", "zero_shot_prototypical"): ComponentRow({"temperature": {"learn": {"start": 2.0}}}, task=DESCRIBED),
    ("prediction", "eszsl"): ComponentRow(
        {name: {"learn": {"start": 0.5}} for name in ("gamma", "lambda_", "temperature")} | {"folds": 2}, task=DESCRIBED
    ),
    ("prediction", "ridge"): ComponentRow(
        {"penalty": {"learn": {"start": 0.5}}, "scale": {"learn": {"start": 4.0}}, "bias": {"learn": {"start": 0.2}}}
    ),
    ("prediction", "svm"): ComponentRow(
        {
            "cost": {"learn": {"start": 0.5}},
            "dual_ridge": {"learn": {"start": 0.1}},
            "scale": {"learn": {"start": 2.0}},
        }
    ),
    ("prediction", "nearest_neighbour"): ComponentRow(),
    ("prediction", "time_warping"): ComponentRow({"temperature": {"learn": {"start": 5.0}}}, task=SERIES),
    ("prediction", "siamese"): ComponentRow(),
    ("prediction", "relation"): ComponentRow(SMOOTH_RELATION),
    ("prediction", "snail"): ComponentRow({"width": 8, "reach": 7}),
    ("prediction", "graph"): ComponentRow(SMALL_GRAPH),
    ("prediction", "matching_networks"): ComponentRow({"temperature": {"learn": {"start": 2.0}}}),
    ("prediction", "full_context"): ComponentRow({"temperature": {"learn": {"start": 2.0}}, "read_steps": 3}),
    ("prediction", "knn"): ComponentRow({"temperature": {"learn": {"start": 2.0}}}),
    ("prediction", "knn_inputs"): ComponentRow(),
    ("prediction", "pt_map"): ComponentRow(
        {"scale": {"learn": {"start": 2.0}}, "rate": {"learn": {"start": 0.3}}, "power": 1.0, "balance_steps": 20}
    ),
    ("prediction", "ilpc"): ComponentRow(
        {"sharpness": {"learn": {"start": 1.0}}, "power": 1.0, "balance_steps": 20, "cleaning_steps": 5}
    ),
    ("prediction", "epnet"): ComponentRow({"smoothing": {"learn": {"start": 0.4}}, "scale": {"learn": {"start": 0.8}}}),
    ("prediction", "soft_k_means"): ComponentRow({"temperature": {"learn": {"start": 2.0}}}),
    ("prediction", "laplacian_shot"): ComponentRow({"smoothness": {"learn": {"start": 0.5}}}),
    ("prediction", "ptn"): ComponentRow({"scale": {"learn": {"start": 1.0}}, "power": 1.0, "rounds": 0}),
    ("prediction", "ica_msp"): ComponentRow({"scale": {"learn": {"start": 1.0}}}),
    ("prediction", "oblique_manifold"): ComponentRow({"scale": {"learn": {"start": 5.0}}, "steps": 3, "anchors": 2}),
    ("prediction", "constant"): ComponentRow(),
    ("prediction", "search_settings"): ComponentRow({"sampler": {"kind": "random"}, "portfolio": 2}, task=SEARCHED),
}


def method(name: str) -> tuple[Learner, TaskShape]:
    """Build a method as its recipe says, small."""
    row = METHOD_ROWS[name]
    return row.built(name), row.task


def component_learner(slot: str, kind: str) -> tuple[Learner, TaskShape]:
    """Build a learner with a component."""
    row = COMPONENT_ROWS[slot, kind]
    return row.built(slot, kind), row.task_for(slot)
