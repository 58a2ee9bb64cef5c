"""A search over several heads on one body costs one pass of the network over each example."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import metaloom
from metaloom.learners.networks.convolutional import Conv4
from metaloom.orchestrator.data_cache import clean, contents
from metaloom.workers.bundle_writing import write_bundle
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.trial.runner import Trial
from tests.support.few_shot_images import write_images

KINDS = (
    *("prototypes", "knn", "pt_map", "ilpc", "epnet"),
    *("soft_k_means", "laplacian_shot", "ptn", "ica_msp", "oblique_manifold"),
)
HEADS = [{"kind": kind} for kind in KINDS]
NETWORK = {"kind": "conv4", "channels": 4, "blocks": 2}
VALIDATED = 5 * 8  # the examples of the validation classes


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("heads")
    tasks = {"source": "arrays", "path": str(write_images(folder / "images.npz", classes=25)), "ways": 3, "shots": 2}
    tasks["queries"] = 3
    outer = {"steps": 1, "meta_batch": 1, "validate_every": 1, "validation_episodes": 5}
    learner = {"architecture": NETWORK, "initialization": {"kind": "learned"}, "prediction": HEADS[0]}
    body = TrialConfig("body", 0, 0, tasks, learner, {"batch_norm": "frozen"}, outer, {})
    Trial(body, folder / "body", cache=folder / "cache").advance()
    bundle = write_bundle(folder / "body", folder / "bundle", origin={}, evaluation=None)
    initialization = {"kind": "pretrained", "bundle": str(bundle)}
    learner = {"architecture": NETWORK, "initialization": initialization, "prediction": {"search": HEADS}}
    return {
        "name": "heads",
        "tasks": tasks,
        "learner": learner,
        "inner": {"batch_norm": "frozen"},
        "outer": {**outer, "test_episodes": 2},
        "search": {"sampler": {"kind": "grid"}, "trials": len(HEADS)},
    }


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many examples each pass of the network has seen."""
    passes: list[int] = []
    plain = Conv4.features

    def counted(self: Conv4, theta: Any, x: torch.Tensor, norm: Any, phi: Any) -> torch.Tensor:
        passes.append(len(x))
        return plain(self, theta, x, norm, phi)

    monkeypatch.setattr(Conv4, "features", counted)
    yield passes


def test_ten_heads_cost_one_pass_over_each_example(experiment: Any, seen: list[int], tmp_path: Path) -> None:
    ended = metaloom.search(experiment, store=tmp_path / "store", executor="inline")
    assert ended.state == "finished"
    assert seen.count(VALIDATED) == 1
    assert seen.count(2) == len(HEADS)  # of each trial's, to see whether the features are of this network
    beside = sum(count for count in seen if count not in (2, VALIDATED))
    assert beside == 2 * 3 * (2 + 3)  # the best trial's test, on examples
    files = [one.name for one in contents(tmp_path / "store")]
    assert sum(name.startswith("features-") for name in files) == 1
    removed = [one.name for one in clean(tmp_path / "store")]
    assert any(name.startswith("features-") for name in removed)
