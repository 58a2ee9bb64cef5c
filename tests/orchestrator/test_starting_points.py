"""``search --enqueue``: given configurations are tried first; and ``search.patience``."""

from pathlib import Path
from typing import Any

import pytest

from metaloom.dashboards.queries import search_summary
from metaloom.learners.errors import BadInput
from metaloom.orchestrator.api import resume, search
from metaloom.orchestrator.director import Director
from metaloom.orchestrator.executors.inline import InlineExecutor
from metaloom.orchestrator.extending import Extension, extend
from metaloom.orchestrator.interruption import Interruption
from metaloom.orchestrator.journal import Journal
from metaloom.search_spaces.errors import ExperimentError
from metaloom.search_spaces.loading import load_experiment
from metaloom.testing import toy
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.search import SearchRecord
from tests.support.databases import copy_mlflow_database

FILE = """\
tasks: {source: sinusoid, shots: 5, queries: 5}
learner:
  search:
  - {method: maml, architecture: {kind: mlp, hidden: [8]}, update: {rate: {search: [0.01, 0.02]}, steps: 1}}
  - {method: anil, architecture: {kind: mlp, hidden: [8]}, update: {rate: {search: {low: 0.01, high: 0.1}}, steps: 1}}
outer: {steps: 2, meta_batch: 1, validate_every: 2, validation_episodes: 2, test_episodes: 2, strategy: loop}
search: {trials: 3, sampler: random}
tracking: {uri: "sqlite:///%s"}
"""
KNOBS = """\
- {learner: anil, "learner[anil].update.rate": 0.0625}
- learner: maml
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sine.yaml"
    path.write_text(FILE % (tmp_path / "mlflow.db"))
    copy_mlflow_database(tmp_path / "mlflow.db")
    (tmp_path / "knobs.yaml").write_text(KNOBS)
    return path


def record(store: Path, name: str) -> SearchRecord:
    return SearchRecord.read(store / "searches" / name)


def test_enqueued_configurations_are_tried_first_and_the_rest_is_drawn(tmp_path: Path, file: Path) -> None:
    store = tmp_path / "store"
    search(file, store=store, executor="inline", enqueue=tmp_path / "knobs.yaml")
    first, second, third = record(store, "sine").trials.values()
    assert first.knobs == {"learner": "anil", "learner[anil].update.rate": 0.0625}
    assert second.knobs["learner"] == "maml" and second.knobs["learner[maml].update.rate"] in ("0.01", "0.02")
    assert [one.origin for one in (first, second, third)] == ["enqueued:0", "enqueued:1", "random"]
    assert resume("sine", store, trials=4).state == "finished"  # the file with what was enqueued has not changed
    again = {"learner": "anil", "learner[anil].update.rate": 0.0625}
    search(file, store=store, executor="inline", enqueue=[again, {"learner": "maml"}], name="python")
    assert [one.knobs for one in record(store, "python").trials.values()] == [
        one.knobs for one in (first, second, third)
    ]


def test_the_file_itself_may_enqueue_before_a_warm_start(tmp_path: Path, file: Path) -> None:
    store = tmp_path / "store"
    search(file, store=store, executor="inline", name="old", trials=1)
    given = ["search.enqueue=[{learner: anil}]", "search.warm_start={search: old, trials: 1}"]
    notes = search(file, store=store, executor="inline", name="new", overrides=given, trials=2).notes
    assert [one.origin for one in record(store, "new").trials.values()] == ["enqueued:0", "warm_start:old/0"]
    assert not notes
    few = search(file, store=store, executor="inline", name="few", overrides=given[:1], enqueue=[{}, {}], trials=1)
    assert few.notes == ("2 configurations are enqueued, of which 1 will be tried",)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("- {learner: maml}\n- {learner.rate: 1}\n", "knobs.yaml:2: .*no searched knob is named 'learner.rate'"),
        ("{learner: mamal}", "knobs.yaml:1: .*learner cannot be mamal: it is searched in maml, anil"),
        (
            '{learner: maml, "learner[anil].update.rate": 0.05}',
            r"search.enqueue\[0\]: learner\[anil\].update.rate has no effect where learner is maml",
        ),
        ('{learner: anil, "learner[anil].update.rate": 7}', r"knobs.yaml:1: .*cannot be 7: .* \[0.01, 0.1\]"),
        ("3", "knobs.yaml: --enqueue: expected a list of mappings"),
        ("[1, 2]", "knobs.yaml: --enqueue: expected a list of mappings"),
        ("{a: [", "knobs.yaml:.*not valid YAML"),
    ],
)
def test_what_cannot_be_tried_names_its_place(tmp_path: Path, file: Path, text: str, wrong: str) -> None:
    (tmp_path / "knobs.yaml").write_text(text)
    with pytest.raises(BadInput, match=wrong):
        search(file, store=tmp_path / "store", executor="inline", enqueue=tmp_path / "knobs.yaml")
    assert not (tmp_path / "store").exists()


def test_a_missing_file_is_named(tmp_path: Path, file: Path) -> None:
    with pytest.raises(ExperimentError, match=r"gone.yaml: --enqueue: cannot read it: No such file"):
        search(file, store=tmp_path / "store", enqueue="gone.yaml")


def test_digests_of_earlier_searches_stay(file: Path) -> None:
    one, enqueued = load_experiment(file), load_experiment(file, ["search.enqueue=[{}]"])
    assert load_experiment(file, ["search.patience=3"]).fingerprint() == one.fingerprint()
    assert load_experiment(file, ["search.enqueue=[]"]).fingerprint() == one.fingerprint() != enqueued.fingerprint()


def run(director: Director) -> Director:
    InlineExecutor(Interruption()).run(director, toy.open_toy)
    director.end()
    return director


def losses(director: Director) -> list[float]:
    return [trial.values[records.VALIDATION_LOSS] for trial in director.state.trials.values()]


def first_stale(found: list[float], patience: int) -> int:
    """Return after how many trials ``patience`` of them have brought no gain; all, if there are none."""
    since = 0
    for index, loss in enumerate(found):
        since = 0 if loss < min(found[:index], default=float("inf")) else since + 1
        if since == patience:
            return index + 1
    return len(found)


@pytest.mark.parametrize("sampler", ["random", "tpe"])
@pytest.mark.parametrize("patience", [1, 3])
def test_a_search_without_gain_ends_and_goes_on_when_it_is_told(tmp_path: Path, sampler: str, patience: int) -> None:
    section: dict[str, Any] = {"sampler": {"kind": sampler}, "trials": 20}
    whole = run(toy.direct(tmp_path / "whole", **section))
    ended = first_stale(losses(whole), patience)
    director = run(toy.direct(tmp_path / "searches" / "s", **section, patience=patience))
    assert ended < 20 and losses(director) == losses(whole)[:ended] and director.state.no_gain
    shown = search_summary(tmp_path, "s")
    assert shown["patience"] == {"trials": patience, "without_gain": patience, "has_ended_search": True}
    extend(director.journal, Extension(trials=20))
    director.journal.close()
    again = Director(Journal(tmp_path / "searches" / "s"), toy.ToySpace())
    again.start()
    run(again)
    assert len(again.state.trials) >= ended + patience and losses(again) == losses(whole)[: len(again.state.trials)]


def test_a_killed_search_with_patience_comes_to_the_same_end(tmp_path: Path) -> None:
    section: dict[str, Any] = {"trials": 20, "patience": 3, "scheduler": {"kind": "asha", "grace_steps": 1}}
    whole = run(toy.direct(tmp_path / "whole", **section))
    director = toy.direct(tmp_path / "cut", **section)
    while not director.is_over:
        assert director.next_trial() is not None
        director.journal.close()
        director = Director(Journal(tmp_path / "cut"), toy.ToySpace())
        director.start()
        assignment = director.next_trial()
        assert assignment is not None
        trial = toy.open_toy(assignment.config, _made(assignment.directory))
        while director.report(assignment.config.trial, trial.advance()) == "continue":
            pass
    assert toy.outcome(director) == toy.outcome(whole)


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def test_failed_trials_bring_no_gain(tmp_path: Path) -> None:
    director = run(toy.direct(tmp_path / "s", toy.ToySpace({"fail_at": 2}), trials=9, patience=4))
    assert len(director.state.trials) == 4 and director.state.state == records.FAILED
    assert ranking.without_gain(director.state) == 4


def test_a_gain_among_several_objectives_is_a_trial_that_none_beats(tmp_path: Path) -> None:
    aims = [{"metric": records.VALIDATION_LOSS, "direction": "minimize"}]
    aims += [{"metric": records.PARAMETERS, "direction": "minimize"}]
    director = run(toy.direct(tmp_path / "s", objectives=aims, trials=12))
    front = {trial.number for trial in ranking.pareto_front(director.state)}
    assert ranking.without_gain(director.state) <= 11 - max(front)


def test_patience_does_not_go_with_a_population(file: Path) -> None:
    given = ["search.scheduler=pbt", "search.patience=3", "search.trials=8", "learner=maml"]
    with pytest.raises(ExperimentError, match=r"search.patience: pbt trains one population"):
        load_experiment(file, given)
