"""A recorded episode that is played again is the same one, and its predictions have the recorded scores."""

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as parquet
import pytest
import torch

from metaloom.learners.errors import LearnerError
from metaloom.search_spaces.loading import load_experiment
from metaloom.search_spaces.resolve import defaults, resolve
from metaloom.workers.confusions import Confusions
from metaloom.workers.data.base import SampledEpisode
from metaloom.workers.records import names
from metaloom.workers.records.results import mean_interval
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.replay import Player, of_part, recorded, replayed
from metaloom.workers.replaying import answers
from metaloom.workers.scoring import evaluate_trial
from metaloom.workers.trial.runner import Trial

HOSTILE = "<script>alert(1)</script>"


class Played(NamedTuple):
    """A trial that was trained, and its rows."""

    directory: Path
    cache: Path
    rows: list[dict[str, Any]]

    def request(self, row: dict[str, Any], **changes: Any) -> dict[str, Any]:
        record = {name: row[name] for name in ("part", "phase", "episode", "seed", "class_ids", "sample_ids")}
        return {"record": {**record, **changes}, "cache": str(self.cache), "trials": {"0": str(self.directory)}}


def trained(folder: Path, tasks: dict[str, Any], learner: dict[str, Any], *, repeat: int = 0, **outer: Any) -> Played:
    settings = {"steps": 2, "meta_batch": 2, "validate_every": 1, "validation_episodes": 2, "rate": 0.01, **outer}
    experiment = load_experiment({"tasks": tasks, "learner": learner, "outer": settings})
    one = resolve(experiment, defaults(experiment))
    config = TrialConfig("first", 0, 3, one.tasks, one.learner, one.inner, one.outer, one.resources, repeat=repeat)
    trial = Trial(config, folder / "trial", cache=folder / "cache")
    while not trial.finished:
        trial.advance()
    trial.close()
    evaluate_trial(folder / "trial", cache=folder / "cache", episodes=2)
    evaluate_trial(folder / "trial", cache=folder / "cache", episodes=2, seed=11)
    rows = []
    for part in names.parts_of(folder / "trial" / names.EPISODES_FOLDER):
        rows += [{**row, "part": part.name} for row in parquet.read_table(part).to_pylist()]
    return Played(folder / "trial", folder / "cache", rows)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "points.csv"
    random = torch.Generator().manual_seed(0)
    points = torch.randn(16, 3, generator=random).repeat_interleave(8, 0) + 0.3 * torch.randn(128, 3, generator=random)
    labels = [f"{HOSTILE}{row // 8}" for row in range(128)]
    columns = {f"f{place}": points[:, place].tolist() for place in range(3)}
    pyarrow.csv.write_csv(pa.table({"label": labels, **columns}), str(path))
    return path


MLP = {"kind": "mlp", "hidden": [6]}
SINES = {"source": "sinusoid", "shots": 5, "queries": 4}
TABLE = {"source": "table", "label": "label", "ways": 2, "shots": 1, "queries": 3}
SERIES = {"source": "signals", "ways": 2, "shots": 1, "queries": 2}
ARRAYS = {"source": "arrays", "ways": 2, "shots": 1, "queries": 2}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "sines": (SINES, {"method": "maml", "architecture": MLP, "update": {"rate": 0.05, "steps": 3}}, "curve"),
    "table": (TABLE, {"method": "maml", "architecture": MLP, "update": {"rate": 0.5, "steps": 2}}, "rows"),
    "prototypes": (TABLE, {"method": "prototypical", "architecture": MLP}, "rows"),
    "inputs": (TABLE, {"method": "knn_inputs"}, "rows"),
    "images": (ARRAYS, {"method": "anil", "architecture": MLP, "update": {"rate": 0.5, "steps": 1}}, "images"),
    "series": (SERIES, {"method": "prototypical", "architecture": MLP}, "series"),
    "digits": ({"source": "digits"}, {"method": "meta_weight_net", "architecture": MLP}, "images"),
    "control": (
        {"source": "navigation", "shots": 2},
        {"method": "maml", "architecture": MLP, "update": {"rate": 0.1, "steps": 1}},
        "rows",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_episodes_are_played_again_with_the_recorded_scores(case: str, tmp_path: Path, table: Path) -> None:
    tasks, learner, kind = CASES[case]
    if tasks["source"] == "arrays":
        drawn = np.random.default_rng(0).random((80, 3, 5, 5)).astype(np.float32)
        np.savez(tmp_path / "arrays.npz", x=drawn, y=np.arange(80) // 8)
        tasks = {**tasks, "path": str(tmp_path / "arrays.npz")}
    tasks = {**tasks, "path": str(table)} if tasks["source"] == "table" else tasks
    made = trained(tmp_path, tasks, learner, repeat=1 if case == "table" else 0)
    assert {row["phase"] for row in made.rows} == set(names.PHASES) - ({names.TRAIN} if case == "inputs" else set())
    player = Player.of(made.directory, cache=made.cache)
    for row in made.rows:
        found = replayed(made.request(row)) if row is made.rows[-1] else None
        other = player if of_part(row["part"])[0] in (None, 3) else Player.of(made.directory, cache=made.cache,
                                                                              part=row["part"])  # fmt: skip
        sampled = other.draw(row["phase"], row["episode"])
        assert recorded(made.request(row)["record"]).is_of(sampled)
        if row["phase"] == names.TRAIN or row["step"] != player.step:
            continue
        played = other.play(sampled)
        torch.testing.assert_close(played.losses, tuple(row["losses"]), rtol=0, atol=0)
        assert played.accuracies == tuple(row["accuracies"])
        if case != "control":
            assert len(played.predictions) == len(row["losses"])
    assert found is not None
    document = json.loads(json.dumps(found))
    assert document["episode"]["kind"] == kind
    assert document["episode"]["same"]
    assert document["trials"]["0"]["same"]
    assert len(document["episode"]["queries"]) == document["episode"]["of_queries"]
    if kind == "images":
        assert base64.b64decode(document["episode"]["queries"][0]["shown"]).startswith(b"\x89PNG")
    if kind == "series":
        assert len(document["episode"]["support"][0]["shown"][0]) > 9
    if kind == "rows" and case != "control":
        assert document["episode"]["columns"] == ["f0", "f1", "f2"]
        assert document["episode"]["classes"][0].startswith(HOSTILE)


def test_an_episode_of_other_data_is_not_called_the_same(tmp_path: Path) -> None:
    made = trained(tmp_path, SINES, CASES["sines"][1])
    assert not replayed(made.request(made.rows[0], seed=5))["episode"]["same"]
    assert not replayed(made.request(made.rows[0], sample_ids=[1]))["trials"]["0"]["same"]


def test_the_process_answers_and_says_what_is_wrong(tmp_path: Path, table: Path) -> None:
    made = trained(tmp_path, {**TABLE, "path": str(table)}, CASES["prototypes"][1])
    request = {"kind": "episode", **made.request(made.rows[0])}
    command = [sys.executable, "-m", "metaloom.workers.replaying"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{json.dumps(request)}\n")
        process.stdin.flush()
        (line,) = process.stdout.readlines()
    assert json.loads(line)["result"]["episode"]["same"]
    (answer,) = answers({**request, "trials": {"0": str(tmp_path / "absent")}})
    assert "no trial is here" in answer["problem"]


def test_confusions_count_every_query(tmp_path: Path, table: Path) -> None:
    made = trained(tmp_path, {**TABLE, "path": str(table)}, CASES["prototypes"][1])
    request = {"kind": "confusions", "trial": str(made.directory), "cache": str(made.cache), "phase": "test"}
    *progress, last = answers({**request, "episodes": 6})
    assert [one["done"] for one in progress] == [1, 2, 3, 4, 5, 6]
    found, player, scores = last["result"], Player.of(made.directory, cache=made.cache), dict[int, list[float]]()
    wrong = 0
    for number in range(6):
        sampled = player.draw("test", number)
        right = player.play(sampled).predictions[-1].argmax(1) == sampled.episode.query_y
        wrong += int((~right).sum())
        for label, own in enumerate(sampled.class_ids):
            scores.setdefault(own, []).append(float(right[sampled.episode.query_y == label].double().mean()))
    assert found["of_classes"] == len(scores)
    for one in found["classes"]:
        assert (one["mean"], one["low"], one["high"]) == pytest.approx(
            mean_interval(scores[one["id"]], metric="accuracy")
        )
    assert sum(one["count"] for one in found["pairs"]) == wrong
    sines = trained(tmp_path / "sines", SINES, CASES["sines"][1])
    *_, answer = answers({**request, "trial": str(sines.directory), "cache": str(sines.cache), "episodes": 2})
    assert "have no classes" in answer["problem"]


def test_a_share_is_of_the_queries_beside_the_other_class() -> None:
    class Drawn:
        query_y = torch.tensor([0, 0, 1, 1])

    found = Confusions()
    answer = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.1, 0.9], [0.3, 0.7]])
    found.add(SampledEpisode(Drawn(), 0, (7, 4), ()), answer)  # type: ignore[arg-type]
    found.add(SampledEpisode(Drawn(), 0, (7, 5), ()), answer.flip(1))  # type: ignore[arg-type]
    pairs = {tuple(one["ids"]): (one["count"], one["share"]) for one in found.document(str)["pairs"]}
    assert pairs == {(7, 4): (1, 0.5), (7, 5): (1, 0.5), (5, 7): (2, 1.0)}


def test_the_name_of_a_tests_part_holds_its_seed_and_sizes() -> None:
    directory = Path("trial")
    sizes = {"ways": 3, "shots": 5}
    assert of_part(names.part_of_test(directory, 17, sizes).name) == (17, sizes)
    assert of_part(names.part_of_test(directory, 0).name) == (0, {})
    assert of_part(names.part_name(0, 10)) == (None, {})


def test_code_of_a_users_own_does_not_run_for_a_page(tmp_path: Path) -> None:
    learner = {
        "method": "maml",
        "architecture": {"of": "tests.support.modules:Small"},
        "update": {"rate": 0.1, "steps": 1},
    }
    config = TrialConfig("first", 0, 0, dict(SINES), learner, {}, {}, {})
    directory = tmp_path / "trial"
    directory.mkdir()
    (directory / names.CONFIG_FILE).write_text(json.dumps(config.to_json()))
    from metaloom.workers.checkpoint import write_knowledge

    write_knowledge(directory / names.META_KNOWLEDGE_FILE, {"phi": {"a": torch.zeros(1)}}, {"step": "0"})
    with pytest.raises(LearnerError, match="trust"):
        Player.of(directory, cache=tmp_path)
