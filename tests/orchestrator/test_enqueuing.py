"""``metaloom enqueue``: a configuration is tried next, by a running search, after a kill and by a resume."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from metaloom.learners.errors import BadInput
from metaloom.orchestrator import inbox
from metaloom.orchestrator.api import resume, search
from metaloom.orchestrator.command_line import cli
from metaloom.orchestrator.director import Director
from metaloom.orchestrator.enqueuing import enqueue, settable_knobs
from metaloom.orchestrator.journal import Journal, writer_lock
from metaloom.search_spaces.errors import ExperimentError
from metaloom.testing import toy
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.search import SearchRecord
from tests.orchestrator.test_starting_points import FILE, record, run
from tests.support.databases import copy_mlflow_database

WIDE = {"learner.method": "wide", "rate": 0.125, "wide.width": 12}
START = [{"origin": "enqueued:0", "params": {"learner.method": "plain", "rate": 0.25}}]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a finished search, ``sine``."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "sine.yaml").write_text(FILE % (folder / "mlflow.db"))
    copy_mlflow_database(folder / "mlflow.db")
    search(folder / "sine.yaml", store=folder / "store", executor="inline", enqueue=[{"learner": "maml"}])
    return folder / "store"


@pytest.fixture
def store(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "store"))


def step(director: Director, trials: int) -> Director:
    """Run so many more trials to their end."""
    for _ in range(trials):
        assignment = director.next_trial()
        assert assignment is not None
        assignment.directory.mkdir(parents=True, exist_ok=True)
        trial = toy.open_toy(assignment.config, assignment.directory)
        while director.report(assignment.config.trial, trial.advance()) == "continue":
            pass
    return director


def killed(director: Director) -> Director:
    """Return the Director that goes on after a kill."""
    director.journal.close()  # type: ignore[attr-defined]
    again = Director(Journal(director.journal.folder), toy.ToySpace())
    again.start()
    return again


def best(store: Path) -> int:
    found = ranking.best(record(store, "sine"))
    assert found is not None
    return found.number


def origins(director: Director) -> list[str]:
    return [trial.origin for trial in director.state.trials.values()]


@pytest.mark.parametrize("sampler", ["random", "tpe", "cmaes", "nsga2", "evolution", "grid"])
def test_what_is_enqueued_is_tried_next_and_a_killed_search_goes_on_to_the_same_end(
    tmp_path: Path, sampler: str
) -> None:
    section: dict[str, Any] = {"sampler": {"kind": sampler}, "trials": 9}
    whole, cut = (step(toy.direct(tmp_path / name, warm_start=START, **section), 4) for name in ("whole", "cut"))
    for director in (whole, cut):
        inbox.put(director.journal.folder, WIDE)
    cut = killed(step(killed(cut), 1))
    assert not list((cut.journal.folder / records.ENQUEUED_FOLDER).iterdir())
    run(whole), run(cut)
    assert whole.state.trials[4].params == WIDE
    assert origins(whole) == ["enqueued:0", *[sampler] * 3, "enqueued:1", *[sampler] * 4]
    assert toy.outcome(cut) == toy.outcome(whole) and not whole.state.to_try()


def test_it_comes_before_what_the_search_began_with(tmp_path: Path) -> None:
    director = toy.direct(tmp_path / "s", warm_start=START, trials=3)
    inbox.put(director.journal.folder, WIDE)
    assert origins(run(director)) == ["enqueued:1", "enqueued:0", "random"]


def test_a_grid_leaves_out_no_point_for_it(tmp_path: Path) -> None:
    plain, director = (toy.direct(tmp_path / name, sampler={"kind": "grid"}, trials=99) for name in ("plain", "more"))
    inbox.put(step(director, 3).journal.folder, WIDE)
    found = [trial.params for trial in run(director).state.trials.values()]
    assert found[3] == WIDE
    assert found[:3] + found[4:] == [trial.params for trial in run(plain).state.trials.values()]


def test_a_request_that_was_journalled_before_a_kill_is_not_tried_twice(tmp_path: Path) -> None:
    director = toy.direct(tmp_path / "s", trials=4)
    request = inbox.put(director.journal.folder, WIDE)
    place = director.journal.folder / records.ENQUEUED_FOLDER / f"{request}.json"
    step(director, 1)
    place.write_text(json.dumps(WIDE))  # as if it had been killed before it removed the file
    director = run(killed(director))
    assert origins(director) == ["enqueued:0", "random", "random", "random"] and not place.exists()


def test_repeats_are_of_what_was_enqueued_too(tmp_path: Path) -> None:
    whole, cut = (step(toy.direct(tmp_path / name, trials=3, repeats=2), 2) for name in ("whole", "cut"))
    for director in (whole, cut):
        inbox.put(director.journal.folder, WIDE)
    cut = killed(step(cut, 1))
    run(whole), run(cut)
    assert [one.repeat_of for one in whole.state.trials.values() if one.params == WIDE] == [None, 2]
    assert toy.outcome(cut) == toy.outcome(whole)


def test_a_resume_with_more_trials_tries_first_what_a_finished_search_was_given(store: Path) -> None:
    values = {"learner": "anil", "learner[anil].update.rate": 0.0625}
    done = enqueue("sine", values, store=store)
    assert done.journalled and "--trials 4" in done.note
    resume("sine", store, trials=5)
    trials = record(store, "sine").trials
    assert trials[3].knobs == values and [trials[n].origin for n in (3, 4)] == ["enqueued:1", "random"]


def test_while_a_process_holds_the_search_a_request_waits(store: Path) -> None:
    folder = store / "searches" / "sine"
    with writer_lock(folder):
        done = enqueue("sine", {"learner": "maml"}, store=store)
        assert not done.journalled and inbox.waiting(folder) == [{"learner": "maml"}]
        assert not SearchRecord.read(folder).enqueued
    assert enqueue("sine", {"learner": "anil"}, store=store).journalled  # and the one before it
    assert [one["params"]["learner"] for one in SearchRecord.read(folder).enqueued] == ["maml", "anil"]


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        ({"learner.rate": 1}, r"^learner.rate: no searched knob is named 'learner.rate'"),
        ({"learner": "mamal"}, "^learner: cannot be mamal: it is searched in maml, anil"),
        ({"learner": "anil", "learner[anil].update.rate": 7}, r"\].update.rate: cannot be 7: .* \[0.01, 0.1\]"),
        ({"learner": "anil", "learner[anil].update.rate": True}, "cannot be True"),
        ({"learner": "maml", "learner[anil].update.rate": 0.05}, "has no effect where learner is maml"),
        ({"learner": "mamal", "rate": 1}, "the configuration has 2 problems"),
    ],
)
def test_what_cannot_be_tried_is_refused_with_its_knob(finished: Path, values: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ExperimentError, match=wrong):
        enqueue("sine", values, store=finished)
    assert not (finished / "searches" / "sine" / records.ENQUEUED_FOLDER).exists()


def test_a_search_without_knobs_and_one_that_is_not_there_are_refused(tmp_path: Path) -> None:
    store = tmp_path / "store"
    (tmp_path / "sine.yaml").write_text(FILE % (tmp_path / "mlflow.db"))
    copy_mlflow_database(tmp_path / "mlflow.db")
    fixed = ["learner=maml", "learner.update.rate=0.1"]
    search(tmp_path / "sine.yaml", store=store, executor="inline", overrides=fixed, trials=1)
    with pytest.raises(BadInput, match="has no searched knob"):
        enqueue("sine", {"learner": "maml"}, store=store)
    with pytest.raises(BadInput, match="did you mean 'sine'"):
        enqueue("sin", {"learner": "maml"}, store=store)


def test_the_command_shows_the_knobs_enqueues_and_places_each_problem(
    store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()

    def told(*options: str, code: int = 0) -> Any:
        assert cli.run(["enqueue", "sine", *options, "--json", "--store", str(store)]) == code
        return json.loads(capfd.readouterr().out)

    learner, *_, rate = told()["knobs"]
    assert (
        learner["name"] == "learner"
        and learner["options"] == ["maml", "anil"]
        and learner["value"] == record(store, "sine").trials[best(store)].knobs["learner"]
    )
    assert (rate["kind"], rate["low"], rate["high"]) == ("number", 0.01, 0.1)
    assert settable_knobs("sine", store=store)[0].kind == "choice"
    assert told("--set", "learner=anil")["params"] == {"learner": "anil"}
    wrong = told("--set", "learner=mamal", "--set", "learner[anil].update.rate=9", code=2)
    assert [one["place"] for one in wrong["problems"]] == ["learner", "learner[anil].update.rate"]
    assert "KNOB=VALUE" in told("--set", "learner", code=2)["error"]
    assert "twice" in told("--set", "learner=maml", "--set", "learner=anil", code=2)["error"]
