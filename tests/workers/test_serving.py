"""An adapted model is saved and opened again, exported as a plain forward pass, and loaded by MLflow."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from metaloom import load_adapted, load_bundle
from metaloom.workers.adapted import AdaptedModel
from metaloom.workers.adapted_files import SUPPORT_FILE
from metaloom.workers.bundle_writing import write_bundle
from metaloom.workers.errors import BundleError, ExtraMissing
from metaloom.workers.plain_export import LABELS_FILE, PlainForward, export_plain
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.trial.runner import Trial

MAML: dict[str, Any] = {
    "method": "maml",
    "initialization": {"kind": "learned"},
    "update": {"kind": "sgd", "rate": 0.05, "steps": 1, "evaluation_steps": 2},
}
IMAGES: dict[str, Any] = {"source": "digits", "flat": False, "batch": 20, "meta_batch": 10, "queries": 10}
CONV = {"kind": "conv4", "channels": 4, "blocks": 2}
RIDGE = {"architecture": {"kind": "mlp", "hidden": [8]}}


def exported(folder: Path, tasks: dict[str, Any], learner: dict[str, Any], mode: str = "batch") -> Path:
    """Train for one step, and return the bundle's folder."""
    outer = {"steps": 1, "validation_episodes": 2}
    config = TrialConfig("served", 0, 0, tasks, learner, {"batch_norm": mode}, outer)
    trial = Trial(config, folder / "trial", cache=folder / "cache")
    while not trial.finished:
        trial.advance()
    return write_bundle(folder / "trial", folder / "bundle", origin={}, evaluation=None)


def table(folder: Path, kind: str) -> dict[str, Any]:
    """Write a table in large units, and return its settings."""
    generator = np.random.default_rng(0)
    rows = generator.normal([1000.0, -3.0], [200.0, 0.5], (120, 2))
    label = [f"k{place % 12}" if kind == "classification" else f"{x:.3f}" for place, x in enumerate(rows[:, 0])]
    lines = [f"{a},{b},{c},{place % 12}" for place, ((a, b), c) in enumerate(zip(rows.tolist(), label, strict=True))]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "t.csv").write_text("\n".join(["a,b,label,group", *lines]) + "\n")
    tasks = {"source": "table", "path": str(folder / "t.csv"), "label": "label", "features": ("a", "b"), "shots": 2}
    if kind == "classification":
        return {**tasks, "ways": 2, "queries": 2}
    return {**tasks, "kind": "regression", "task": "group", "queries": 2}


CASES = ["images, support", "images, frozen", "prototypes", "table", "regression"]


@pytest.fixture(scope="module", params=CASES)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[AdaptedModel, Any]:
    """An inductive model, adapted, and queries."""
    folder, case = tmp_path_factory.mktemp("served"), request.param
    generator = np.random.default_rng(1)
    if case in ("table", "regression"):
        kind = "classification" if case == "table" else "regression"
        path = exported(folder, table(folder, kind), {**MAML, **RIDGE})
        x, query = (generator.normal([1000.0, -3.0], [200.0, 0.5], (n, 2)) for n in (6, 7))
    else:
        method = {"method": "prototypical", "initialization": {"kind": "learned"}, "prediction": {"kind": "prototypes"}}
        learner = method if case == "prototypes" else MAML
        mode = case.split(", ")[1] if "," in case else "support"
        path = exported(folder, IMAGES, {**learner, "architecture": CONV}, mode)
        x, query = (generator.random((n, 1, 8, 8), np.float32) for n in (6, 7))
    y: Any = generator.normal(1000, 200, 6) if case == "regression" else ["a", "b", "c"] * 2
    if case == "table":
        y = ["a", "b"] * 3
    return load_bundle(path).adapt(x, y), query


def answers(model: AdaptedModel, query: Any) -> NDArray[Any]:
    """Return probabilities, or targets."""
    found = model.probabilities(query) if len(model.labels) else model.predict(query)
    return np.asarray(found)


def test_a_saved_model_is_the_same(served: tuple[AdaptedModel, Any], tmp_path: Path) -> None:
    model, query = served
    folder = model.save(tmp_path / "model")
    again = load_adapted(folder)
    assert (answers(again, query) == answers(model, query)).all()
    assert (again.labels == model.labels).all() and again.setting == model.setting
    pyfunc = pytest.importorskip("mlflow.pyfunc")  # which warns where it is imported
    assert (np.asarray(pyfunc.load_model(str(folder)).predict(query)) == np.asarray(model.predict(query))).all()
    with pytest.raises(BundleError, match="exists already"):
        model.save(folder)
    content = bytearray((folder / SUPPORT_FILE).read_bytes())
    content[-2] ^= 4
    (folder / SUPPORT_FILE).write_bytes(bytes(content))
    with pytest.raises(BundleError, match="no adapted model can be read"):
        load_adapted(folder)


def test_a_program_gives_the_same_answers_on_any_batch(served: tuple[AdaptedModel, Any], tmp_path: Path) -> None:
    model, query = served
    path = model.export(tmp_path / "model.pt2")
    kept = {LABELS_FILE: ""}
    module = torch.export.load(path, extra_files=kept).module()
    for batch in (query, query[:1]):
        found, is_finite = module(torch.as_tensor(batch, dtype=torch.float32))
        expected = answers(model, batch)
        np.testing.assert_allclose(found.numpy().reshape(expected.shape), expected, rtol=1e-3, atol=1e-4)
        assert is_finite.all()
    assert json.loads(kept[LABELS_FILE])["labels"] == model.labels.tolist()
    odd = torch.as_tensor(query, dtype=torch.float32).clone()
    odd[1] = torch.inf
    assert module(odd)[1].tolist() == [True, False, *[True] * 5]


def test_onnx_gives_the_same_answers_on_any_batch(served: tuple[AdaptedModel, Any], tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (pip install metaloom[onnx])")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed (pip install metaloom[onnx])")
    model, query = served
    session = runtime.InferenceSession(str(model.export(tmp_path / "model.onnx")), providers=["CPUExecutionProvider"])
    for batch in (query, query[:1]):
        found, is_finite = session.run(None, {"x": np.asarray(batch, np.float32)})
        expected = answers(model, batch)
        np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-3, atol=1e-4)
        assert is_finite.all()
    facts = json.loads(session.get_modelmeta().custom_metadata_map["metaloom"])
    assert facts["labels"] == model.labels.tolist()
    odd = np.asarray(query, np.float32).copy()
    odd[1] = np.nan
    assert session.run(None, {"x": odd})[1].tolist() == [True, False, *[True] * 5]


def test_what_depends_on_the_batch_is_refused(tmp_path: Path) -> None:
    path = exported(tmp_path, IMAGES, {**MAML, "architecture": CONV})
    model = load_bundle(path).adapt(np.random.default_rng(0).random((6, 8, 8)), ["a", "b", "c"] * 2)
    for name in ("m.pt2", "m.onnx"):
        with pytest.raises(BundleError, match=r"depend on all queries together.*--inductive"):
            model.export(tmp_path / name)
        assert not (tmp_path / name).exists()


def test_what_does_not_agree_is_not_written(tmp_path: Path) -> None:
    forward = PlainForward(lambda tensors, x: x @ tensors["w"], {"w": torch.eye(2)})
    inputs, path = torch.rand(4, 2), tmp_path / "m.pt2"
    assert export_plain(path, forward, lambda x: x, inputs, {}) == path
    with pytest.raises(BundleError, match="exists already"):
        export_plain(path, forward, lambda x: x, inputs, {})
    with pytest.raises(BundleError, match=r"answers another batch differently by up to 0\.1"):
        export_plain(tmp_path / "n.pt2", forward, lambda x: x + 0.1, inputs, {})
    broken = PlainForward(lambda tensors, x: x @ tensors["w"] / 0, {"w": torch.eye(2)})
    with pytest.raises(BundleError, match="not finite"):
        export_plain(tmp_path / "n.pt2", broken, lambda x: x, inputs, {})
    by_value = PlainForward(lambda tensors, x: x if float(x.sum()) > 0 else -x, {"w": torch.eye(2)})
    with pytest.raises(BundleError, match="cannot be exported"):
        export_plain(tmp_path / "n.pt2", by_value, lambda x: x, inputs, {})
    with pytest.raises(BundleError, match=r"no model is exported as '.h5'; allowed: .onnx, .pt2"):
        export_plain(tmp_path / "n.h5", forward, lambda x: x, inputs, {})
    assert [one.name for one in tmp_path.iterdir()] == ["m.pt2"]


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    forward = PlainForward(lambda tensors, x: x @ tensors["w"], {"w": torch.eye(2)})
    with pytest.raises(ExtraMissing, match=r"pip install 'metaloom\[onnx\]'"):
        export_plain(tmp_path / "m.onnx", forward, lambda x: x, torch.rand(4, 2), {})
