"""A zero-shot learner from training to a new task: bundles, what they adapt to, and what they refuse."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metaloom.learners.errors import LearnerError
from metaloom.orchestrator.command_line import cli
from metaloom.workers.assembly import learner_of
from metaloom.workers.bundle import PyFunc, load_adapted, load_bundle
from metaloom.workers.bundle_writing import write_bundle
from metaloom.workers.checking import check_hypergradient
from metaloom.workers.class_rows import read_classes
from metaloom.workers.data import open_source
from metaloom.workers.errors import BundleError
from metaloom.workers.records.names import CACHE_FOLDER
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.scoring import evaluate_trial
from metaloom.workers.trial.runner import Trial
from metaloom.workers.verification import verify

LEARNERS: dict[str, dict[str, Any]] = {
    "zero_shot_prototypical": {
        "method": "zero_shot_prototypical",
        "architecture": {"kind": "linear"},
        "initialization": {"kind": "learned"},
        "prediction": {"kind": "zero_shot_prototypical", "unit": False},
    },
    "eszsl": {"method": "eszsl", "prediction": {"kind": "eszsl", "unit": False}},
}
WEIGHTS = np.random.default_rng(5).normal(0, 1, (3, 2))  # of three attributes on two features
ATTRIBUTES = np.random.default_rng(6).normal(4, 2, (16, 3))  # not standardized


def examples(attributes: Any, generator: np.random.Generator) -> Any:
    """Draw six examples of each class, around the place that its attributes say."""
    return (attributes @ WEIGHTS).repeat(6, 0) + generator.normal(0, 0.3, (6 * len(attributes), 2))


def write_classes(path: Path, names: list[str], attributes: Any, columns: str = "fur,legs,size") -> Path:
    lines = [f"{name},{','.join(map(repr, row))}" for name, row in zip(names, attributes.tolist(), strict=True)]
    path.write_text("\n".join([f"animal,{columns}", *lines]) + "\n")
    return path


def tasks_of(folder: Path, **settings: Any) -> dict[str, Any]:
    described = {"path": str(folder / "classes.csv"), "class": "animal"}
    sizes = {"ways": 3, "shots": 0, "queries": 4}
    fields = {"source": "table", "path": str(folder / "table.csv"), "label": "label", "class_features": described}
    return {**fields, **sizes, **settings}


def trained(folder: Path, trial: str, tasks: dict[str, Any], learner: dict[str, Any], steps: int = 60) -> Path:
    config = TrialConfig("animals", 0, 3, tasks, learner, {}, {"steps": steps, "rate": 0.05, "validation_episodes": 4})
    runner = Trial(config, folder / trial, cache=folder / CACHE_FOLDER)
    while not runner.finished:
        runner.advance()
    evaluation = evaluate_trial(folder / trial, cache=folder / CACHE_FOLDER, episodes=20)
    return write_bundle(folder / trial, folder / f"{trial}-bundle", origin={}, evaluation=evaluation)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with data of 16 classes that three attributes describe, and a tested bundle of each learner."""
    folder = tmp_path_factory.mktemp("zero-shot")
    names = [f"k{number}" for number in range(16)]
    write_classes(folder / "classes.csv", names, ATTRIBUTES)
    rows = examples(ATTRIBUTES, np.random.default_rng(0))
    lines = [f"{a!r},{b!r},k{place // 6}" for place, (a, b) in enumerate(rows.tolist())]
    (folder / "table.csv").write_text("\n".join(["a,b,label", *lines]) + "\n")
    for name, learner in LEARNERS.items():
        trained(folder, name, tasks_of(folder), learner)
    return folder


@pytest.fixture(params=sorted(LEARNERS))
def path(request: pytest.FixtureRequest, folder: Path) -> Path:
    return folder / f"{request.param}-bundle"


NEW = np.array([[8.0, 1.0, 4.0], [1.0, 8.0, 4.0], [4.0, 4.0, -2.0]])
NAMES = ["wolf", "bird", "crab"]


def queries() -> tuple[Any, list[str]]:
    return examples(NEW, np.random.default_rng(9)), [name for name in NAMES for _ in range(6)]


def test_unseen_classes_are_told_apart_and_the_test_is_repeated_bit_for_bit(folder: Path, path: Path) -> None:
    bundle = load_bundle(path)
    assert bundle.manifest["evaluation"]["mean"] > 0.6  # chance is a third
    found = verify(bundle, cache=folder / CACHE_FOLDER)
    assert found.bit_equal and found.holds


def test_the_card_says_what_is_given_in_place_of_examples(path: Path) -> None:
    card = load_bundle(path).card
    assert "3-way zero-shot classification on table" in card
    assert "given what describes each class, and no example, it returns a model. Its meta-knowledge is 0" not in card
    assert "- a class: 3 numbers: fur, legs, size" in card
    assert "adapt(class_features=classes)" in card and "support_x" not in card


def test_every_way_to_describe_new_classes_gives_the_same_answers(path: Path, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    bundle, (x, labels) = load_bundle(path), queries()
    table = write_classes(tmp_path / "new.csv", NAMES, NEW)
    models = [
        bundle.adapt(class_features=str(table)),
        bundle.adapt(class_features=table),
        bundle.adapt(class_features=dict(zip(NAMES, NEW, strict=True))),
        bundle.adapt(class_features=pandas.read_csv(table)),
    ]
    for model in models:
        np.testing.assert_allclose(model.probabilities(x), models[0].probabilities(x), rtol=1e-5, atol=1e-7)
        assert model.labels.tolist() == NAMES
    assert np.mean(models[0].predict(x) == np.array(labels)) > 0.8
    assert bundle.adapt(class_features=NEW).labels.tolist() == [0, 1, 2]
    np.testing.assert_allclose(bundle.adapt(class_features=NEW).probabilities(x), models[0].probabilities(x), rtol=1e-5)


def test_a_table_with_permuted_rows_gives_permuted_answers(path: Path, tmp_path: Path) -> None:
    bundle, (x, _) = load_bundle(path), queries()
    order = [2, 0, 1]
    first = bundle.adapt(class_features=write_classes(tmp_path / "new.csv", NAMES, NEW))
    other = bundle.adapt(class_features=write_classes(tmp_path / "o.csv", [NAMES[n] for n in order], NEW[order]))
    np.testing.assert_allclose(other.probabilities(x), first.probabilities(x)[:, order], rtol=1e-4, atol=1e-6)
    assert other.predict(x).tolist() == first.predict(x).tolist()


@pytest.mark.parametrize(
    ("names", "attributes", "columns", "message"),
    [
        (NAMES, NEW[:, :2], "fur,legs", r"class_features: .*new\.csv: unknown column|no column.*'size'"),
        (NAMES, NEW, "fur,legs,sise", r"class_features: .*new\.csv.*'size'.*did you mean 'sise'"),
        (["wolf", "wolf", "crab"], NEW, "fur,legs,size", r"class_features: wolf stand there more than once"),
        (NAMES[:1], NEW[:1], "fur,legs,size", r"class_features: got 1 class; a task needs two"),
    ],
)
def test_another_table_of_classes_is_refused(
    path: Path, tmp_path: Path, names: list[str], attributes: Any, columns: str, message: str
) -> None:
    table = write_classes(tmp_path / "new.csv", names, attributes, columns)
    with pytest.raises(BundleError, match=message):
        load_bundle(path).adapt(class_features=table)


def test_what_cannot_be_adapted_to_is_refused(path: Path, tmp_path: Path) -> None:
    bundle, (x, labels) = load_bundle(path), queries()
    with pytest.raises(BundleError, match=r"class_features: got shape \(3, 4\); this learner takes \[n, 3\]"):
        bundle.adapt(class_features=np.ones((3, 4)))
    with pytest.raises(BundleError, match=r"class_features: .* NaN"):
        bundle.adapt(class_features=np.full((3, 3), np.nan))
    with pytest.raises(BundleError, match=r"class_features: there is no file .*none\.csv"):
        bundle.adapt(class_features=tmp_path / "none.csv")
    with pytest.raises(LearnerError, match=r"support\.class_features: .*needs the features of each class.*--classes"):
        bundle.adapt(x, labels)
    with pytest.raises(LearnerError, match=r"support\.x: prediction \w+ predicts from the features of each class"):
        bundle.adapt(x, labels, class_features=NEW)


def test_a_saved_model_and_that_of_mlflow_answer_alike(path: Path, tmp_path: Path) -> None:
    bundle, (x, _) = load_bundle(path), queries()
    model = bundle.adapt(class_features=dict(zip(NAMES, NEW, strict=True)))
    saved = load_adapted(model.save(tmp_path / "saved"))
    assert saved.predict(x).tolist() == model.predict(x).tolist()
    answers = PyFunc(bundle).predict({"class_features": NEW, "query_x": x})
    assert [NAMES[place] for place in answers.tolist()] == model.predict(x).tolist()
    with pytest.raises(BundleError, match="query_x missing"):
        PyFunc(bundle).predict({"class_features": NEW})


def test_the_forward_pass_is_exported(path: Path, tmp_path: Path) -> None:
    model = load_bundle(path).adapt(class_features=dict(zip(NAMES, NEW, strict=True)))
    assert model.export(tmp_path / "model.pt2").is_file()


def test_a_table_of_classes_stands_for_the_support_set_of_the_command(
    path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    table = write_classes(tmp_path / "new.csv", NAMES, NEW)
    x, labels = queries()
    lines = [f"{a!r},{b!r},{label}" for (a, b), label in zip(x.tolist(), labels, strict=True)]
    (tmp_path / "query.csv").write_text("\n".join(["a,b,label", *lines]) + "\n")
    command = ["adapt", str(path), "--query", str(tmp_path / "query.csv")]
    assert cli.run([*command, "--classes", str(table), "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["accuracy"] > 0.8 and set(document["predictions"][0]["probabilities"]) == set(NAMES)
    assert cli.run(command) == 2
    assert "--classes" in capfd.readouterr().err
    assert cli.run([*command, "--classes", str(table), "--support", str(tmp_path)]) == 2
    assert "give one" in capfd.readouterr().err


def test_a_learner_of_examples_refuses_a_table_of_classes(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tasks = tasks_of(folder, shots=1)
    del tasks["class_features"]
    bundle = trained(
        folder, "neighbour", tasks, {"method": "nearest_neighbour", "prediction": {"kind": "nearest_neighbour"}}
    )
    table = write_classes(tmp_path / "new.csv", NAMES, NEW)
    assert cli.run(["adapt", str(bundle), "--query", str(folder / "table.csv"), "--classes", str(table)]) == 2
    assert "without tasks.class_features" in capfd.readouterr().err
    assert "class_features" not in (bundle / "config.yaml").read_text()  # which an earlier version reads too


def test_the_hypergradient_is_that_of_central_differences(folder: Path) -> None:
    source = open_source(
        tasks_of(folder, ways=6, queries=5, evaluation={"ways": 3}), seed=0, cache=folder / CACHE_FOLDER
    )
    for name, learned in (
        ("zero_shot_prototypical", {}),
        ("eszsl", {"gamma": {"learn": {}}, "lambda_": {"learn": {}}}),
    ):
        section = {**LEARNERS[name], "prediction": {**LEARNERS[name]["prediction"], **learned}}
        learner = learner_of(TrialConfig("s", 0, 0, {}, section, {}, {}), source.shape)
        found = check_hypergradient(learner, source, seed=0)
        assert found.knobs and all(one.relative_error < 1e-6 for one in found.knobs.values()), found


@pytest.mark.parametrize("given", [torch.rand(3, 2048), np.zeros((3, 2048)), [1, 2, 3]])
def test_numbers_are_refused_where_the_names_of_classes_are_read(tmp_path: Path, given: Any) -> None:
    tasks = {"source": "glyphs", "ways": 3, "shots": 0, "queries": 2, "class_features": {"names": "hashing"}}
    described = open_source(tasks, seed=0, cache=tmp_path).shape.class_features
    with pytest.raises(BundleError, match="this learner reads the names of classes; give a list of texts"):
        read_classes(given, described, {})
