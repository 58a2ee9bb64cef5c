"""Features of a body that nothing moves are computed once per data set, and a trial on them is the trial without."""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metaloom.learners.errors import LearnerError
from metaloom.learners.networks.convolutional import Conv4
from metaloom.learners.solvers.amortized import Embedding
from metaloom.workers.bundle import load_bundle
from metaloom.workers.bundle_writing import write_bundle
from metaloom.workers.data.features import is_same
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.scoring import evaluate_trial
from metaloom.workers.trial import runner
from metaloom.workers.trial.runner import Trial
from metaloom.workers.verification import verify
from tests.support.few_shot_images import write_images

CONV = {"kind": "conv4", "channels": 4, "blocks": 2}
HEAD = {"prediction": {"kind": "prototypes"}}
LEARNED = {"prediction": {"kind": "prototypes", "temperature": {"learn": {"start": 2.0}}}}
VALIDATED, TRAINED = 5 * 8, 15 * 8  # the examples of five validation classes, and of fifteen training ones


def config(
    folder: Path, slots: Mapping[str, Any] = HEAD, *, name: str = "images", precision: str = "float64", **tasks: Any
) -> TrialConfig:
    initialization = {"kind": "pretrained", "bundle": str(folder / "bundle")}
    learner = {"architecture": CONV, "initialization": initialization, **slots}
    section = {"source": "arrays", "path": str(folder / f"{name}.npz"), "ways": 3, "shots": 2, "queries": 3, **tasks}
    outer = {"steps": 4, "meta_batch": 2, "validate_every": 2, "validation_episodes": 6, "precision": precision}
    return TrialConfig("first", 0, 0, section, learner, {"batch_norm": "frozen"}, outer, {})


def finished(settings: TrialConfig, directory: Path, cache: Path) -> Trial:
    trial = Trial(settings, directory, cache=cache)
    while not trial.finished:
        trial.advance()
    return trial


def bundle(folder: Path, name: str, seed: int) -> Path:
    """Train a body for two steps and export it."""
    settings = config(folder)
    learner = {"architecture": CONV, "initialization": {"kind": "learned"}, **HEAD}
    trained = TrialConfig("origin", 0, seed, settings.tasks, learner, settings.inner, settings.outer, {})
    finished(trained, folder / f"trained-{name}", folder / "cache")
    return write_bundle(folder / f"trained-{name}", folder / name, origin={}, evaluation=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    write_images(folder / "images.npz", classes=25)
    bundle(folder, "bundle", 0)
    return folder


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many examples each pass of the network has seen."""
    passes: list[int] = []
    plain = Conv4.features

    def counted(self: Conv4, theta: Any, x: torch.Tensor, norm: Any, phi: Any) -> torch.Tensor:
        passes.append(len(x))
        return plain(self, theta, x, norm, phi)

    monkeypatch.setattr(Conv4, "features", counted)
    return passes


def entries(cache: Path) -> set[str]:
    return {path.name for path in cache.glob("features-*.arrow")}


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("slots", [HEAD, LEARNED], ids=["nothing", "temperature"])
def test_a_trial_on_features_is_the_trial_without(
    slots: Any, precision: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(folder, slots, precision=precision)
    once = finished(settings, tmp_path / "once", tmp_path / "cache")
    assert once.learner is not once.learner.on_features()  # type: ignore[attr-defined]
    monkeypatch.setattr(runner, "features_of", lambda *_: None)
    plain = finished(settings, tmp_path / "plain", tmp_path / "other")
    assert entries(tmp_path / "cache")
    assert not entries(tmp_path / "other")
    assert once.last_report is not None
    assert plain.last_report is not None
    exact = 1e-12 if precision == "float64" else 1e-5
    assert once.last_report.scores == plain.last_report.scores
    ours, theirs = (one.last_report.metrics["validation_loss"] for one in (once, plain) if one.last_report)
    assert ours == pytest.approx(theirs, rel=exact)
    for leaf, value in plain.phi.items():
        torch.testing.assert_close(once.phi[leaf], value, rtol=exact, atol=exact)
    for left, right in ((once.state.theta, plain.state.theta), (once.state.running, plain.state.running)):
        assert left.keys() == right.keys()
        assert all(torch.equal(value, right[name]) for name, value in left.items())


def test_an_example_has_the_features_of_its_episode(folder: Path, tmp_path: Path) -> None:
    trial = Trial(config(folder), tmp_path / "once", cache=tmp_path / "cache")
    raw = load_source(trial, tmp_path)
    body = trial.learner.body(trial.phi, trial.state)  # type: ignore[attr-defined]
    embed = Embedding(body.network, body.theta, {}, together=False, given=body.given)
    for split in ("train", "validation", "test"):
        ours, theirs = trial.source.episode(split, 3), raw.episode(split, 3)
        assert (ours.seed, ours.class_ids, ours.sample_ids) == (theirs.seed, theirs.class_ids, theirs.sample_ids)
        for features, examples in (
            (ours.episode.support_x, theirs.episode.support_x),
            (ours.episode.query_x, theirs.episode.query_x),
        ):
            torch.testing.assert_close(features, embed(examples.double()), rtol=1e-12, atol=1e-12)


def load_source(trial: Trial, cache: Path) -> Any:
    from metaloom.workers.data import open_source

    return open_source(trial.config.tasks, seed=0, cache=cache)


def test_turned_and_unlabelled_examples_have_features_of_their_own(folder: Path, tmp_path: Path) -> None:
    from metaloom.workers.data.features import Features

    trial = Trial(config(folder), tmp_path / "once", cache=tmp_path / "cache")
    source = load_source(trial, tmp_path)
    source._x, source.table = source._x[:, 0], source.table.with_rotations()  # as Omniglot's are stored
    features = Features(source, lambda x: x.flatten(1), cache=tmp_path, key={})
    rows = source.table.starts[[4, 5, 6, 7]][:, None] + np.arange(3)
    turns = source.table.turns[[4, 5, 6, 7]]
    assert sorted(turns.tolist()) == [0, 1, 2, 3]
    assert torch.equal(features(rows, turns), source.gather(rows, turns).flatten(2))


def test_ten_trials_pass_each_example_through_the_network_once(seen: list[int], folder: Path, tmp_path: Path) -> None:
    for number, scale in enumerate((0.5, 1.0, 2.0)):
        head = {"prediction": {"kind": "prototypes", "temperature": scale}}
        trial = finished(config(folder, head), tmp_path / str(number), tmp_path / "cache")
        assert trial.last_report is not None
        how = "computed once, and kept in the cache" if number == 0 else "from the cache"
        assert f"features of {VALIDATED} validation examples {how}" in trial.last_report.notes
    probes = [count for count in seen if count <= 2]
    assert sum(seen) - sum(probes) == VALIDATED
    assert len(probes) == 3
    learning = finished(config(folder, LEARNED), tmp_path / "learning", tmp_path / "cache")
    assert sum(count for count in seen if count > 2) == VALIDATED + TRAINED
    assert learning.step == 4


def test_a_resumed_trial_goes_on_from_the_cache_without_the_bundle(
    seen: list[int], folder: Path, tmp_path: Path
) -> None:
    whole = finished(config(folder, LEARNED), tmp_path / "whole", tmp_path / "cache")
    Trial(config(folder, LEARNED), tmp_path / "next", cache=tmp_path / "cache").advance()
    before = len(seen)
    (folder / "bundle").rename(folder / "away")
    try:
        resumed = finished(config(folder, LEARNED), tmp_path / "next", tmp_path / "cache")
    finally:
        (folder / "away").rename(folder / "bundle")
    assert all(torch.equal(value, whole.phi[leaf]) for leaf, value in resumed.phi.items())
    assert all(count <= 2 for count in seen[before:])


def test_other_data_another_network_and_another_precision_have_features_of_their_own(
    folder: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    finished(config(folder), tmp_path / "first", cache)
    assert len(entries(cache)) == 1
    finished(config(folder, ways=2), tmp_path / "ways", cache)  # other episodes of the same examples
    assert len(entries(cache)) == 1
    write_images(folder / "others.npz", classes=25, seed=1)
    finished(config(folder, name="others"), tmp_path / "data", cache)
    assert len(entries(cache)) == 2
    finished(config(folder, precision="float32"), tmp_path / "precision", cache)
    assert len(entries(cache)) == 3
    other = bundle(folder, "another", 7)
    initialization = {"initialization": {"kind": "pretrained", "bundle": str(other)}}
    finished(config(folder, {**HEAD, **initialization}), tmp_path / "network", cache)
    assert len(entries(cache)) == 4


def test_code_that_changed_under_the_same_name_is_not_given_old_features(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    first = finished(config(folder), tmp_path / "first", cache)
    plain = Conv4.features
    monkeypatch.setattr(Conv4, "features", lambda *given: plain(*given).square())
    second = finished(config(folder), tmp_path / "second", cache)
    assert len(entries(cache)) == 2
    assert first.last_report is not None
    assert second.last_report is not None
    assert first.last_report.metrics["validation_loss"] != second.last_report.metrics["validation_loss"]


def test_features_are_the_same_up_to_rounding_alone() -> None:
    kept = np.linspace(0, 5, 12).reshape(2, 6)
    assert is_same(kept * (1 + 1e-6), kept)
    assert not is_same(kept * 1.01, kept)
    assert not is_same(kept[:, :5], kept)
    assert not is_same(kept.astype(np.float32), kept)
    assert not is_same(np.full_like(kept, np.nan), kept)


@pytest.mark.parametrize(
    ("slots", "batch_norm"),
    [
        ({**HEAD, "initialization": {"kind": "learned"}}, "frozen"),
        ({**HEAD, "initialization": {"kind": "random"}}, "frozen"),
        ({"initialization": {"kind": "fine_tuned"}, **HEAD}, "frozen"),
        (HEAD, "batch"),
        (HEAD, "support"),
        ({"update": {"rate": 0.1, "steps": 1}}, "frozen"),
    ],
)
def test_a_body_that_moves_or_meets_its_batch_has_no_features(
    slots: Any, batch_norm: str, folder: Path, tmp_path: Path
) -> None:
    given = dict(slots)
    if given.get("initialization", {}).get("kind") == "fine_tuned":
        given["initialization"] = {"kind": "fine_tuned", "bundle": str(folder / "bundle")}
    settings = config(folder, given)
    settings = TrialConfig(
        "first", 0, 0, settings.tasks, settings.learner, {"batch_norm": batch_norm}, settings.outer, {}
    )
    trial = Trial(settings, tmp_path / "n", cache=tmp_path / "cache")
    trial.advance()
    assert not entries(tmp_path / "cache")


def test_a_centre_that_the_bundle_lacks_is_measured_and_crops_need_the_examples(folder: Path, tmp_path: Path) -> None:
    head = {"kind": "augmented_shots", "crops": 0}
    trial = finished(config(folder, {"prediction": head}), tmp_path / "plain", tmp_path / "cache")
    assert len(entries(tmp_path / "cache")) == 1
    assert trial.last_report is not None
    assert [note for note in trial.last_report.notes if note.startswith("batch norm:")]
    raw, body = load_source(trial, tmp_path), trial.learner.body(trial.phi, trial.state)  # type: ignore[attr-defined]
    embed = Embedding(body.network, body.theta, {}, together=False, given=body.given)
    episodes = [raw.episode("train", index).episode for index in range(32)]
    features = [embed(torch.cat([one.support_x, one.query_x]).double()) for one in episodes]
    torch.testing.assert_close(trial.state.running["own/centre.mean"], torch.cat(features).mean(0))
    cropped = {"prediction": {**head, "crops": 2}}
    finished(config(folder, cropped), tmp_path / "cropped", tmp_path / "other")
    assert not entries(tmp_path / "other")


def test_a_solver_that_changes_the_network_must_say_so(folder: Path, tmp_path: Path) -> None:
    trial = Trial(config(folder), tmp_path / "n", cache=tmp_path / "cache")
    embed = trial.learner._embedding(trial.phi, trial.state, training=False)  # type: ignore[attr-defined]
    embed.theta = dict(embed.theta)
    with pytest.raises(LearnerError, match=r"must set takes_features = False"):
        embed(torch.zeros(1, 16))


def test_what_was_learned_on_features_is_exported_adapted_and_verified_on_examples(
    folder: Path, tmp_path: Path
) -> None:
    trial = finished(config(folder, LEARNED, precision="float32"), tmp_path / "n", tmp_path / "cache")
    scored = evaluate_trial(tmp_path / "n", cache=tmp_path / "cache", episodes=5)
    path = write_bundle(tmp_path / "n", tmp_path / "out", origin={}, evaluation=scored)
    exported = load_bundle(path)
    assert verify(exported, cache=tmp_path / "other").bit_equal
    episode = load_source(trial, tmp_path).episode("test", 0).episode
    adapted = exported.adapt(episode.support_x, episode.support_y)
    assert adapted.predict(episode.query_x).shape[0] == len(episode.query_y)


SCRIPT = """
import json, os, sys
from pathlib import Path
import torch
from metaloom.learners.networks.convolutional import Conv4
from metaloom.workers import durable
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.trial.runner import Trial
torch.set_num_threads(1)
seen, plain = [], Conv4.features
def counted(self, theta, x, norm, phi):
    seen.append(len(x))
    return plain(self, theta, x, norm, phi)
Conv4.features = counted
settings, directory, cache, kill = json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
if kill == "kill":
    sync = durable.sync
    def killed(path):
        if "features-" in path.name:
            path.write_bytes(path.read_bytes()[:100])  # half of it is on the disk
            os.kill(os.getpid(), 9)
        sync(path)
    durable.sync = killed
print("ready", flush=True)
sys.stdin.readline()
trial = Trial(TrialConfig.from_json(settings), directory, cache=cache)
report = trial.advance()
print(json.dumps({"seen": seen, "loss": report.metrics["validation_loss"], "notes": report.notes}))
"""


def begun(settings: TrialConfig, directory: Path, cache: Path, kill: str = "") -> "subprocess.Popen[str]":
    given = [json.dumps(settings.to_json()), str(directory), str(cache), kill]
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", SCRIPT, *given], stdin=pipe, stdout=pipe, text=True)


def go(*processes: "subprocess.Popen[str]") -> list[str]:
    """Let processes that are ready go on at the same time, and return what each prints last."""
    for one in processes:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in processes:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    return [one.communicate()[0] for one in processes]


def test_two_processes_at_once_compute_once(folder: Path, tmp_path: Path) -> None:
    settings = config(folder)
    printed = go(*(begun(settings, tmp_path / str(number), tmp_path / "cache") for number in range(2)))
    found = [json.loads(one) for one in printed]
    assert sum(count for one in found for count in one["seen"] if count > 2) == VALIDATED
    assert found[0]["loss"] == found[1]["loss"]
    notes = sorted(note for one in found for note in one["notes"])
    assert [note.endswith("from the cache") for note in notes] == [False, True]


def test_a_killed_writer_leaves_nothing_half_written(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    killed = begun(config(folder), tmp_path / "killed", cache, "kill")
    go(killed)
    assert killed.returncode == -signal.SIGKILL
    assert not entries(cache)
    assert [path for path in cache.iterdir() if path.name.startswith(".aside-")]
    plain = finished(config(folder), tmp_path / "next", cache)
    assert plain.last_report is not None
    assert len(entries(cache)) == 1
    assert not [path for path in cache.iterdir() if path.name.startswith(".aside-")]


def test_a_damaged_file_is_computed_again(seen: list[int], folder: Path, tmp_path: Path) -> None:
    first = finished(config(folder), tmp_path / "first", tmp_path / "cache")
    (name,) = entries(tmp_path / "cache")
    path = tmp_path / "cache" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    before = sum(seen)
    second = finished(config(folder), tmp_path / "second", tmp_path / "cache")
    assert sum(seen) - before >= VALIDATED
    assert first.last_report is not None
    assert second.last_report is not None
    assert first.last_report.scores == second.last_report.scores
