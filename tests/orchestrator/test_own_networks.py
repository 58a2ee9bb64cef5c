"""A user's own module from Python, from YAML and from the command line: trained, exported, adapted again."""

import functools
import inspect
import re
import runpy
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import metaloom
from metaloom.learners.errors import MetaloomError
from metaloom.workers.records.trial import read_config
from metaloom.workers.trial.runner import Trial
from tests.support.modules import Perceptron, Projected
from tests.support.packages import metaloom as command_line
from tests.support.packages import python

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "networks.md").read_text()
EXPERIMENT: dict[str, Any] = {
    "name": "own",
    "tasks": {"source": "sinusoid", "shots": 5, "queries": 5},
    "learner": {"method": "maml", "update": {"steps": 1, "rate": 0.01}},
    "outer": {"steps": 2, "tasks": 2, "validate_every": 2, "validation_episodes": 2, "test_episodes": 2},
}
PATH = "tests.support.modules:Perceptron"


def in_yaml(**settings: Any) -> dict[str, Any]:
    architecture = {"kind": "module", "of": PATH, "settings": {"inputs": 1, "outputs": 1, **settings}}
    return {**EXPERIMENT, "learner": {**EXPERIMENT["learner"], "architecture": architecture}}


def test_the_page_runs_as_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.S):
        (tmp_path / name).write_text(text)
    (tmp_path / "own.yaml").write_text(re.findall(r"```yaml\n(.*?)```", PAGE, re.S)[0])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    runpy.run_path("own_network.py")
    assert capsys.readouterr().out.splitlines()[-1:] == ["finished (1,)"]
    with pytest.raises(MetaloomError, match="my_networks:Regressor is code that would run"):
        metaloom.search("own.yaml", executor="inline", store="a-store")
    assert metaloom.search("own.yaml", executor="inline", store="a-store", trust_code=True).state == "finished"


@pytest.mark.parametrize("command", ["search", "train", "resume", "evaluate", "export", "adapt", "check"])
def test_each_command_that_may_import_a_class_asks_for_trust(command: str) -> None:
    module = import_module(f"metaloom.orchestrator.commands.{command}")
    assert inspect.signature(getattr(module, command)).parameters["trust_code"].default is False


def test_an_untrusted_class_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for call in (metaloom.search, metaloom.train):
        with pytest.raises(MetaloomError, match=r"Perceptron is code that would run .*--trust-code"):
            call(in_yaml(), store=tmp_path / "store", executor="inline")
        with pytest.raises(MetaloomError, match="is code that would run"):
            call(EXPERIMENT, store=tmp_path / "store", executor="inline", network=PATH)
    with pytest.raises(MetaloomError, match="is code that would run"):
        metaloom.check(in_yaml(), store=tmp_path / "store")
    assert not list((tmp_path / "store").glob("searches/*"))


def test_a_bundle_of_a_module_is_opened_by_those_who_trust_it(tmp_path: Path) -> None:
    network = functools.partial(Perceptron, inputs=1, outputs=1)
    assert metaloom.train(EXPERIMENT, store=tmp_path, network=network).state == "finished"
    with pytest.raises(MetaloomError, match="is code that would run"):
        metaloom.export("own", tmp_path / "bundle", store=tmp_path)
    bundle = metaloom.export("own", tmp_path / "bundle", store=tmp_path, trust_code=True)
    with pytest.raises(MetaloomError, match="is code that would run"):
        metaloom.load_bundle(bundle)
    opened = metaloom.load_bundle(bundle, trust_code=True)
    adapted = opened.adapt(torch.rand(5, 1), torch.rand(5, 1))
    assert adapted.predict(torch.rand(3, 1)).shape == (3, 1)
    tested = metaloom.evaluate("own", store=tmp_path, episodes=2, trust_code=True)
    assert metaloom.evaluate(bundle, store=tmp_path, episodes=2, trust_code=True).mean == tested.mean


OPENED = """
import sys, torch, metaloom
bundle = metaloom.load_bundle(sys.argv[1], trust_code=True)
x = torch.linspace(0, 1, 5).unsqueeze(-1)
print(bundle.adapt(x, x).predict(x).flatten().tolist())
"""


@pytest.mark.parametrize("method", ["maml", "anil"])
def test_a_bundle_holds_what_its_class_would_draw_otherwise(tmp_path: Path, method: str) -> None:
    experiment = {
        **EXPERIMENT,
        "learner": {**EXPERIMENT["learner"], "method": method},
        "inner": {"batch_norm": "frozen"},
    }
    metaloom.train(experiment, store=tmp_path, network=Projected)
    bundle = metaloom.export("own", tmp_path / "bundle", store=tmp_path, episodes=3, trust_code=True)
    opened = [python(ROOT, "-c", OPENED, str(bundle)) for _ in range(2)]
    x = torch.linspace(0, 1, 5).unsqueeze(-1)
    own = metaloom.load_bundle(bundle, trust_code=True)
    assert opened[0].stdout == opened[1].stdout == f"{own.adapt(x, x).predict(x).flatten().tolist()}\n"
    tested = own.manifest["evaluation"]["mean"]
    assert metaloom.evaluate("own", store=tmp_path, episodes=3, trust_code=True).mean == tested
    assert metaloom.evaluate(bundle, store=tmp_path, episodes=3, trust_code=True).mean == tested


def test_a_trial_that_is_resumed_or_begins_from_a_bundle_holds_it_too(tmp_path: Path) -> None:
    experiment = {**EXPERIMENT, "outer": {**EXPERIMENT["outer"], "validate_every": 1}}
    metaloom.train(experiment, store=tmp_path, network=Projected)
    bundle = metaloom.export("own", tmp_path / "bundle", store=tmp_path, episodes=0, trust_code=True)
    config = read_config(next((tmp_path / "searches" / "own" / "trials").iterdir()))

    trial = Trial(config, tmp_path / "trial", cache=tmp_path)
    trial.advance()
    resumed = Trial(config, tmp_path / "trial", cache=tmp_path)
    assert_equal(resumed.state.fixed, trial.state.fixed)
    assert resumed.advance().scores == trial.advance().scores

    pretrained = {**config.learner, "initialization": {"kind": "pretrained", "bundle": str(bundle)}}
    begun = Trial(replace(config, learner=pretrained), tmp_path / "begun", cache=tmp_path)
    stored = metaloom.load_bundle(bundle, trust_code=True)._knowledge.state.fixed
    assert stored.keys() == {"projection", "angles", "mix.weight", "mix.bias"}
    assert_equal(begun.state.fixed, stored)


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_command_line_trains_a_class_only_where_its_code_is_trusted(tmp_path: Path) -> None:
    networks = re.findall(r"```python\n# my_networks.py\n(.*?)```", PAGE, re.S)[0]
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "networks.py").write_text(networks)
    architecture = {"kind": "module", "of": "my_package.networks:Regressor", "settings": {"inputs": 1, "outputs": 1}}
    experiment = {**EXPERIMENT, "learner": {**EXPERIMENT["learner"], "architecture": architecture}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(experiment))
    command = ["search", "own.yaml", "--trials", "1", "--executor", "inline", "--store", "store"]
    refused = command_line(tmp_path, *command)
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    reason = "my_package.networks:Regressor is code that would run on this machine; if you trust it, pass --trust-code"
    assert reason in " ".join(refused.stderr.split())
    assert not list((tmp_path / "store").glob("searches/*"))
    trained = command_line(tmp_path, *command, "--trust-code")
    assert trained.returncode == 0, trained.stderr
    (learned,) = (tmp_path / "store").glob("searches/own/trials/*/meta_knowledge.safetensors")
    assert "body.0.weight" in learned.read_bytes().decode(errors="replace")


def test_a_learner_that_is_searched_takes_no_network_beside_it(tmp_path: Path) -> None:
    experiment = {**EXPERIMENT, "learner": {"search": ["maml", "anil"]}}
    with pytest.raises(MetaloomError, match="searches whole learners; give each of them its architecture"):
        metaloom.train(experiment, store=tmp_path, network=Perceptron)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"of": "my_networks"}, r"learner\.architecture.*: got 'my_networks'; give an import path"),
        ({"of": PATH, "settings": 3}, r"learner\.architecture\.settings: got 3; give a mapping"),
        (
            {"of": PATH, "settings": {"width": {"learn": {}}}},
            r"settings\.width: .*no gradient can move it",
        ),
        ({"off": PATH}, r"did you mean 'of'\?"),
    ],
)
def test_a_mistake_in_the_section_is_told_with_its_place(settings: dict[str, Any], message: str) -> None:
    learner = {**EXPERIMENT["learner"], "architecture": {"kind": "module", **settings}}
    with pytest.raises(MetaloomError, match=message):
        metaloom.Experiment(**{**EXPERIMENT, "learner": learner})


def test_a_worker_of_ray_imports_the_class(tmp_path: Path) -> None:
    summary = metaloom.search(in_yaml(width={"search": [3, 4]}), store=tmp_path, trials=1, trust_code=True)
    assert summary.state == "finished", summary.failed
