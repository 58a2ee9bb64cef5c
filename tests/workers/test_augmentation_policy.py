"""An exported policy is readable, opens without the cluster's libraries, and does to images what it says."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from metaloom import load_policy
from metaloom.learners.build import build_learner
from metaloom.learners.episode import TaskShape
from metaloom.learners.knowledge.augmentation import Policy, SubPolicy, Use
from metaloom.workers.augmentation_policy import POLICY_FILE, policies_of, write_policy
from metaloom.workers.bundle_writing import write_bundle
from metaloom.workers.errors import BundleError
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.trial.runner import Trial

INVERT = Policy("policy", (SubPolicy(1.0, (Use("invert", 1.0, 0.0),)),))
TASKS = {"source": "digits", "batch": 10, "meta_batch": 10, "queries": 10}
LEARNER = {
    "method": "dada",
    "architecture": {"kind": "mlp", "hidden": [8]},
    "initialization": {"kind": "random"},
    "update": {"kind": "sgd", "rate": 0.05, "steps": 1},
    "augmentation": {"kind": "dada", "operations": ["rotate", "invert", "cutout"]},
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a policy that was learned for two steps."""
    folder = tmp_path_factory.mktemp("dada")
    outer = {"steps": 2, "meta_batch": 1, "rate": 0.01, "validate_every": 2, "validation_episodes": 2}
    config = TrialConfig("test", 0, 0, TASKS, LEARNER, {"mode": "online"}, outer, {"device": "cpu"})
    trial = Trial(config, folder / "trial", cache=folder)
    while not trial.finished:
        trial.advance()
    return write_bundle(folder / "trial", folder / "bundle", origin={}, evaluation=None)


def test_a_bundle_holds_the_policy_as_a_table(bundle: Path) -> None:
    document = json.loads((bundle / POLICY_FILE).read_text())
    (policy,) = document["policies"]
    assert policy["kind"] == "dada"
    assert sum(sub["share"] for sub in policy["sub_policies"]) == pytest.approx(1)
    first = policy["sub_policies"][0]["operations"][0]
    assert set(first) == {"operation", "probability", "magnitude", "meaning"}
    assert POLICY_FILE in json.loads((bundle / "manifest.json").read_text())["files"]
    card = (bundle / "card.md").read_text()
    assert "## How training images are varied" in card
    assert "| sub-policy | share | operation | probability | magnitude | meaning |" in card
    assert {row["operation"] for row in load_policy(bundle).rows()} == {"rotate", "invert", "cutout"}


def test_it_opens_and_applies_without_the_cluster(bundle: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from metaloom import load_policy\n"
        f"vary = load_policy({str(bundle)!r})\n"
        "images = np.random.default_rng(0).integers(0, 256, (6, 8, 8), dtype=np.uint8)\n"
        "out = vary(images, seed=1)\n"
        "assert out.shape == images.shape and out.dtype == np.uint8 and (out != images).any()\n"
        "assert not {'ray', 'mlflow', 'optuna'} & set(sys.modules), 'cluster'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_images_keep_their_shape_type_and_range(tmp_path: Path) -> None:
    write_policy(tmp_path / "p.json", (INVERT, INVERT, INVERT))
    vary = load_policy(tmp_path / "p.json")
    eight = np.array([[[0, 255], [10, 128]]], dtype=np.uint8)
    assert np.array_equal(vary(eight), 255 - eight)
    real = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(vary(real), 1 - real)
    assert torch.equal(vary(torch.from_numpy(eight)), 255 - torch.from_numpy(eight))


def test_equal_seeds_give_equal_images(bundle: Path) -> None:
    vary, images = load_policy(bundle), torch.rand(20, 8, 8)
    assert torch.equal(vary(images, seed=3), vary(images, seed=3))
    assert not torch.equal(vary(images, seed=3), vary(images, seed=4))


def test_what_is_no_policy_or_no_images_is_refused(tmp_path: Path) -> None:
    for text, message in (("{}", "format None"), ("[]", "no mapping"), ("{", "no augmentation policy")):
        (tmp_path / "p.json").write_text(text)
        with pytest.raises(BundleError, match=message):
            load_policy(tmp_path / "p.json")
    with pytest.raises(BundleError, match="no augmentation policy"):
        load_policy(tmp_path)
    write_policy(tmp_path / "p.json", (INVERT,))
    vary = load_policy(tmp_path / "p.json")
    with pytest.raises(BundleError, match=r"got \(3,\)"):
        vary(np.zeros(3))
    with pytest.raises(BundleError, match="values from 0 to 1 expected"):
        vary(np.full((1, 2, 2), 7.0))


def test_a_learner_that_varies_nothing_has_no_policy() -> None:
    task = TaskShape("classification", (1, 8, 8), 3, single_task=True)
    learner = {"architecture": {"kind": "mlp", "hidden": [4]}}
    phi = build_learner(learner=learner, inner={}, outer={}, task=task).init(torch.Generator())
    assert policies_of(learner, task, phi) == ()
