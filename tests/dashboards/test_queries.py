"""What the reading side tells is what the journal and the Parquet parts hold."""

import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from metaloom.dashboards import queries
from metaloom.dashboards.drivers import is_alive
from metaloom.dashboards.filters import FilterError
from metaloom.orchestrator.journal import Journal, Mark
from metaloom.workers.records import names as records
from metaloom.workers.records.journal import RecordsError
from tests.dashboards.conftest import SUGGESTED, Write, episode, report, story

STARTED = (records.SEARCH_STARTED, None, {"pid": 0, "host": "elsewhere"})
ENDED = (records.SEARCH_ENDED, None, {"state": "finished"})
WriteEpisodes = Callable[[str, int, list[dict[str, Any]]], Path]
DOCUMENT = {"name", "state", "tracking_uri", "experiment_id", "parent_run_id", "objectives", "best", "trials"}
TRIAL = {"id", "state", "value", "interval", "episodes", "knobs", "steps", "seconds", "run_id", "error"}


def test_the_summary_is_the_documented_one(tmp_path: Path, write_search: Write) -> None:
    folder = write_search("first", [STARTED, *story({0: 0.7, 1: 0.9}), ENDED])
    journal = Journal(folder)
    journal.set_mark(records.MLFLOW_MARK, Mark(3, '{"parent_run_id": "p", "runs": {"1": "r1"}}'))
    summary = queries.search_summary(tmp_path, "first")
    assert set(summary) >= DOCUMENT
    assert all(set(trial) >= TRIAL for trial in summary["trials"])
    assert (summary["state"], summary["parent_run_id"], summary["best"]["id"]) == ("finished", "p", 1)
    assert [trial["run_id"] for trial in summary["trials"]] == [None, "r1"]
    best = summary["best"]
    assert best["interval"] == pytest.approx([0.85, 0.95])
    assert (best["value"], best["steps"], best["seconds"], best["episodes"]) == (0.9, 20, 20.0, 3)
    assert best["knobs"] == {"learner.update.rate": 0.2}


def test_a_baseline_of_an_old_record_is_compared_with_nothing(tmp_path: Path, write_search: Write) -> None:
    evaluation = {"metric": "accuracy", "mean": 0.8, "interval": [0.7, 0.9], "episodes": 3}
    difference = {"mean": float("nan"), "interval": [float("nan")] * 2, "episodes": 3}
    old = {"method": "fine_tuning", "evaluation": evaluation}
    new = {"method": "maml", "evaluation": evaluation, "best_better_by": difference}
    write_search("first", [STARTED, *story({0: 0.7}), *[(records.BASELINE, None, one) for one in (old, new)], ENDED])
    shown = queries.search_summary(tmp_path, "first")["baselines"]
    no_number = {"mean": None, "interval": [None, None], "episodes": 3}
    assert shown == [{**old, "best_better_by": None}, {**new, "best_better_by": no_number}]


def test_each_way_a_trial_can_go_has_its_state(tmp_path: Path, write_search: Write) -> None:
    knobs = {"knobs": {}, "attempt": 1, **SUGGESTED}
    begun = [(kind, n, knobs) for n in range(4) for kind in (records.TRIAL_SUGGESTED, records.TRIAL_STARTED)]
    events = [
        STARTED,
        *begun,
        (records.TRIAL_SUGGESTED, 4, knobs),
        (records.TRIAL_REPORTED, 0, {"report": report(10, 0.4)}),
        (records.TRIAL_STOPPED, 0, {"reason": "worse", "value": 0.4, "values": {records.VALIDATION_ACCURACY: 0.4}}),
        (records.TRIAL_FAILED, 1, {"reason": "loss is nan at step 3", "traceback": "..."}),
        (records.TRIAL_INTERRUPTED, 2, {"reason": "worker lost", "lost": True}),
    ]
    write_search("first", events)
    trials = queries.search_summary(tmp_path, "first")["trials"]
    assert [trial["state"] for trial in trials] == ["stopped", "failed", "waiting", "running", "waiting"]
    assert trials[1]["error"] == "loss is nan at step 3"
    assert trials[1]["value"] is None
    assert trials[0]["notes"] == ["stopped: worse"]


def test_a_killed_driver_leaves_no_running_trial(tmp_path: Path, write_search: Write) -> None:
    # This process was begun after the event of 1970: the pid is another's by now.
    killed = (records.SEARCH_STARTED, None, {"pid": os.getpid(), "host": socket.gethostname()})
    write_search("first", [killed, *story({0: 0.7})[:3]])
    summary = queries.search_summary(tmp_path, "first")
    assert (summary["state"], summary["trials"][0]["state"]) == ("interrupted", "waiting")


def test_a_step_reported_again_counts_once(tmp_path: Path, write_search: Write) -> None:
    again = (records.TRIAL_REPORTED, 0, {"report": report(10, 0.3)})
    write_search("first", [STARTED, *story({0: 0.7})[:3], again])
    trial = queries.search_record(tmp_path, "first").trials[0]
    assert [one.step for one in trial.reports] == [10]
    assert trial.last is not None and trial.last.metrics[records.VALIDATION_ACCURACY] == 0.3


def test_several_objectives_have_a_front_of_what_nothing_betters(tmp_path: Path, write_search: Write) -> None:
    aims = [
        {"metric": records.VALIDATION_ACCURACY, "direction": "maximize"},
        {"metric": records.PARAMETERS, "direction": "minimize"},
    ]
    events: list[Any] = [STARTED]
    for trial, (accuracy, parameters) in enumerate([(0.9, 100.0), (0.8, 50.0), (0.7, 60.0), (0.95, 900.0)]):
        values = {records.VALIDATION_ACCURACY: accuracy, records.PARAMETERS: parameters}
        events += [
            (records.TRIAL_SUGGESTED, trial, {"knobs": {}, **SUGGESTED}),
            (records.TRIAL_REPORTED, trial, {"report": report(10, accuracy, parameters=parameters)}),
            (records.TRIAL_FINISHED, trial, {"values": values}),
        ]
    limits = [{"metric": records.PARAMETERS, "min": None, "max": 500}]
    write_search("first", events, objectives=aims, constraints=limits)
    summary = queries.search_summary(tmp_path, "first")
    assert summary["pareto"] == [0, 1]  # 2 is bettered by 1, 3 breaks the constraint
    assert summary["best"]["id"] == 0
    assert summary["trials"][1]["values"] == {records.VALIDATION_ACCURACY: 0.8, records.PARAMETERS: 50.0}


def test_a_driver_that_was_killed_and_not_yet_waited_for_runs_no_longer() -> None:
    with subprocess.Popen(["sleep", "60"]) as driver:
        process = {"pid": driver.pid, "host": socket.gethostname(), "time": time.time()}
        assert is_alive(process)
        driver.kill()
        while psutil.Process(driver.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert not is_alive(process)


def test_no_trial_is_the_best_where_all_break_the_constraints(tmp_path: Path, write_search: Write) -> None:
    limits = [{"metric": records.VALIDATION_ACCURACY, "min": 0.9, "max": None}]
    write_search("first", [STARTED, *story({0: 0.7, 1: 0.8})], constraints=limits)
    summary = queries.search_summary(tmp_path, "first")
    assert summary["best"] is None and summary["constraints"] == limits
    assert summary["infeasible"] == {"0": pytest.approx(0.2), "1": pytest.approx(0.1)}
    assert queries.list_searches(tmp_path)[0]["best"] is None


def test_what_json_cannot_say_is_null(tmp_path: Path, write_search: Write) -> None:
    odd = report(10, 0.5, train_loss=float("nan"))
    odd["interval"] = [float("nan"), float("inf")]
    write_search("first", [STARTED, (records.TRIAL_REPORTED, 0, {"report": odd})])
    assert queries.search_summary(tmp_path, "first")["trials"][0]["interval"] == [None, None]


def test_searches_are_listed_newest_first(tmp_path: Path, write_search: Write) -> None:
    assert queries.list_searches(tmp_path) == []
    write_search("first", [STARTED, *story({0: 0.7}), ENDED])
    row = queries.list_searches(tmp_path)[0]
    assert (row["name"], row["state"], row["trials"]["finished"], row["best"]) == ("first", "finished", 1, 0)


@pytest.mark.parametrize("name", ["frist", "../first", "/etc", ".hidden", ""])
def test_an_unknown_name_is_refused_and_never_leaves_the_store(tmp_path: Path, write_search: Write, name: str) -> None:
    write_search("first", [])
    with pytest.raises(queries.QueryError, match="allowed: first"):
        queries.search_summary(tmp_path, name)


def test_a_damaged_journal_is_read_from_its_copies_with_a_warning(tmp_path: Path, write_search: Write) -> None:
    folder = write_search("first", [STARTED, *story({0: 0.7}), ENDED])
    whole = queries.search_summary(tmp_path, "first")
    (folder / records.JOURNAL_FILE).write_bytes(b"not a database, and long enough to be looked at" * 100)
    shown = queries.search_summary(tmp_path, "first")
    (warning,) = shown.pop("warnings")
    assert "is not a database" in warning and warning.endswith("mend it with: metaloom repair first")
    assert whole.pop("warnings") == [] and shown == whole


def test_a_journal_of_which_nothing_is_left_hides_no_other_search(tmp_path: Path, write_search: Write) -> None:
    write_search("good", [STARTED, *story({0: 0.7}), ENDED])
    bad = write_search("bad", [STARTED, *story({0: 0.7}), ENDED])
    (bad / records.TRIALS_FOLDER / "0000").mkdir(parents=True)
    for name in (records.JOURNAL_LOG, *records.JOURNAL_BACKUPS):
        (bad / name).unlink(missing_ok=True)
    (bad / records.JOURNAL_FILE).write_bytes(b"")
    (tmp_path / "searches" / "begun").mkdir()
    with pytest.raises(RecordsError, match="no event of search 'bad' can be read; see: metaloom repair bad"):
        queries.search_summary(tmp_path, "bad")
    with pytest.raises(queries.QueryError, match=r"search 'begun' has no records.*begin it by the same command"):
        queries.search_summary(tmp_path, "begun")
    listed = {row["name"]: row for row in queries.list_searches(tmp_path)}
    assert {name: row["state"] for name, row in listed.items()} == {
        "good": "finished",
        "bad": "unreadable",
        "begun": "empty",
    }
    assert listed["good"]["value"] == 0.7 and listed["good"]["warnings"] == []
    assert all("metaloom repair bad" in line for line in listed["bad"]["warnings"])


def test_a_store_that_cannot_be_written_is_read(tmp_path: Path, write_search: Write) -> None:
    folder = write_search("first", [STARTED, *story({0: 0.7}), ENDED])
    (folder / records.JOURNAL_FILE).chmod(0o400)
    folder.chmod(0o500)
    try:
        assert queries.search_summary(tmp_path, "first")["best"]["value"] == 0.7
    finally:
        folder.chmod(0o700)


def test_episodes_are_filtered_and_counted(tmp_path: Path, write_search: Write, write_episodes: WriteEpisodes) -> None:
    write_search("first", [])
    for trial in (0, 1):
        write_episodes("first", trial, [episode(trial, "train", n, 0.5) for n in range(3)])
        write_episodes("first", trial, [episode(trial, "validation", n, 0.9 + 0.01 * n) for n in range(5)])

    def asked(**filters: Any) -> queries.EpisodeRows:
        return queries.episode_rows(tmp_path, "first", **filters)

    assert asked().total == 16
    assert [row["trial"] for row in asked(limit=9).rows] == [0] * 8 + [1]
    assert asked(trial=1, phase="validation").total == 5
    found = asked(where="accuracy_after > 0.92 and phase == 'validation'", limit=3)
    assert (found.total, len(found.rows)) == (4, 3)
    assert found.rows[0]["accuracies"] == pytest.approx([0.2, 0.93])
    assert asked(phase="train", where="trial == 0 or trial == 1").total == 6  # the phase holds for both sides
    assert asked(limit=0) == queries.EpisodeRows([], 16)


@pytest.mark.parametrize(
    ("filters", "told"),
    [
        ({"phase": "valid"}, "did you mean 'validation'"),
        ({"trial": 7}, "no records of trial 7"),
        ({"limit": -1}, "at least 0"),
        ({"where": "phase > 3"}, "different kinds"),
        ({"where": "losses > 3"}, "different kinds"),
    ],
)
def test_a_wrong_filter_is_explained(
    tmp_path: Path, write_search: Write, write_episodes: WriteEpisodes, filters: dict[str, Any], told: str
) -> None:
    write_search("first", [])
    write_episodes("first", 0, [episode(0, "train", 0, 0.5)])
    with pytest.raises((queries.QueryError, FilterError), match=told):
        queries.episode_rows(tmp_path, "first", **filters)


def test_a_torn_part_is_named(tmp_path: Path, write_search: Write, write_episodes: WriteEpisodes) -> None:
    write_search("first", [])
    path = write_episodes("first", 0, [episode(0, "train", 0, 0.5)])
    path.write_bytes(path.read_bytes()[:50])
    (torn,) = queries.episode_rows(tmp_path, "first").damaged
    assert (torn.trial, torn.path) == (0, path) and torn.reason.startswith("it is no whole Parquet file (")
