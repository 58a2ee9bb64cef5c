"""For each kind of facts of meta-knowledge, a tiny learner that has something of it."""

from collections.abc import Callable
from typing import Any

import torch

from metaloom.dashboards.knowledge_facts import TrialKnowledge
from metaloom.learners import build_learner
from metaloom.learners.episode import TaskShape
from metaloom.learners.state import LearnerState
from metaloom.testing.problems import begun
from tests.contracts import test_learners

IMAGES = TaskShape("classification", (1, 8, 8), 3, single_task=True)
CLASSES = TaskShape("classification", (4,), 3, single_task=True, counts=(50, 10, 5))
POINT_MASS = TaskShape("control", (4,), 2, environment="point_mass")
NAVIGATION = TaskShape(
    "control",
    (2,),
    2,
    environment="navigation",
    environment_settings={"horizon": 8, "reach": 0.2},
    parameters=("goal_x", "goal_y"),
)
SINE = TaskShape("regression", (1,), 1)
MLP = {"kind": "mlp", "hidden": [3]}
DADA = {"kind": "dada", "operations": ["rotate", "invert", "flip"]}
LEARNED = {"learn": {"start": 0.1}}


def of(task: TaskShape, shown: dict[str, torch.Tensor] | None = None, **slots: Any) -> Callable[[], TrialKnowledge]:
    """Return what makes a learner of these slots at its start."""

    def make() -> TrialKnowledge:
        learner = {"architecture": MLP, **slots}
        phi = build_learner(learner=learner, inner={}, outer={}, task=task).init(torch.Generator().manual_seed(0))
        return TrialKnowledge(learner, task, phi, LearnerState(), shown or {})

    return make


def solver(name: str) -> Callable[[], TrialKnowledge]:
    """Return what makes what a solver shows of an episode, from the solver's row of the contracts."""

    def make() -> TrialKnowledge:
        row = test_learners.TestSolvers.rows[name]
        learner = row.built(name)
        shown = learner.inspect(*begun(learner), row.episode(row.task, 0))
        return TrialKnowledge({}, row.task, {}, LearnerState(), shown)

    return make


def trajectories() -> TrialKnowledge:
    """Return random walks of a policy before and after adaptation."""
    draws = torch.randn(2, 12, 9, 2, generator=torch.Generator().manual_seed(0)).cumsum(2) / 10
    shown = {f"path_{when}": draws[index] for index, when in enumerate(("before", "after"))}
    shown |= {
        f"rewards_{when}": -draws[index, :, 1:].square().sum(-1) for index, when in enumerate(("before", "after"))
    }
    shown |= {f"active_{when}": torch.ones(12, 8) for when in ("before", "after")}
    return TrialKnowledge({}, NAVIGATION, {}, LearnerState(), {**shown, "parameters": torch.zeros(2)})


LOSSES = torch.linspace(0.1, 4.0, 40)
NOISY = {"example_losses": LOSSES, "example_noisy": LOSSES > 3.0, "training_noisy": torch.arange(65) < 20}
PIXELS = (torch.arange(4 * 64) % 256).reshape(4, 1, 8, 8).to(torch.uint8)
RATES = {"rate": {"learn": {"per": "parameter", "start": 0.1}}, "momentum": LEARNED}
TEMPERED = {"kind": "prototypes", "temperature": {"learn": {"start": 2.0}}}
MOVED = {"moved/layer0.weight": torch.tensor([3.0, 4.0]), "moved/layer0.bias": torch.tensor([4.0, 0.0])}
EXAMPLES: dict[str, Callable[[], TrialKnowledge]] = {
    "architecture.cell": of(IMAGES, architecture={"kind": "cells", "channels": 4}),
    "architecture.shares": of(IMAGES, architecture={"kind": "cells", "channels": 4}),
    "augmentation.policy": of(IMAGES, augmentation=DADA),
    "augmentation.images": of(IMAGES, {"images": PIXELS}, augmentation=DADA),
    "data.distilled": of(IMAGES, data={"kind": "distilled", "per_class": 2}),
    "initialization.distance": of(SINE, MOVED),
    "loss.curve": of(SINE, loss={"kind": "ml3", "hidden": 4}),
    "loss.potential": of(POINT_MASS, loss={"kind": "shaped_policy_gradient", "hidden": 4}),
    "loss.settings": of(CLASSES, loss={"kind": "cross_entropy", "label_smoothing": LEARNED}),
    "prediction.settings": of(CLASSES, prediction=TEMPERED),
    "update.rates": of(SINE, update=RATES),
    "update.response": of(SINE, update={"kind": "learned_optimizer", "hidden": 4, "steps": 2}),
    "weighting.curve": of(CLASSES, NOISY, weighting={"kind": "meta_weight_net", "hidden": 2}),
    "weighting.classes": of(CLASSES, weighting={"kind": "class_ratios", "ratio": {"learn": {}}}),
    "weighting.samples": of(CLASSES, NOISY, weighting={"kind": "per_sample"}),
    "prediction.trajectories": trajectories,
    "prediction.features": solver("prototypes"),
    "prediction.attention": solver("matching_networks"),
    "prediction.relation": solver("relation"),
    "prediction.adjacency": solver("graph"),
    "prediction.reads": solver("mann"),
    "prediction.film": solver("cnaps"),
    "prediction.next_tokens": solver("language_model"),
    "prediction.reconstructions": solver("denoising_autoencoder"),
    "prediction.regrets": solver("search_settings"),
    "prediction.attributes": solver("zero_shot_prototypical"),
}
