"""A bundle written from a search opens elsewhere, as MLflow's model too."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from metaloom.dashboards import queries
from metaloom.learners.errors import BadInput
from metaloom.orchestrator import api, export
from metaloom.orchestrator.command_line import cli
from metaloom.orchestrator.errors import StoreError
from metaloom.workers.bundle import load_bundle
from tests.support import processes

CHANGES = [
    "outer.strategy=loop",
    "outer.steps=2",
    "outer.validate_every=2",
    "outer.validation_episodes=4",
    "outer.test_episodes=4",
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    api.search("quick", overrides=CHANGES, store=folder, name="first", trials=2, executor="inline")
    return folder


def test_a_bundle_says_where_it_comes_from(store: Path, tmp_path: Path) -> None:
    path = export.export("first", tmp_path / "bundle", trial="best", episodes=None, store=store)
    best = queries.search_summary(store, "first")["best"]
    bundle = load_bundle(path)
    origin = bundle.manifest["origin"]
    assert (origin["search"], origin["trial"], origin["run_id"]) == ("first", best["id"], best["run_id"])
    assert origin["knobs"] == best["knobs"]
    assert bundle.manifest["evaluation"]["episodes"] == 4
    assert "first" in bundle.card


def test_the_card_and_mlflow_show_what_was_learned(store: Path, tmp_path: Path) -> None:
    changes = [*CHANGES, "search.baselines=[]"]
    api.search("sinusoid-meta-sgd", overrides=changes, store=store, name="rates", trials=1, executor="inline")
    path = export.export("rates", tmp_path / "bundle", trial="best", episodes=0, store=store)
    card = load_bundle(path).card
    assert "Learned rate:" in card
    assert "(figure-rates.png)" in card
    assert (path / "figure-rates.png").read_bytes().startswith(b"\x89PNG")
    assert (queries.trial_folder(store, "rates", 0) / "figures" / "rates.png").is_file()


def test_any_trial_can_be_taken_with_or_without_a_test(store: Path, tmp_path: Path) -> None:
    path = export.export("first", tmp_path / "bundle", trial="1", episodes=0, store=store)
    manifest = load_bundle(path).manifest
    assert (manifest["origin"]["trial"], manifest["evaluation"]) == (1, None)


def test_mlflow_opens_a_bundle_as_its_own_model(store: Path, tmp_path: Path) -> None:
    path = export.export("first", tmp_path / "bundle", trial="best", episodes=0, store=store)
    code = (
        "import sys, mlflow.pyfunc, numpy as np; model = mlflow.pyfunc.load_model(sys.argv[1]); "
        "x = np.linspace(-4, 4, 10).reshape(-1, 1); "
        "out = model.predict({'support_x': x, 'support_y': np.sin(x[:, 0]), 'query_x': x[:3]}); "
        "assert out.shape == (3,), out; assert not {'ray', 'optuna'} & set(sys.modules)"
    )
    quiet = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, env=quiet, cwd=tmp_path)


def test_two_exports_are_equal_to_the_byte(store: Path, tmp_path: Path) -> None:
    """In two processes that hash text differently; only the measured seconds, which are not signed, differ."""
    paths = [tmp_path / "one", tmp_path / "other"]
    commands = [["-m", "metaloom", "export", "first", "--store", str(store), "--out", str(path)] for path in paths]
    processes.run(*commands[0], check=True)
    other_hashes = {**os.environ, "PYTHONHASHSEED": "1"}
    subprocess.run([sys.executable, *commands[1]], check=True, env=other_hashes, capture_output=True)
    one, other = ({file.name: file.read_bytes() for file in path.iterdir()} for path in paths)
    assert one.keys() == other.keys() and {"test_episodes.parquet", "requirements.txt"} < one.keys()
    assert json.loads(one.pop("timings.json")).keys() == json.loads(other.pop("timings.json")).keys()
    assert {name for name in one if one[name] != other[name]} == set()


@pytest.mark.parametrize(("trial", "told"), [("7", "no trial 7"), ("worst", "no trial worst")])
def test_an_unknown_trial_is_refused(store: Path, tmp_path: Path, trial: str, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        export.export("first", tmp_path / "bundle", trial=trial, episodes=0, store=store)
    assert not (tmp_path / "bundle").exists()


def test_a_folder_that_exists_is_never_written_over(store: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    with pytest.raises(BadInput, match="exists already"):
        export.export("first", tmp_path / "bundle", trial="best", episodes=None, store=store)


def test_a_bundle_is_registered_as_a_model_of_mlflow(store: Path, tmp_path: Path) -> None:
    pyfunc = pytest.importorskip("mlflow.pyfunc")
    from mlflow import set_registry_uri, set_tracking_uri
    from mlflow.tracking import MlflowClient

    for version in ("first", "second"):
        export.export("first", tmp_path / version, episodes=0, store=store, register="sines")
    uri = f"sqlite:///{store.absolute()}/mlflow.db"
    client = MlflowClient(uri, uri)
    versions = {one.version: one for one in client.search_model_versions("name = 'sines'")}
    assert {str(one) for one in versions} == {"1", "2"}
    run = {one.run_id for one in versions.values()}
    assert len(run) == 1 and client.get_run(run.pop()).data.tags
    set_tracking_uri(uri)
    set_registry_uri(uri)
    x = np.array([[0.5], [1.0], [2.0]], np.float32)
    given = {"support_x": x, "support_y": np.sin(x), "query_x": x}
    expected = load_bundle(tmp_path / "first").adapt(x, np.sin(x)).predict(x)
    assert (pyfunc.load_model("models:/sines/2").predict(given) == expected).all()
    with pytest.raises(StoreError, match=r"--register a/b: .*the bundle is written"):
        export.export("first", tmp_path / "third", episodes=0, store=store, register="a/b")


def test_a_new_table_is_scaled_as_the_training_table_was(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The same task, as rows of the training table and as a new table, gets the same predictions."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(15, 3)) * [1.0, 100.0, 0.01] + [0.0, 5000.0, 0.0]
    rows = [(*(centres[n % 15] + random.normal(size=3) * [0.2, 20.0, 0.002]), f"class{n % 15}") for n in range(300)]
    table = tmp_path / "rows.csv"
    table.write_text("\n".join(["a,b,c,label", *(",".join(map(str, row)) for row in rows)]) + "\n")
    experiment = {
        "name": "rows",
        "tasks": {"source": "table", "path": str(table), "label": "label", "ways": 3, "queries": 2},
        "learner": {"method": "prototypical", "architecture": {"kind": "mlp", "hidden": [8]}},
        "outer": {"steps": 2, "meta_batch": 2, "validate_every": 2, "validation_episodes": 4, "test_episodes": 4},
        "search": {"trials": 1},
    }
    api.search(experiment, store=tmp_path / "store", executor="inline")
    out = export.export("rows", tmp_path / "bundle", trial="best", episodes=0, store=tmp_path / "store")
    head = "b,a,c,label"  # another order: columns are found by their names
    for name, some in (("support", rows[:3]), ("query", rows[15:18])):
        lines = [f"{row[1]},{row[0]},{row[2]},{row[3]}" for row in some]
        (tmp_path / f"{name}.csv").write_text("\n".join([head, *lines]) + "\n")
    paths = ["--support", str(tmp_path / "support.csv"), "--query", str(tmp_path / "query.csv")]
    capfd.readouterr()
    assert cli.run(["adapt", str(out), *paths, "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    bundle = load_bundle(out)
    x = np.array([row[:3] for row in [*rows[:3], *rows[15:18]]], dtype=float)  # the bundle scales them
    expected = bundle.adapt(x[:3], np.array([row[3] for row in rows[:3]])).predict(x[3:])
    assert [one["prediction"] for one in document["predictions"]] == expected.tolist()
    assert "accuracy" in document


def test_a_control_bundle_is_adapted_to_starting_states(
    store: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    changes = [*CHANGES, "outer.meta_batch=2", "tasks.horizon=3", "tasks.shots=2", "tasks.queries=2"]
    api.search("navigation", overrides=changes, store=store, name="goals", trials=1, executor="inline")
    assert queries.how_to_use(store, "goals", 0) == "adapt goals-bundle --support STARTS.csv --query STATES.csv"
    capfd.readouterr()
    assert cli.run(["export", "goals", "--out", str(tmp_path / "b"), "--episodes", "0", "--store", str(store)]) == 0
    advice = f"a table of starting states and the task: metaloom adapt {tmp_path / 'b'} --support PATH --query PATH"
    assert f"adapt it to {advice}" in capfd.readouterr().out
