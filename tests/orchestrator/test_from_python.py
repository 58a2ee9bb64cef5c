"""A search from Python: tables of its trials and reports, what can be done next, and representations of one line."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

import metaloom
from metaloom.dashboards import queries
from metaloom.orchestrator.errors import SearchError
from tests.orchestrator.test_stored_by_0_2 import EXPECTED, STORED

EXPERIMENT = {
    "tasks": {"source": "sinusoid", "shots": 5, "queries": 5},
    "learner": {
        "method": "maml",
        "update": {"rate": {"search": {"low": 0.003, "high": 0.03, "log": True}}, "steps": 1},
    },
    "outer": {"steps": 4, "meta_batch": 2, "validate_every": 2, "validation_episodes": 3, "test_episodes": 5},
    "search": {"trials": 3, "objectives": ["validation_loss", "adapt_seconds"], "baselines": []},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the finished search ``python``."""
    folder = tmp_path_factory.mktemp("store")
    summary = metaloom.search(EXPERIMENT, name="python", store=folder, executor="inline")
    assert repr(summary).startswith(f"<search 'python' finished; best trial {summary.best}: ")
    return folder


def test_a_search_is_a_table_of_its_trials(store: Path) -> None:
    search, shown = metaloom.load_search("python", store=store), queries.search_summary(store, "python")
    trials = search.trials
    assert isinstance(trials, pd.DataFrame) and list(trials.index) == [0, 1, 2]
    assert trials.index.name == "trial"
    for row in shown["trials"]:
        found = trials.loc[row["id"]]
        assert (found["state"], found["value"], found["steps"]) == ("finished", row["value"], 4)
        assert (found["low"], found["high"]) == tuple(row["interval"])
        assert found["learner.update.rate"] == row["knobs"]["learner.update.rate"]
        assert found["adapt_seconds"] == row["values"]["adapt_seconds"]
    best = search.best
    assert best is not None and best.number == trials["value"].idxmin() == shown["best"]["id"]
    assert (best.value, best.interval, best.knobs) == (
        shown["best"]["value"],
        tuple(shown["best"]["interval"]),
        shown["best"]["knobs"],
    )
    assert search.trial(2).directory == store / "searches" / "python" / "trials" / "0002"
    with pytest.raises(SearchError, match="has no trial 3; it has 0, 1, 2"):
        search.trial(3)
    with pytest.raises(SearchError, match="did you mean 'python'"):
        metaloom.load_search("pythom", store=store)


def test_learning_curves_have_a_row_a_report(store: Path) -> None:
    search = metaloom.load_search("python", store=store)
    curves = search.learning_curves()
    assert list(zip(curves["trial"], curves["step"], strict=True)) == [(t, s) for t in range(3) for s in (2, 4)]
    last = curves[curves["step"] == 4].set_index("trial")
    assert last["validation_loss"].to_dict() == search.trials["value"].to_dict()
    assert (last["low"] <= last["validation_loss"]).all() and {"train_loss", "hypergradient_norm"} <= set(curves)


def test_a_trial_is_evaluated_exported_and_compared(store: Path, tmp_path: Path) -> None:
    search = metaloom.load_search("python", store=store)
    trial = search.trial(0)
    evaluation = trial.evaluate(episodes=4)
    assert (evaluation.episodes, evaluation.metric) == (4, "loss")
    bundle = metaloom.load_bundle(trial.export(tmp_path / "bundle", episodes=0))
    adapted = bundle.adapt([[0.0], [1.0]], [0.5, 1.0])
    compared = metaloom.compare("python:0", "python:1", store=store, episodes=4)
    checked = metaloom.Experiment(**EXPERIMENT)
    texts = [repr(one) for one in (search, trial, evaluation, bundle, adapted, checked)]
    assert all(len(text) < 200 and "\n" not in text and text.startswith("<") for text in texts), texts
    assert "finished, 3 of 3 trials ended; best trial" in texts[0]
    assert texts[1].startswith("<trial 0 of 'python': finished, ") and "learner.update.rate=" in texts[1]
    assert texts[2].startswith("<test loss ") and texts[2].endswith(" over 4 episodes, inductive>")
    assert texts[3].endswith(": maml, regression, not tested>")
    assert texts[5] == "<experiment 'search': maml on sinusoid, seed 0>"
    assert len(repr(compared).splitlines()) == 3
    with pytest.raises(SearchError, match="at least two trials"):
        metaloom.compare("python", store=store)


def test_a_search_without_trials_is_an_empty_table(tmp_path: Path) -> None:
    store = Path(shutil.copytree(STORED / "store", tmp_path / "store"))
    search = metaloom.load_search("interrupted", store=store)
    empty = type(search)("x", store, {**search.summary, "trials": [], "best": None}, type(search.record)())
    assert empty.trials.empty and list(empty.trials)[:2] == ["state", "value"]
    assert empty.learning_curves().empty and empty.best is None
    assert repr(empty).endswith("no best trial>")
    assert search.state == "interrupted"
    assert search.resume().state == "finished"
    again = metaloom.load_search("interrupted", store=store)
    assert again.trials["value"].to_list() == pytest.approx([row["value"] for row in EXPECTED["resume"]["trials"]])


def test_every_public_name_is_there() -> None:
    for name in metaloom.__all__:
        assert callable(getattr(metaloom, name))
    assert {"compare", "check", "evaluate", "export", "load_search", "resume"} <= set(metaloom.__all__)
