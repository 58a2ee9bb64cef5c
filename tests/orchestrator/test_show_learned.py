"""``metaloom show`` names what the best trial has learned, in words, and where it is drawn."""

import json
import shutil
from pathlib import Path

import mlflow
import pytest

from metaloom import train
from metaloom.orchestrator.command_line import cli

EXPERIMENT = """\
name: smoothed
tasks: {source: digits, label_noise: 0.3}
learner:
  method: meta_weight_net
  architecture: {kind: linear}
  loss: {kind: cross_entropy, label_smoothing: {learn: {start: 0.1}}}
outer: {steps: 3, validate_every: 3, validation_episodes: 2, test_episodes: 2}
"""
LEARNED = ["loss-settings", "weight-curve"]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "smoothed.yaml").write_text(EXPERIMENT)
    train(tmp_path / "smoothed.yaml", store=tmp_path / "store", executor="inline")
    return tmp_path / "store"


def shown(store: Path, capfd: pytest.CaptureFixture[str], *options: str) -> str:
    capfd.readouterr()
    assert cli.run(["show", "smoothed", "--store", str(store), *options]) == 0
    return capfd.readouterr().out


def test_what_was_learned_is_told_and_drawn(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    document = json.loads(shown(store, capfd, "--json"))
    assert [one["name"] for one in document["learned"]] == LEARNED
    assert all(Path(one["figure"]).read_bytes().startswith(b"\x89PNG") for one in document["learned"])
    text = shown(store, capfd)
    assert "What trial 0 has learned:" in text
    told = " ".join(text.split())
    assert all(one["caption"] in told and one["figure"] in text for one in document["learned"])
    client = mlflow.MlflowClient(tracking_uri=document["tracking_uri"])
    files = {file.path for file in client.list_artifacts(document["best"]["run_id"], "figures")}
    assert {"figures/learned.json", *(f"figures/{name}.png" for name in LEARNED)} <= files
    words = json.loads(Path(client.download_artifacts(document["best"]["run_id"], "figures/learned.json")).read_text())
    assert [one["caption"] for one in words] == [one["caption"] for one in document["learned"]]


def test_what_a_broken_off_end_has_not_drawn_is_drawn_by_show(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    expected = json.loads(shown(store, capfd, "--json"))["learned"]
    figures = Path(expected[0]["figure"]).parent
    shutil.rmtree(figures)
    assert json.loads(shown(store, capfd, "--json"))["learned"] == expected
    shutil.rmtree(figures)
    figures.write_text("in the way")
    told = shown(store, capfd, "--json")
    assert json.loads(told)["learned"] == []
