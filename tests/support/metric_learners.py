"""Small metric learners and what they predict, for the tests of them."""

from dataclasses import replace
from typing import Any

from torch import Tensor

from metaloom.learners.base import Learner
from metaloom.learners.episode import Episode, TaskShape
from metaloom.learners.state import LearnerState
from metaloom.learners.tensors import Tensors
from metaloom.testing.problems import SMOOTH, begun, built, seeded

FEW_SHOT = TaskShape("classification", (6,), 3, classes=9)
SOLVERS: dict[str, dict[str, Any]] = {
    "prototypes": {},
    "matching_networks": {"temperature": 2.0},
    "full_context": {"read_steps": 3},
    "siamese": {"share": 0.3},
    "knn": {"k": 3, "temperature": 2.0},
    "knn_inputs": {"k": 3},
}
LEARNED = tuple(name for name in SOLVERS if name != "knn_inputs")  # the others have nothing to learn


def learner_of(solver: str, *, ways: int = 3, **settings: Any) -> Learner:
    """Build a small learner of a solver."""
    prediction = {"prediction": {"kind": solver, **SOLVERS[solver], **settings}}
    network = {} if solver == "knn_inputs" else {"architecture": SMOOTH, "initialization": {"kind": "learned"}}
    return built({**network, **prediction}, replace(FEW_SHOT, outputs=ways), estimator="auto")


def predicted(learner: Learner, episode: Episode, begun_at: tuple[Tensors, LearnerState] | None = None) -> Tensor:
    """Adapt to an episode, and return the probabilities of its queries [queries, ways]."""
    phi, state = begun_at or begun(learner)
    return learner.adapt(phi, state, episode.support, seeded(0)).predict(episode.query_x)
