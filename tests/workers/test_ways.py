"""A learner trained on episodes of some number of classes, on those of another."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
import torch

from metaloom.learners.errors import LearnerError
from metaloom.search_spaces.loading import load_experiment
from metaloom.search_spaces.resolve import defaults, resolve
from metaloom.workers.data import DataError, open_source
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.scoring import evaluate_trial
from metaloom.workers.trial.runner import Trial
from metaloom.workers.ways import TooManyWays, at_ways, build_of, unused_outputs
from tests.support.episodes import read_episodes

LEARNED_COMPARISON: dict[str, dict[str, Any]] = {
    "relation": {"objective": "cross_entropy", "activation": "tanh", "combine": "mean"},
    "graph": {"width": 16},
}
METRIC = ("relation", "siamese", "matching", "matching_fce", "knn", "knn_inputs")
MODELS = ("cnaps", "simple_cnaps", "meta_networks")
BASELINES = ("nearest_neighbour", "fine_tuning", "joint_pretraining")
METHODS = (*METRIC, *MODELS, *BASELINES, "graph", "prototypical", "maml", "anil")
ANY = (*METRIC, *MODELS, *BASELINES, "prototypical")
VARYING = (
    "prototypical",
    "relation",
    "graph",
    "siamese",
    "matching_fce",
    "knn",
    *MODELS,
    "maml",
    "joint_pretraining",
)


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 classes in the plane, each a little cloud: easy, so that a right learner is far above chance."""
    path = tmp_path_factory.mktemp("points") / "points.csv"
    random = np.random.default_rng(0)
    centres = random.normal(0, 3, (30, 4)).repeat(12, 0)
    features = centres + random.normal(0, 0.2, centres.shape)
    labels = [f"c{label:02}" for label in range(30) for _ in range(12)]
    columns = {f"f{place}": features[:, place] for place in range(4)}
    pyarrow.csv.write_csv(pa.table({"label": labels, **columns}), str(path))
    return path


def trained(points: Path, directory: Path, method: str, steps: int = 30, **fields: Any) -> Trial:
    tasks = {"source": "table", "path": str(points), "label": "label", "ways": 4, "shots": 1, "queries": 3, **fields}
    learner: dict[str, Any] = {"method": method}
    outer = {"steps": steps, "validate_every": steps, "validation_episodes": 5, "meta_batch": 3, "rate": 0.01}
    if method not in ("nearest_neighbour", "knn_inputs"):
        learner["architecture"] = {"kind": "mlp", "hidden": [16]}
    if method in LEARNED_COMPARISON:
        learner["prediction"] = {"kind": method, **LEARNED_COMPARISON[method]}
        steps = 5 * steps if method == "relation" else steps
        outer |= {"steps": steps, "validate_every": steps}
    if method in ("maml", "anil", "fine_tuning", "joint_pretraining"):
        learner["update"] = {"rate": 0.5, "steps": 5}
    if method in ("nearest_neighbour", "knn_inputs", "fine_tuning"):
        outer["steps"] = 0
    strategy = {"strategy": "vmap"} if method in ("maml", "anil") and "evaluation" not in fields else {}
    experiment = load_experiment({"tasks": tasks, "learner": learner, "outer": {**outer, **strategy}})
    resolved = resolve(experiment, defaults(experiment))
    config = TrialConfig(
        search="ways",
        trial=0,
        seed=0,
        tasks=resolved.tasks,
        learner=resolved.learner,
        inner=resolved.inner,
        outer=resolved.outer,
        resources=resolved.resources,
    )
    trial = Trial(config, directory, cache=points.parent / "cache")
    while not trial.finished:
        trial.advance()
    return trial


@pytest.mark.parametrize("method", METHODS)
def test_a_trial_is_validated_and_tested_by_its_evaluation(method: str, points: Path, tmp_path: Path) -> None:
    trained(points, tmp_path, method, evaluation={"ways": 2, "shots": 3, "queries": 5})
    tested = evaluate_trial(tmp_path, cache=points.parent / "cache", episodes=40)
    rows = read_episodes(tmp_path / "episodes").to_pylist()
    sizes = {
        phase: {(r["ways"], r["shots"], r["queries"]) for r in rows if r["phase"] == phase}
        for phase in ("train", "validation", "test")
    }
    assert sizes["validation"] == sizes["test"] == {(2, 3, 5)}
    assert sizes["train"] in ({(4, 1, 3)}, set())
    assert tested.mean > 0.75
    assert all(score * 10 == pytest.approx(round(score * 10)) for score in tested.scores)  # tenths: 2 x 5 queries


@pytest.mark.parametrize("method", METHODS)
def test_another_number_of_ways_is_evaluated_or_refused(method: str, points: Path, tmp_path: Path) -> None:
    trained(points, tmp_path, method)
    cache = points.parent / "cache"
    own = evaluate_trial(tmp_path, cache=cache, episodes=10)
    if method in ANY:
        wide = evaluate_trial(tmp_path, cache=cache, episodes=10, sizes={"ways": 6, "shots": 2})
        assert {(fact.ways, fact.shots, fact.queries) for fact in wide.facts} == {(6, 2, 3)}
        assert wide.mean > 0.4
    else:
        places = ", or learner.prediction.most_ways" if method == "graph" else ""
        said = rf"6 ways, but the head that is learned has 4 outputs.*; raise tasks.ways{places}, or use .*prototypical"
        with pytest.raises(LearnerError, match=said):
            evaluate_trial(tmp_path, cache=cache, episodes=10, sizes={"ways": 6})
    assert evaluate_trial(tmp_path, cache=cache, episodes=10).scores == own.scores


@pytest.mark.parametrize("method", ["prototypical", "matching", "matching_fce", "siamese", "knn"])
def test_many_ways_in_training_serve_few_in_the_test(method: str, points: Path, tmp_path: Path) -> None:
    """As Snell et al. train prototypical networks."""
    held_out = {"validation_fraction": 0.17, "test_fraction": 0.17, "evaluation": {"ways": 5}}
    trained(points, tmp_path, method, ways=20, **held_out)
    tested = evaluate_trial(tmp_path, cache=points.parent / "cache", episodes=20)
    assert {(fact.ways, fact.shots, fact.queries) for fact in tested.facts} == {(5, 1, 3)}
    assert tested.mean > 0.75


def test_a_test_of_other_sizes_has_its_own_rows(points: Path, tmp_path: Path) -> None:
    trained(points, tmp_path, "prototypical")
    cache = points.parent / "cache"
    evaluate_trial(tmp_path, cache=cache, episodes=10)
    evaluate_trial(tmp_path, cache=cache, episodes=20, sizes={"shots": 5, "ways": 3})
    evaluate_trial(tmp_path, cache=cache, episodes=20, sizes={"ways": 4, "shots": 1})  # its own sizes
    tests = sorted(path.name for path in (tmp_path / "episodes").glob("part-test*"))
    assert tests == ["part-test-0-3-ways-5-shots.parquet", "part-test-0.parquet"]
    rows = [row for row in read_episodes(tmp_path / "episodes").to_pylist() if row["phase"] == "test"]
    assert sorted((row["ways"], row["shots"]) for row in rows) == [(3, 5)] * 20 + [(4, 1)] * 20


def test_sizes_that_the_data_do_not_have_are_refused(points: Path, tmp_path: Path) -> None:
    trained(points, tmp_path, "prototypical")
    with pytest.raises(DataError, match=r"tasks\.evaluation: 9 ways .* the validation split of table has 6"):
        evaluate_trial(tmp_path, cache=points.parent / "cache", sizes={"ways": 9})
    with pytest.raises(DataError, match=r"tasks\.evaluation: 10 shots and 3 queries need 13 samples"):
        evaluate_trial(tmp_path, cache=points.parent / "cache", sizes={"shots": 10})


@pytest.mark.parametrize("method", VARYING)
def test_ways_and_shots_that_vary_in_training(method: str, points: Path, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"ways": [2, 5], "shots": [1, 4], "evaluation": {"ways": 4, "shots": 2}}
    long = {"steps": 150} if method == "cnaps" else {}  # its classifier is generated from nothing but examples
    trial = trained(points, tmp_path / "whole", method, **long, **fields)
    rows = read_episodes(tmp_path / "whole" / "episodes").to_pylist()
    steps: dict[int, set[tuple[int, int]]] = {}
    for row in (row for row in rows if row["phase"] == "train"):
        steps.setdefault(row["step"], set()).add((row["ways"], row["shots"]))
        assert len(row["class_ids"]) == row["ways"]
    assert all(len(sizes) == 1 for sizes in steps.values())
    assert {ways for sizes in steps.values() for ways, _ in sizes} == {2, 3, 4, 5}
    assert {shots for sizes in steps.values() for _, shots in sizes} == {1, 2, 3, 4}
    assert evaluate_trial(tmp_path / "whole", cache=points.parent / "cache", episodes=40).mean > 0.7
    again = trained(points, tmp_path / "again", method, **long, **fields)
    assert all(torch.equal(one, again.phi[name]) for name, one in trial.phi.items())


def test_what_is_told_of_unused_outputs(points: Path, tmp_path: Path) -> None:
    for method, told in (
        ("maml", "the head that is learned has 4 outputs, of which 2-way episodes use 2"),
        ("prototypical", ""),
    ):
        trial = trained(points, tmp_path / method, method, steps=1)
        at = at_ways(trial.learner, 2, build_of(trial.config))
        assert unused_outputs(at, 2) == told
        assert at.learner.task.outputs == (4 if told else 2)


def test_a_fresh_head_keeps_the_body(points: Path, tmp_path: Path) -> None:
    trial = trained(points, tmp_path, "fine_tuning", steps=1)
    at = at_ways(trial.learner, 9, build_of(trial.config))
    state = at.state(trial.state, trial.device)
    assert state.theta["head.weight"].shape[0] == 9
    body = [name for name in state.theta if not name.startswith("head.")]
    assert body and all(torch.equal(state.theta[name], trial.state.theta[name]) for name in body)
    with pytest.raises(TooManyWays):
        maml = trained(points, tmp_path / "maml", "maml", steps=1)
        at_ways(maml.learner, 9, build_of(maml.config))


def test_single_task_sources_have_no_sizes(tmp_path: Path) -> None:
    from metaloom.search_spaces.sections.few_shot import with_evaluation

    assert open_source({"source": "digits"}, seed=0, cache=tmp_path).name == "digits"
    with pytest.raises(LearnerError, match=r"ways, shots: digits has test episodes of one kind; those of .*folder"):
        with_evaluation({"source": "digits"}, {"ways": 5, "shots": 1})
    sequences = {"source": "glyphs", "episodes": "sequences"}
    with pytest.raises(LearnerError, match=r"ways: glyphs with episodes: sequences has .*\(with episodes: few_shot\)"):
        with_evaluation(sequences, {"ways": 5})
