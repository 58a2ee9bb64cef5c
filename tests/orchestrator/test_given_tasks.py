"""Searches of data that are given from Python: begun, resumed from the cache, and refused where the data are gone."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from metaloom import check, resume, search, train
from metaloom.learners.errors import BadInput
from metaloom.orchestrator.data_cache import clean
from metaloom.orchestrator.errors import SearchError

X = np.random.default_rng(0).normal(size=(60, 4))
Y = np.arange(60) % 3
TASKS = {"x": X + Y[:, None], "y": Y, "episodes": "single_task"}
EXPERIMENT: dict[str, Any] = {
    "name": "given",
    "learner": {"method": "cross_entropy", "architecture": {"kind": "mlp", "hidden": [4]}},
    "outer": {"steps": 4, "validate_every": 4, "rate": {"search": {"low": 0.001, "high": 0.1, "log": True}}},
    "search": {"trials": 1},
}


def test_a_search_goes_on_with_the_data_in_the_cache(tmp_path: Path) -> None:
    store = tmp_path / "store"
    summary = search(EXPERIMENT, tasks=TASKS, store=store, executor="inline")
    assert summary.state == "finished" and summary.tested is not None
    assert clean(store)  # the standardized copy
    given = list((store / "cache" / "given").glob("*.arrow"))
    assert len(given) == 1
    assert resume("given", store, trials=2).state == "finished"
    given[0].unlink()
    with pytest.raises(BadInput, match=r"the data that were given from Python .* give the same data again"):
        resume("given", store, trials=3)
    with pytest.raises(SearchError, match="was begun on other data"):
        resume("given", store, trials=3, tasks={**TASKS, "x": X})
    assert resume("given", store, trials=3, tasks=TASKS).state == "finished"


def test_an_experiment_may_hold_the_data(tmp_path: Path) -> None:
    columns = {"width": [float(row) for row in range(60)], "kind": ["abc"[row % 3] for row in range(60)]}
    tasks = {"data": pa.table(columns), "label": "kind", "episodes": "single_task"}
    summary = train({**EXPERIMENT, "tasks": tasks}, store=tmp_path / "store")
    assert summary.state == "finished"
    path = tmp_path / "own.yaml"
    path.write_text("learner: prototypical\nouter: {steps: 2, validate_every: 2}\n")
    few_shot = {"x": np.repeat(np.arange(12.0)[:, None], 20, axis=0), "y": np.repeat(np.arange(12), 20), "ways": 2}
    again = train(path, tasks=few_shot, store=tmp_path / "store")
    assert (again.name, again.state) == ("own", "finished")


def test_a_check_takes_data_and_leaves_no_search(tmp_path: Path) -> None:
    learner = {"method": "meta_weight_net", "architecture": {"kind": "mlp", "hidden": [4]}}
    document = check({"learner": learner, "tasks": TASKS}, store=tmp_path / "store")
    assert set(document["knobs"]) == {"learner.weighting"}
    assert list((tmp_path / "store").glob("searches/*")) == []


def test_what_is_wrong_with_the_data_is_said_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="x holds 60 examples, and y 5 labels"):
        search(EXPERIMENT, tasks=(X, Y[:5]), store=tmp_path / "store", executor="inline")
    assert not (tmp_path / "store").exists()
    with pytest.raises(BadInput, match=r"tasks.ways: a setting of few_shot episodes"):
        search(EXPERIMENT, tasks={**TASKS, "ways": 3}, store=tmp_path / "store", executor="inline")
    assert list((tmp_path / "store").glob("searches/*")) == []
