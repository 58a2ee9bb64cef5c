"""A bundle gives the trial's own numbers, refuses what is damaged, and needs nothing of the cluster."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from metaloom import load_bundle
from metaloom.learners import METHODS, build_learner
from metaloom.learners.build import only_read
from metaloom.learners.errors import BadInput
from metaloom.learners.outer import OuterConfig
from metaloom.learners.state import LearnerState
from metaloom.workers.assembly import Assembly
from metaloom.workers.bundle import PyFunc
from metaloom.workers.bundle_reading import FORMAT
from metaloom.workers.bundle_writing import write_bundle
from metaloom.workers.card import CardPicture
from metaloom.workers.data import open_source
from metaloom.workers.device import CPU
from metaloom.workers.durable import canonical, digest, file_facts
from metaloom.workers.errors import BundleError, StorageError
from metaloom.workers.records.names import META_KNOWLEDGE_FILE
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.scoring import evaluate_learner, evaluate_trial
from metaloom.workers.trial.runner import Trial
from tests.support.closed_form import SIGN, Sines
from tests.support.episodes import read_episodes
from tests.support.limits import no_file_above

SIGNS = {
    "maml": {"update": {"kind": "sgd", "rate": 0.1, "steps": 2, "evaluation_steps": 3}},
    "prototypical": {},
    "nearest_neighbour": {},
}


def resolved(method, learner, **outer):
    """What resolving an experiment would give: a recipe with some of its slots changed."""
    recipe = METHODS[method]
    slots = {name: dict(settings) for name, settings in recipe.learner.items()}
    slots.setdefault("architecture", {"kind": "mlp", "hidden": [16, 16]})
    for name, settings in learner.items():
        slots[name] = {**slots.get(name, {}), **settings}
    section = {"steps": 20, "meta_batch": 4, "validate_every": 10, "validation_episodes": 10} | dict(recipe.outer)
    slots, outer = only_read(slots, section | {"strategy": "loop"} | outer)
    return {"method": method, **slots}, dict(recipe.inner), outer


def trained(directory, method, learner, source, shape, tasks):
    slots, inner, outer = resolved(method, learner)
    one = TrialConfig("test", 3, 5, tasks, slots, inner, outer, {"device": "cpu"})
    built = build_learner(learner=slots, inner=inner, outer=outer, task=shape)
    trial = Trial(one, directory, cache=directory, assembly=Assembly(source, built, CPU, OuterConfig.of(outer)))
    while not trial.finished:
        trial.advance()
    return trial


@pytest.fixture(scope="module", params=sorted(SIGNS))
def signs(request, tmp_path_factory):
    """A trained few-shot classifier, its evaluation and its bundle."""
    directory = tmp_path_factory.mktemp("signs")
    source = Sines(5, SIGN)
    trial = trained(directory / "trial", request.param, SIGNS[request.param], source, SIGN, {"source": "sines"})
    evaluation = evaluate_learner(trial.learner, trial.phi, trial.state, source, "test", 15)
    origin = {"search": "test", "run_id": "abc"}
    path = write_bundle(directory / "trial", directory / "bundle", origin=origin, evaluation=evaluation)
    return source, evaluation, path


@pytest.fixture(scope="module")
def sine(tmp_path_factory):
    """The same of MAML on the sinusoid source."""
    directory = tmp_path_factory.mktemp("sine")
    source = open_source({"source": "sinusoid"}, seed=5, cache=directory)
    update = {"update": {"kind": "sgd", "rate": 0.01, "steps": 1, "evaluation_steps": 2}}
    trained(directory / "trial", "maml", update, source, source.shape, {"source": "sinusoid"})
    evaluation = evaluate_trial(directory / "trial", cache=directory, episodes=15)
    path = write_bundle(directory / "trial", directory / "bundle", origin={}, evaluation=evaluation)
    return directory, source, evaluation, path


def test_it_scores_exactly_as_the_trial_did(signs):
    source, evaluation, path = signs
    again = load_bundle(path).evaluate(source, episodes=15)
    assert again.scores == evaluation.scores
    assert again.losses == evaluation.losses
    assert again.per_step == evaluation.per_step


def test_adapting_by_hand_gives_the_same_scores(signs):
    source, evaluation, path = signs
    bundle = load_bundle(path)
    for index in range(15):
        sampled = source.episode("test", index)
        one = sampled.episode
        adapted = bundle.adapt(one.support_x.numpy(), one.support_y.numpy(), seed=sampled.seed)
        right = adapted.predict(one.query_x.numpy()) == one.query_y.numpy()
        assert np.float32(right.mean()) == np.float32(evaluation.scores[index])


def test_any_labels_come_back(signs):
    source, _, path = signs
    one = source.episode("test", 0).episode
    bundle = load_bundle(path)
    plain = bundle.adapt(one.support_x, one.support_y).predict(one.query_x)
    assert isinstance(plain, torch.Tensor)
    named = np.array(["minus", "plus"])[one.support_y]
    adapted = bundle.adapt(one.support_x.numpy(), named)
    assert adapted.labels.tolist() == ["minus", "plus"]
    assert adapted.predict(one.query_x.numpy()).tolist() == [["minus", "plus"][i] for i in plain]
    far = bundle.adapt(one.support_x, torch.where(one.support_y == 0, -7, 40)).predict(one.query_x)
    assert torch.equal(far, torch.where(plain == 0, -7, 40))


def test_probabilities_add_up_and_agree(signs):
    source, _, path = signs
    one = source.episode("test", 1).episode
    adapted = load_bundle(path).adapt(one.support_x.numpy(), one.support_y.numpy())
    probabilities = adapted.probabilities(one.query_x.numpy())
    assert probabilities.shape == (20, 2)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert (adapted.labels[probabilities.argmax(1)] == adapted.predict(one.query_x.numpy())).all()


def test_more_classes_than_were_trained(signs):
    _, _, path = signs
    bundle = load_bundle(path)
    x = np.repeat(np.array([[-2.0], [0.0], [2.0]], np.float32), 4, axis=0)
    y = np.repeat(["a", "b", "c"], 4)
    if bundle.config.learner["method"] == "maml":
        with pytest.raises(BundleError, match=r"3 classes, but this learner's head was trained for 2"):
            bundle.adapt(x, y)
    else:
        assert set(bundle.adapt(x, y).predict(x)) <= {"a", "b", "c"}
        assert bundle.adapt(x, y).probabilities(x).shape == (12, 3)


def test_regression_keeps_its_numbers(sine):
    directory, source, evaluation, path = sine
    bundle = load_bundle(path)
    assert bundle.evaluate(source, episodes=15).scores == evaluation.scores
    assert bundle.evaluate(cache=directory, episodes=15).scores == evaluation.scores
    assert bundle.evaluate(cache=directory, episodes=15, seed=6).scores != evaluation.scores
    for index in range(15):
        sampled = source.episode("test", index)
        one = sampled.episode
        found = bundle.adapt(one.support_x, one.support_y, seed=sampled.seed).predict(one.query_x)
        assert torch.nn.functional.mse_loss(found, one.query_y).item() == pytest.approx(evaluation.scores[index], 1e-6)


def test_flat_targets_give_flat_predictions(sine):
    _, source, _, path = sine
    one = source.episode("test", 0).episode
    bundle = load_bundle(path)
    flat = bundle.adapt(one.support_x.numpy(), one.support_y.numpy()[:, 0]).predict(one.query_x.numpy())
    assert flat.shape == (len(one.query_x),)
    assert (flat == bundle.adapt(one.support_x.numpy(), one.support_y.numpy()).predict(one.query_x.numpy())[:, 0]).all()
    with pytest.raises(BundleError, match="a regression task has none"):
        bundle.adapt(one.support_x, one.support_y).probabilities(one.query_x)


def test_what_is_in_the_folder(sine):
    _, _, evaluation, path = sine
    assert sorted(one.name for one in path.iterdir()) == [
        "MLmodel",
        "card.md",
        "config.yaml",
        "manifest.json",
        "meta_knowledge.safetensors",
        "requirements.txt",
        "shown_episode.safetensors",
        "test_episodes.parquet",
        "timings.json",
    ]
    assert json.loads((path / "timings.json").read_text()) == {"seconds per test episode": evaluation.seconds}
    bundle = load_bundle(path)
    assert bundle.manifest["evaluation"]["mean"] == evaluation.mean
    assert f"**loss {evaluation.mean:.4f}**" in bundle.card
    assert "inductive" in bundle.card
    assert "maml for regression on sinusoid" in bundle.card
    assert bundle.config.learner["update"]["rate"] == 0.01


def test_the_tests_episodes_are_rows_of_the_trial_too(sine):
    directory, _, evaluation, _ = sine
    rows = [r for r in read_episodes(directory / "trial" / "episodes").to_pylist() if r["phase"] == "test"]
    assert [row["loss_after"] for row in rows] == list(evaluation.scores)
    for episodes, recorded in ((15, 15), (3, 15), (17, 17)):  # a shorter test takes no row of a longer one away
        evaluate_trial(directory / "trial", cache=directory, episodes=episodes)
        again = [r for r in read_episodes(directory / "trial" / "episodes").to_pylist() if r["phase"] == "test"]
        assert [row["loss_after"] for row in again[:15]] == list(evaluation.scores)
        assert len(again) == recorded
    (part,) = (directory / "trial" / "episodes").glob("part-test-*.parquet")
    part.write_bytes(b"damaged")
    evaluate_trial(directory / "trial", cache=directory, episodes=15)
    again = [r for r in read_episodes(directory / "trial" / "episodes").to_pylist() if r["phase"] == "test"]
    assert len(again) == 15


def test_damaged_meta_knowledge_is_told_and_its_checkpoint_scored(sine, tmp_path, caplog):
    directory, _, evaluation, _ = sine
    shutil.copytree(directory / "trial", tmp_path / "trial")
    (tmp_path / "trial" / META_KNOWLEDGE_FILE).write_bytes(b"")
    again = evaluate_trial(tmp_path / "trial", cache=directory, episodes=15)
    assert again.scores == evaluation.scores
    assert f"{META_KNOWLEDGE_FILE}: cannot be read" in caplog.text


def test_it_is_never_written_over(sine, tmp_path):
    directory, *_ = sine
    with pytest.raises(BundleError, match="exists already"):
        write_bundle(directory / "trial", tmp_path, origin={}, evaluation=None)


def test_nothing_learned_is_nothing_to_bundle(tmp_path):
    with pytest.raises(BadInput, match="no trial is here"):
        write_bundle(tmp_path / "none", tmp_path / "out", origin={}, evaluation=None)


def test_pictures_stand_on_the_card_and_are_signed(sine, tmp_path):
    directory = sine[0]
    picture = CardPicture("rates", "The head learns fastest.", b"\x89PNG picture")
    path = write_bundle(directory / "trial", tmp_path / "out", origin={}, evaluation=None, pictures=[picture])
    bundle = load_bundle(path)
    assert "## What was learned\n\nThe head learns fastest.\n\n![rates](figure-rates.png)" in bundle.card
    assert (path / "figure-rates.png").read_bytes() == picture.png
    (path / "figure-rates.png").write_bytes(b"another")
    with pytest.raises(BundleError, match=r"figure-rates\.png is damaged"):
        load_bundle(path)


def test_a_full_disk_leaves_no_half_bundle(sine, tmp_path):
    directory, *_ = sine
    with no_file_above(800), pytest.raises(StorageError, match="no room"):
        write_bundle(directory / "trial", tmp_path / "out", origin={}, evaluation=None)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def copy(sine, tmp_path):
    directory, *_ = sine
    return write_bundle(directory / "trial", tmp_path / "bundle", origin={}, evaluation=sine[2])


@pytest.mark.parametrize("name", ["meta_knowledge.safetensors", "config.yaml", "card.md", "test_episodes.parquet"])
def test_a_damaged_file_is_named(copy, name):
    path = copy / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(BundleError, match=f"{name} is damaged"):
        load_bundle(copy)
    path.write_bytes(content[:-1])
    with pytest.raises(BundleError, match=f"{name} is damaged"):
        load_bundle(copy)
    path.unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        load_bundle(copy)


def resign(copy, change):
    path = copy / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["sha256"]
    change(manifest)
    path.write_text(json.dumps({**manifest, "sha256": digest(canonical(manifest))}))


def test_a_manifest_that_was_changed_is_refused(copy):
    path = copy / "manifest.json"
    path.write_text(path.read_text().replace('"mean"', '"moan"', 1))
    with pytest.raises(BundleError, match=r"manifest.json is damaged"):
        load_bundle(copy)
    path.write_text("{")
    with pytest.raises(BundleError, match="not a bundle"):
        load_bundle(copy)
    with pytest.raises(BundleError, match=r"there is no folder .*absent"):
        load_bundle(copy / "absent")


def test_a_newer_format_is_refused(copy):
    resign(copy, lambda manifest: manifest.update(format=FORMAT + 1))
    with pytest.raises(BundleError, match=f"bundle format {FORMAT + 1}; this metaloom reads up to {FORMAT}"):
        load_bundle(copy)


def test_a_component_of_a_package_that_is_not_here_is_missed_by_name(copy):
    config = copy / "config.yaml"
    document = yaml.safe_load(config.read_text())
    document["trial"]["learner"]["weighting"] = {"kind": "tempered"}
    config.write_text(yaml.safe_dump(document))
    resign(copy, lambda manifest: manifest["files"].update({"config.yaml": file_facts(config.read_bytes())}))
    with pytest.raises(BundleError, match=r"no weighting is named 'tempered'.*install it") as refused:
        load_bundle(copy)
    assert str(refused.value).startswith(f"{copy}: ")


def test_a_file_outside_is_refused(copy):
    resign(copy, lambda manifest: manifest["files"].update({"../trial/config.json": {}}))
    with pytest.raises(BundleError, match="names a file outside"):
        load_bundle(copy)


def test_a_config_that_would_run_code_or_fill_memory_is_refused(copy):
    for text in ("trial: !!python/object/apply:os.system [exit]\ntask: {}\n", "trial: &a {}\ntask: *a\n"):
        (copy / "config.yaml").write_text(text)
        signed = {"sha256": digest(text.encode()), "bytes": len(text)}
        resign(copy, lambda manifest, signed=signed: manifest["files"].update({"config.yaml": signed}))
        with pytest.raises(BundleError, match="not what this metaloom can read"):
            load_bundle(copy)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (np.zeros((4, 3)), [0, 0, 1, 1], r"support_x: got shape \(4, 3\); this learner takes \[n, 1\]"),
        (np.zeros((0, 1)), [], "support_x: got shape"),
        (np.full((4, 1), np.nan), [0, 0, 1, 1], "support_x: holds a NaN"),
        (np.zeros((4, 1)), [0, 1], r"support_y: got shape \(2,\) for 4 examples"),
        (np.zeros((4, 1)), [1, 1, 1, 1], "two classes or more"),
        (np.array([["a"], ["b"]]), [0, 1], "numbers are needed"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(signs, x, y, words):
    with pytest.raises(BundleError, match=words):
        load_bundle(signs[2]).adapt(x, y)


def test_it_opens_without_the_cluster(sine):
    code = (
        "import sys, numpy as np; from metaloom import load_bundle\n"
        "x = np.zeros((3, 1), np.float32)\n"
        "load_bundle(sys.argv[1]).adapt(x, x).predict(x)\n"
        "print(sorted({'ray', 'mlflow', 'optuna'} & set(sys.modules)))"
    )
    found = subprocess.check_output([sys.executable, "-c", code, str(sine[3])], text=True)
    assert found.strip() == "[]"


def test_mlflow_loads_it(sine):
    pyfunc = pytest.importorskip("mlflow.pyfunc")
    _, source, _, path = sine
    one = source.episode("test", 0).episode
    x, y, q = one.support_x.numpy(), one.support_y.numpy(), one.query_x.numpy()
    expected = load_bundle(path).adapt(x, y).predict(q)
    model = pyfunc.load_model(str(path))
    assert (model.predict({"support_x": x, "support_y": y, "query_x": q}) == expected).all()
    wrapper = PyFunc(load_bundle(path))
    params = {"support_x": x.tolist(), "support_y": y.tolist()}
    assert (wrapper.predict(q, params=params) == expected).all()
    with pytest.raises(BundleError, match="support_x, support_y missing"):
        wrapper.predict(q)


def test_nothing_here_can_unpickle():
    import metaloom.workers as workers

    for path in Path(workers.__path__[0]).glob("*.py"):
        text = path.read_text()
        assert "import pickle" not in text, path
        assert "torch.load" not in text, path
        assert "yaml.load(" not in text, path


def test_a_new_table_is_read_in_the_users_own_units(tmp_path):
    rows = np.random.default_rng(0).normal([100.0, -3.0], [20.0, 0.5], (120, 2))
    lines = [f"{a},{b},kind{i % 12}" for i, (a, b) in enumerate(rows.tolist())]
    (tmp_path / "table.csv").write_text("\n".join(["width,depth,label", *lines]))
    tasks = {
        "source": "table",
        "path": str(tmp_path / "table.csv"),
        "label": "label",
        "ways": 2,
        "shots": 2,
        "queries": 2,
    }
    learner = {"method": "maml", "architecture": {"kind": "mlp", "hidden": [4]}, "initialization": {"kind": "learned"}}
    config = TrialConfig("tables", 0, 0, tasks, learner, {}, {"steps": 1, "validation_episodes": 2})
    trial = Trial(config, tmp_path / "trial", cache=tmp_path / "cache")
    while not trial.finished:
        trial.advance()
    bundle = load_bundle(write_bundle(tmp_path / "trial", tmp_path / "bundle", origin={}, evaluation=None))
    episode = trial.source.episode("test", 0).episode
    raw = [
        x.numpy() * np.array(bundle.task.deviation) + np.array(bundle.task.mean)
        for x in (episode.support_x, episode.query_x)
    ]
    assert bundle.task.features == ("width", "depth")
    assert abs(raw[0][:, 0].mean() - 100) < 60
    given = bundle.adapt(raw[0], episode.support_y.numpy()).probabilities(raw[1])
    adapted = trial.learner.adapt(dict(trial.phi), LearnerState(), episode.support, torch.Generator())
    np.testing.assert_allclose(given, adapted.predict(episode.query_x).numpy(), atol=1e-5)
