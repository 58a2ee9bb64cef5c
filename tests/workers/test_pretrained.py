"""A search may start from what another one has exported, and needs that bundle no longer once it has begun."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from metaloom.learners.errors import BadInput, LearnerError
from metaloom.workers.assembly import assemble
from metaloom.workers.bundle import load_bundle
from metaloom.workers.bundle_reading import parameters_of
from metaloom.workers.bundle_writing import write_bundle
from metaloom.workers.checkpoint import Knowledge
from metaloom.workers.data import open_source
from metaloom.workers.errors import BundleError
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.scoring import evaluate_trial
from metaloom.workers.trial.runner import Trial

NETWORK = {"kind": "mlp", "hidden": [6]}
OUTER = {
    "steps": 4,
    "meta_batch": 2,
    "validate_every": 2,
    "validation_episodes": 2,
    "rate": 0.01,
    "precision": "float64",
}
BRIEF = {**OUTER, "steps": 2, "validate_every": 1, "meta_batch": 1, "test_episodes": 2}


def config(initialization: dict[str, Any], **slots: Any) -> TrialConfig:
    learner = {"architecture": NETWORK, "initialization": initialization, "update": {"rate": 0.02, "steps": 2}, **slots}
    tasks = {"source": "sinusoid", "shots": 5, "queries": 5}
    return TrialConfig("first", 0, 0, tasks, learner, {}, OUTER, {})


def finished(config: TrialConfig, folder: Path) -> Trial:
    trial = Trial(config, folder, cache=folder / "cache")
    while not trial.finished:
        trial.advance()
    return trial


@pytest.fixture
def origin(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    trial = finished(config({"kind": "learned"}), tmp_path / "origin")
    bundle = write_bundle(tmp_path / "origin", tmp_path / "bundle", origin={}, evaluation=None)
    return bundle, {name.split("/", 1)[1]: value for name, value in trial.phi.items()}


def test_a_fixed_start_is_the_bundles_and_stays(origin: Any, tmp_path: Path) -> None:
    bundle, start = origin
    rate = {"rate": {"learn": {"start": 0.02}}, "steps": 2}
    trial = finished(config({"kind": "pretrained", "bundle": str(bundle)}, update=rate), tmp_path / "next")
    assert set(trial.phi) == {"update/rate"}
    for name, value in start.items():
        assert torch.equal(trial.state.theta[name], value)


def test_a_fine_tuned_start_goes_on_from_the_bundles(origin: Any, tmp_path: Path) -> None:
    bundle, start = origin
    settings = config({"kind": "fine_tuned", "bundle": str(bundle)})
    parts = assemble(settings, cache=tmp_path)
    phi = parts.learner.init(torch.Generator().manual_seed(0))
    assert all(torch.equal(phi[f"initialization/{name}"], value) for name, value in start.items())
    trial = finished(settings, tmp_path / "next")
    assert any(not torch.equal(trial.phi[f"initialization/{name}"], value) for name, value in start.items())


@pytest.mark.parametrize("kind", ["pretrained", "fine_tuned"])
def test_what_began_from_a_bundle_goes_on_without_it(kind: str, origin: Any, tmp_path: Path) -> None:
    bundle, _ = origin
    rate = {"rate": {"learn": {"start": 0.02}}, "steps": 2}
    settings = config({"kind": kind, "bundle": str(bundle)}, update=rate)
    whole = finished(settings, tmp_path / "whole")
    Trial(settings, tmp_path / "next", cache=tmp_path / "cache").advance()
    shutil.rmtree(bundle)
    resumed = finished(settings, tmp_path / "next")
    assert all(torch.equal(resumed.phi[name], value) for name, value in whole.phi.items())
    scored = evaluate_trial(tmp_path / "next", cache=tmp_path / "cache", episodes=3)
    exported = load_bundle(write_bundle(tmp_path / "next", tmp_path / "second", origin={}, evaluation=None))
    source = open_source(settings.tasks, seed=0, cache=tmp_path)
    assert exported.evaluate(source, episodes=3).scores == scored.scores
    assert exported.evaluate(cache=tmp_path, episodes=3).scores == scored.scores


@pytest.mark.parametrize("freeze", [False, True])
@pytest.mark.parametrize("method", ["denoising_autoencoder"])
def test_the_first_layers_of_a_pre_trained_network_go_on_in_maml(method: str, freeze: bool, tmp_path: Path) -> None:
    network, tasks = {"kind": "mlp", "hidden": [8, 6, 5]}, {"source": "digits", "batch": 40, "meta_size": 50}
    learner = {"architecture": network, "initialization": {"kind": "learned"}, "prediction": {"kind": method}}
    finished(TrialConfig("body", 0, 0, tasks, learner, {}, BRIEF, {}), tmp_path / "body")
    bundle = write_bundle(tmp_path / "body", tmp_path / "bundle", origin={}, evaluation=None)
    start = parameters_of(Knowledge.read(bundle / "meta_knowledge.safetensors"))
    initialization = {"kind": "fine_tuned", "bundle": str(bundle), "layers": 2, "freeze": freeze}
    learner = {"architecture": network, "initialization": initialization, "update": {"rate": 0.02, "steps": 2}}
    settings = TrialConfig("next", 0, 0, tasks, learner, {}, BRIEF, {})
    begun = assemble(settings, cache=tmp_path).learner
    phi = begun.init(torch.Generator().manual_seed(0))
    theta = begun.begin(phi, torch.Generator().manual_seed(0)).theta
    for name in ("layer0.weight", "layer1.bias"):
        assert torch.equal(theta[name] if freeze else phi[f"initialization/{name}"], start[name])
    assert not torch.equal(phi["initialization/layer2.weight"], start["layer2.weight"])
    shutil.copytree(bundle, tmp_path / "kept")
    Trial(settings, tmp_path / "next", cache=tmp_path / "cache").advance()
    shutil.rmtree(bundle)  # which a resumed trial needs no longer
    trial = finished(settings, tmp_path / "next")
    assert ("initialization/layer0.weight" in trial.phi) is not freeze
    shutil.copytree(tmp_path / "kept", bundle)
    whole = finished(settings, tmp_path / "whole")
    assert all(torch.equal(value, whole.phi[name]) for name, value in trial.phi.items())
    scored = evaluate_trial(tmp_path / "next", cache=tmp_path / "cache", episodes=3)
    exported = load_bundle(write_bundle(tmp_path / "next", tmp_path / "second", origin={}, evaluation=None))
    assert exported.evaluate(cache=tmp_path, episodes=3).scores == scored.scores


def test_a_bundle_of_another_network_is_refused(origin: Any, tmp_path: Path) -> None:
    initialization = {"kind": "pretrained", "bundle": str(origin[0])}
    with pytest.raises(LearnerError, match=r"initialization: it holds another network: layer0\.weight is \(6, 1"):
        assemble(config(initialization, architecture={"kind": "mlp", "hidden": [7]}), cache=tmp_path)


def test_a_start_without_a_head_gets_one_of_zeros(origin: Any) -> None:
    from metaloom.learners import build_learner

    _, start = origin
    body = {name: value for name, value in start.items() if not name.startswith("head")}
    shape = open_source(config({}).tasks, seed=0, cache=Path()).shape
    settings = {"architecture": NETWORK, "initialization": {"kind": "pretrained", "bundle": "b"}}
    learner = build_learner(learner=settings, inner={}, outer={}, task=shape, start=body)
    state = learner.begin({}, torch.Generator().manual_seed(0))
    assert not state.theta["head.weight"].any()
    assert torch.equal(state.theta["layer0.weight"], start["layer0.weight"])


@pytest.mark.parametrize(
    ("damage", "message"), [("absent", "there is no folder"), ("cut", "is damaged"), ("empty", "not a bundle")]
)
def test_a_bundle_that_cannot_be_read_is_refused(damage: str, message: str, origin: Any, tmp_path: Path) -> None:
    bundle: Path = origin[0]
    if damage == "cut":
        tensors = bundle / "meta_knowledge.safetensors"
        tensors.write_bytes(tensors.read_bytes()[:-8])
    elif damage == "empty":
        bundle = tmp_path / "empty"
        bundle.mkdir()
    else:
        shutil.rmtree(bundle)
    with pytest.raises(BundleError, match=rf"learner\.initialization\.bundle: .*{message}"):
        assemble(config({"kind": "fine_tuned", "bundle": str(bundle)}), cache=tmp_path)


def test_a_learner_is_not_built_without_its_start(tmp_path: Path) -> None:
    from metaloom.learners import build_learner

    shape = open_source(config({}).tasks, seed=0, cache=tmp_path).shape
    with pytest.raises(BadInput, match=r"learner\.initialization: the parameters of its bundle were not handed in"):
        build_learner(learner={"initialization": {"kind": "pretrained", "bundle": "b"}}, inner={}, outer={}, task=shape)
