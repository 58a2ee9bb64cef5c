"""An adapted metric learner is a program of its own: the answers of the plain forward pass are those of the model."""

from pathlib import Path

import pytest
import torch

from metaloom.learners.base import Learner
from metaloom.learners.solvers.outputs import AdaptedByOutputs
from metaloom.testing.problems import begun, built, episode_of, seeded
from metaloom.workers.plain_export import PlainForward, export_plain
from tests.support.metric_learners import FEW_SHOT, SOLVERS, learner_of


def written(learner: Learner, path: Path) -> Path:
    """Adapt to an episode, and export the model; raises BundleError if its answers are others."""
    phi, state = begun(learner)
    phi = {name: value.float() for name, value in phi.items()}
    episode = episode_of(FEW_SHOT, 0, support=7, queries=5).to(torch.device("cpu"), torch.float32)
    adapted = learner.adapt(phi, state, episode.support, seeded(0))
    assert isinstance(adapted, AdaptedByOutputs)
    return export_plain(path, PlainForward(*adapted.plain()), adapted.predict, episode.query_x, {})


@pytest.mark.parametrize("solver", [*SOLVERS, "nearest_neighbour", "constant"])
def test_a_program_of_any_batch(solver: str, tmp_path: Path) -> None:
    learner = learner_of(solver) if solver in SOLVERS else built({"prediction": {"kind": solver}}, FEW_SHOT)
    assert written(learner, tmp_path / "model.pt2").is_file()


def test_the_vote_in_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (pip install metaloom[onnx])")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed (pip install metaloom[onnx])")
    assert written(learner_of("knn_inputs"), tmp_path / "model.onnx").is_file()
