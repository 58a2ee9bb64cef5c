"""A bundle's test is played again; an adaptation that has diverged gives no answer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from metaloom.learners.errors import BadInput
from metaloom.orchestrator.command_line import cli
from metaloom.workers.bundle import Bundle, load_bundle
from metaloom.workers.bundle_writing import write_bundle
from metaloom.workers.durable import canonical, digest, file_facts
from metaloom.workers.errors import BundleError
from metaloom.workers.records.names import CACHE_FOLDER, MANIFEST_FILE
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.scoring import evaluate_trial
from metaloom.workers.trial.runner import Trial
from metaloom.workers.verification import verify

LEARNER: dict[str, Any] = {
    "method": "maml",
    "architecture": {"kind": "mlp", "hidden": [8]},
    "initialization": {"kind": "learned"},
    "update": {"kind": "sgd", "rate": 0.1, "steps": 1, "evaluation_steps": 3},
}


def table(path: Path, seed: int = 0) -> None:
    """Write a table of 12 classes of 6 rows."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(0, 2, (12, 2))
    rows = centres.repeat(6, 0) + generator.normal(0, 0.5, (72, 2))
    lines = [f"{a},{b},k{place // 6}" for place, (a, b) in enumerate(rows.tolist())]
    path.write_text("\n".join(["a,b,label", *lines]) + "\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a trained trial in ``trial``, and its table beside it."""
    folder = tmp_path_factory.mktemp("verified")
    table(folder / "table.csv")
    tasks = {
        "source": "table",
        "path": str(folder / "table.csv"),
        "label": "label",
        "ways": 2,
        "shots": 2,
        "queries": 3,
    }
    config = TrialConfig("tables", 0, 3, tasks, LEARNER, {}, {"steps": 5, "validation_episodes": 2})
    trial = Trial(config, folder / "trial", cache=folder / CACHE_FOLDER)
    while not trial.finished:
        trial.advance()
    return folder


@pytest.fixture
def path(folder: Path, tmp_path: Path) -> Path:
    """A tested bundle, which a test may change."""
    evaluation = evaluate_trial(folder / "trial", cache=folder / CACHE_FOLDER, episodes=8)
    return write_bundle(folder / "trial", tmp_path / "bundle", origin={}, evaluation=evaluation)


def resigned(path: Path, change: Any) -> Path:
    """Sign a changed manifest, as whoever has written other numbers would."""
    manifest = json.loads((path / MANIFEST_FILE).read_text())
    del manifest["sha256"]
    change(manifest)
    (path / MANIFEST_FILE).write_text(json.dumps({**manifest, "sha256": digest(canonical(manifest))}))
    return path


def test_the_same_data_give_the_same_bits(folder: Path, path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = verify(load_bundle(path), cache=folder / CACHE_FOLDER)
    assert (found.bit_equal, found.inside, found.holds, found.episodes) == (True, True, True, 8)
    assert (found.different, found.other_episodes, found.largest_difference) == (0, 0, 0.0)
    assert cli.run(["verify", str(path), "--store", str(folder)]) == 0
    assert "inside this interval; bit-equal" in capfd.readouterr().out


def test_another_score_is_told_by_how_much(folder: Path, path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def better(manifest: dict[str, Any]) -> None:
        manifest["evaluation"]["scores"][2] += 0.25
        manifest["evaluation"].update(mean=2.0, interval=[1.9, 2.1])

    found = verify(load_bundle(resigned(path, better)), cache=folder / CACHE_FOLDER)
    assert (found.bit_equal, found.inside, found.different, found.other_episodes) == (False, False, 1, 0)
    assert found.largest_difference == pytest.approx(0.25)
    assert cli.run(["verify", str(path), "--store", str(folder), "--json"]) == 1
    assert json.loads(capfd.readouterr().out)["inside"] is False


def test_other_data_are_no_test_of_the_bundle(
    folder: Path, path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    kept = (folder / "table.csv").read_text()
    try:
        lines = kept.splitlines()
        (folder / "table.csv").write_text("\n".join([lines[0], *lines[7:], *lines[1:7], *lines[1:7]]) + "\n")
        assert cli.run(["verify", str(path), "--store", str(tmp_path)]) == 1
        assert "the data are not those of the export" in capfd.readouterr().out
        (folder / "table.csv").unlink()
        with pytest.raises(BadInput, match="there is no file"):
            verify(load_bundle(path), cache=tmp_path / "none")
    finally:
        (folder / "table.csv").write_text(kept)


def test_without_a_test_there_is_nothing_to_verify(folder: Path, tmp_path: Path) -> None:
    path = write_bundle(folder / "trial", tmp_path / "bundle", origin={}, evaluation=None)
    with pytest.raises(BundleError, match="exported without a test"):
        verify(load_bundle(path), cache=folder / CACHE_FOLDER)


def adapting(folder: Path, tmp_path: Path, rate: float) -> Bundle:
    """Return a bundle whose inner rate is another one."""
    path = write_bundle(folder / "trial", tmp_path / "bundle", origin={}, evaluation=None)
    bundle = load_bundle(path)
    update = {**LEARNER["update"], "rate": rate}
    config = {**bundle.config.to_json(), "learner": {**bundle.config.learner, "update": update}}
    return rewritten(path, config)


def rewritten(path: Path, config: dict[str, Any]) -> Bundle:
    document = yaml.safe_load((path / "config.yaml").read_text())
    (path / "config.yaml").write_text(yaml.safe_dump({**document, "trial": config}))
    facts = file_facts((path / "config.yaml").read_bytes())
    return load_bundle(resigned(path, lambda manifest: manifest["files"].update({"config.yaml": facts})))


SUPPORT = np.array([[0.0, 0.0], [0.5, 0.1], [3.0, 3.0], [3.2, 2.8]])


def test_a_support_loss_that_rose_is_told(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    adapting(folder, tmp_path / "good", 0.1).adapt(SUPPORT, [0, 0, 1, 1])
    assert not caplog.messages
    adapting(folder, tmp_path / "bad", 500.0).adapt(SUPPORT, [0, 0, 1, 1]).predict(SUPPORT)
    assert "the loss of the support set went from" in caplog.text
    assert "has not learned this task" in caplog.text


def test_an_adaptation_that_diverged_gives_no_answer(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="the adaptation diverged, so that no prediction is given"):
        adapting(folder, tmp_path, 1e38).adapt(SUPPORT, [0, 0, 1, 1])


def test_outputs_that_are_not_finite_are_refused(folder: Path, path: Path) -> None:
    model = load_bundle(path).adapt(SUPPORT, [0, 0, 1, 1])
    far = np.array([[0.0, 0.0], [1e300, 1e300]])  # beyond float32
    with pytest.raises(BundleError, match="query_x: the outputs of 1 of 2 queries are not finite"):
        model.probabilities(far)
    assert np.isfinite(np.asarray(model.probabilities(SUPPORT))).all()
