"""A trial on episodes with examples without labels, its bundle, and what that adapts to."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from metaloom import load_bundle
from metaloom.learners.errors import LearnerError
from metaloom.orchestrator.command_line import cli
from metaloom.search_spaces.loading import load_experiment
from metaloom.search_spaces.resolve import defaults, resolve
from metaloom.workers.assembly import assemble
from metaloom.workers.bundle import load_adapted
from metaloom.workers.bundle_writing import write_bundle
from metaloom.workers.data import open_source
from metaloom.workers.records.trial import TrialConfig, read_config
from metaloom.workers.scoring import evaluate_trial
from metaloom.workers.trial.runner import Trial
from tests.support.episodes import read_episodes

WAYS, SHOTS, QUERIES, UNLABELLED = 3, 1, 2, 2


class Made(NamedTuple):
    """A finished trial's folder, its bundle, and the table it learned from."""

    trial: Path
    bundle: Path
    tasks: dict[str, Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("graph")
    random = np.random.default_rng(0)
    points = random.normal(0, 3, (24, 3)).repeat(10, 0) + random.normal(0, 0.3, (240, 3))
    columns = {f"f{place}": points[:, place] for place in range(3)}
    pyarrow.csv.write_csv(pa.table({"label": [f"c{row // 10:02}" for row in range(240)], **columns}), folder / "t.csv")
    tasks = {"source": "table", "path": str(folder / "t.csv"), "label": "label", "ways": WAYS, "shots": SHOTS}
    tasks |= {"queries": QUERIES, "unlabelled": UNLABELLED, "distractors": 1}
    learner = {"method": "graph", "architecture": {"kind": "mlp", "hidden": [8]}}
    learner["prediction"] = {"kind": "graph", "width": 8, "blocks": 2}
    outer = {"steps": 6, "validate_every": 3, "validation_episodes": 3, "meta_batch": 2}
    experiment = load_experiment({"tasks": tasks, "learner": learner, "outer": outer})
    one = resolve(experiment, defaults(experiment))
    config = TrialConfig("semi", 0, 0, one.tasks, one.learner, one.inner, one.outer, one.resources)
    trial = Trial(config, folder / "trial", cache=folder / "cache")
    while not trial.finished:
        trial.advance()
    evaluation = evaluate_trial(folder / "trial", cache=folder / "cache", episodes=5)
    assert evaluation.setting == "semi-supervised"
    bundle = write_bundle(folder / "trial", folder / "bundle", origin={}, evaluation=evaluation)
    return Made(folder / "trial", bundle, one.tasks)


def test_its_records_name_every_example(made: Made) -> None:
    rows = read_episodes(made.trial / "episodes").to_pylist()
    assert {row["phase"] for row in rows} == {"train", "validation", "test"}
    for row in rows:
        assert row["setting"] == "semi-supervised"
        assert (row["ways"], row["shots"], row["queries"]) == (WAYS, SHOTS, QUERIES)
        assert len(row["class_ids"]) == WAYS
        assert len(set(row["sample_ids"])) == WAYS * (SHOTS + QUERIES) + UNLABELLED * (WAYS + 1)


def test_its_bundle_scores_and_adapts_as_the_trial(made: Made, tmp_path: Path) -> None:
    bundle = load_bundle(made.bundle)
    source = open_source(made.tasks, seed=0, cache=made.trial.parent / "cache")
    assert "semi-supervised" in bundle.card
    tested = bundle.evaluate(source, episodes=5)
    assert tested.scores == evaluate_trial(made.trial, cache=made.trial.parent / "cache", episodes=5).scores
    sampled = source.episode("test", 0)
    given, raw = sampled.episode.support, bundle._form().raw
    assert given.unlabelled is not None
    x, y, asked = raw(given.x).numpy(), given.y.numpy(), raw(sampled.episode.query_x).numpy()
    adapted = bundle.adapt(x, y, unlabelled=raw(given.unlabelled).numpy(), seed=sampled.seed)
    right = adapted.predict(asked) == sampled.episode.query_y.numpy()
    assert right.mean() == pytest.approx(tested.scores[0])
    saved = load_adapted(adapted.save(tmp_path / "saved"))
    np.testing.assert_array_equal(saved.probabilities(asked), adapted.probabilities(asked))
    alone = bundle.adapt(x, y)
    assert not np.allclose(alone.probabilities(asked), adapted.probabilities(asked), rtol=1e-3)


def test_adapt_reads_them_from_a_file(made: Made, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    table = pyarrow.csv.read_csv(made.tasks["path"])
    rows = {"support": [0, 10, 20], "unlabelled": [1, 2, 11, 12, 21, 22], "query": [5, 15, 25]}
    files = {name: tmp_path / f"{name}.csv" for name in rows}
    for name, places in rows.items():
        taken = table.take(places)
        pyarrow.csv.write_csv(taken.drop_columns("label") if name == "unlabelled" else taken, files[name])
    command = ["adapt", str(made.bundle), "--support", str(files["support"]), "--query", str(files["query"]), "--json"]

    def predictions(*more: str) -> list[dict[str, float]]:
        assert cli.run([*command, *more]) == 0
        document = json.loads(capfd.readouterr().out)
        assert (document["setting"], document["labelled"]) == ("semi-supervised", 3)
        return [row["probabilities"] for row in document["predictions"]]

    found = predictions("--unlabelled", str(files["unlabelled"]))
    columns = ("f0", "f1", "f2")
    arrays = {name: np.stack([table[one].to_numpy()[places] for one in columns], 1) for name, places in rows.items()}
    labels = [table["label"][place].as_py() for place in rows["support"]]
    model = load_bundle(made.bundle).adapt(arrays["support"], labels, unlabelled=arrays["unlabelled"])
    expected = model.probabilities(arrays["query"])
    np.testing.assert_allclose([list(row.values()) for row in found], expected, rtol=1e-6)
    assert found != predictions()
    assert cli.run([*command, "--unlabelled", str(tmp_path / "absent.csv")]) == 2
    assert "there is no file" in capfd.readouterr().out


def test_a_saved_model_takes_no_more_of_them(made: Made, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = load_bundle(made.bundle).adapt(np.array([[0.0] * 3, [5.0] * 3]), ["a", "b"])
    folder = str(model.save(tmp_path / "saved"))
    query = made.tasks["path"]
    assert cli.run(["adapt", folder, "--query", query, "--unlabelled", query, "--json"]) == 2
    assert "--unlabelled: this model is adapted already" in capfd.readouterr().out


def test_another_learner_refuses_them_by_the_settings_name(made: Made) -> None:
    config = read_config(made.trial)
    learner = {"method": "prototypical", "architecture": {"kind": "mlp"}, "prediction": {"kind": "prototypes"}}
    with pytest.raises(LearnerError, match=r"tasks\.unlabelled: prediction prototypes does not use examples without"):
        assemble(replace(config, learner=learner), cache=made.trial.parent / "cache")
