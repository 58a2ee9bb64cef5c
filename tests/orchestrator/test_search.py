"""The Director over real journals, with toy trials run inline."""

from dataclasses import replace
from pathlib import Path

import pytest

from metaloom.dashboards import queries
from metaloom.learners.errors import BadEnvironment
from metaloom.orchestrator.director import Director
from metaloom.orchestrator.executors.inline import InlineExecutor
from metaloom.orchestrator.interruption import Interruption
from metaloom.orchestrator.journal import Journal
from metaloom.orchestrator.messages import Assignment, Message
from metaloom.testing import toy
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.search import SearchRecord
from metaloom.workers.records.trial import Report


def run_inline(director: Director) -> Director:
    InlineExecutor(Interruption()).run(director, toy.open_toy)
    return director


def test_a_search_runs_all_its_trials_and_names_the_best(tmp_path: Path) -> None:
    director = run_inline(toy.direct(tmp_path / "s"))
    director.end()
    trials = director.state.trials
    assert sorted(trials) == list(range(6)) and director.is_over
    assert all(trial.state == records.FINISHED and trial.step == toy.STEPS for trial in trials.values())
    best = ranking.best(director.state)
    assert best is not None
    assert best.values[records.VALIDATION_LOSS] == min(t.values[records.VALIDATION_LOSS] for t in trials.values())
    assert director.state.state == "finished"


def test_a_replay_gives_the_state_back(tmp_path: Path) -> None:
    director = run_inline(toy.direct(tmp_path / "s", scheduler={"kind": "asha", "grace_steps": 2}))
    again = SearchRecord.replay(director.journal.events())
    assert again.trials == director.state.trials
    assert again.elapsed_s == director.state.elapsed_s


def test_a_trial_that_raises_fails_with_its_reason_and_the_search_goes_on(tmp_path: Path) -> None:
    director = run_inline(toy.direct(tmp_path / "s", toy.ToySpace({"fail_at": 4}), trials=3))
    director.end()
    assert [trial.state for trial in director.state.trials.values()] == [records.FAILED] * 3
    assert director.state.trials[0].reason == "the loss diverged at step 4"
    assert "TrialFailed" in (director.state.trials[0].traceback or "")
    assert director.state.state == "failed"


def test_a_nan_objective_fails_the_trial_with_its_reason(tmp_path: Path) -> None:
    director = run_inline(toy.direct(tmp_path / "s", toy.ToySpace({"nan_at": 3}), trials=2))
    assert [trial.state for trial in director.state.trials.values()] == [records.FAILED] * 2
    assert director.state.trials[1].reason == "validation_loss is nan at step 3"
    assert director.state.trials[1].step == 2


def test_an_objective_that_is_not_reported_fails_the_trial(tmp_path: Path) -> None:
    objectives = [{"metric": records.VALIDATION_ACCURACY, "direction": "maximize"}]
    director = run_inline(toy.direct(tmp_path / "s", trials=1, objectives=objectives))
    assert "no 'validation_accuracy'" in (director.state.trials[0].reason or "")


def test_knobs_that_do_not_fit_together_fail_that_trial_only(tmp_path: Path) -> None:
    director = run_inline(toy.direct(tmp_path / "s", toy.ToySpace(broken="wide"), trials=8))
    by_method = {trial.params["learner.method"]: trial.state for trial in director.state.trials.values()}
    assert by_method == {"plain": records.FINISHED, "wide": records.FAILED}
    assert len(director.state.trials) == 8


def first_report(folder: Path) -> tuple[Director, Report]:
    """Return a search of one trial, and what that trial first reports, which the search has not heard yet."""
    director = toy.direct(folder / "s", trials=1)
    assignment = director.next_trial()
    assert assignment is not None
    assignment.directory.mkdir(parents=True)
    return director, toy.open_toy(assignment.config, assignment.directory).advance()


def test_a_report_that_is_repeated_is_journalled_once(tmp_path: Path) -> None:
    director, report = first_report(tmp_path)
    assert director.report(0, report) == "continue"
    assert director.report(0, report) == "continue"
    assert len(director.state.trials[0].reports) == 1


def test_a_repeated_report_that_warns_is_dropped_but_not_its_warning(tmp_path: Path) -> None:
    director, report = first_report(tmp_path)
    director.report(0, report)
    assert director.report(0, replace(report, warnings=("checkpoint 2 is damaged",))) == "continue"
    told = director.journal.events()[-1]
    assert (told.kind, told.payload) == (records.TRIAL_WARNED, {"warnings": ["checkpoint 2 is damaged"]})
    assert len(director.state.trials[0].reports) == 1


def test_a_lost_worker_is_retried_twice_and_then_the_trial_has_failed(tmp_path: Path) -> None:
    director = toy.direct(tmp_path / "s", trials=1)
    for attempt in (1, 2, 3):
        assert director.next_trial() is not None
        assert director.state.trials[0].attempts == attempt
        director.lost(0, "out of memory")
    assert director.next_trial() is None and director.is_over
    assert director.state.trials[0].reason == "its worker was lost 3 times; the last time: out of memory"


def test_a_machine_at_fault_ends_the_search_and_the_trial_waits(tmp_path: Path) -> None:
    director = toy.direct(tmp_path / "s", trials=1)
    director.next_trial()
    with pytest.raises(BadEnvironment, match="no such device"):
        director.hear(Message(0, "here", problem="no such device", environment=True))
    assert director.state.trials[0].state == records.WAITING


def test_the_time_budget_stops_running_trials_and_begins_no_new_one(tmp_path: Path) -> None:
    now = [1000.0]
    journal = toy.create(tmp_path / "s", time_budget_s=10.0)
    director = Director(journal, toy.ToySpace(), clock=lambda: now[0])
    director.start()
    assignment = director.next_trial()
    assert assignment is not None
    assignment.directory.mkdir(parents=True)
    trial = toy.open_toy(assignment.config, assignment.directory)
    assert director.report(0, trial.advance()) == "continue"
    now[0] += 11
    assert director.report(0, trial.advance()) == "stop"
    assert director.state.trials[0].reason == "the time budget is spent"
    assert director.next_trial() is None and director.is_over


def test_the_best_trial_is_the_one_that_is_shown_whatever_state_it_is_in(tmp_path: Path) -> None:
    now, store = [1000.0], tmp_path / "store"
    journal = toy.create(store / "searches" / "s", time_budget_s=10.0)
    director = Director(journal, toy.ToySpace(), clock=lambda: now[0])
    director.start()

    def best() -> int | None:
        shown, known = queries.search_summary(store, "s")["best"], ranking.best(director.state)
        assert (shown and (shown["id"], shown["value"])) == (
            known and (known.number, ranking.value(director.state, known))
        )
        return None if known is None else known.number

    assert best() is None
    trials = [toy.open_toy(one.config, one.directory) for one in map(begun, [director] * 3)]
    assert best() is None
    for number, trial in enumerate(trials[:2]):
        director.report(number, trial.advance())
    assert best() is not None  # of those that run
    now[0] += 11
    assert [director.report(number, trial.advance()) for number, trial in enumerate(trials)] == ["stop"] * 3
    director.end()
    assert director.state.trials[best() or 0].state == records.STOPPED


def begun(director: Director) -> Assignment:
    assignment = director.next_trial()
    assert assignment is not None
    assignment.directory.mkdir(parents=True)
    return assignment


def test_time_between_sessions_does_not_count(tmp_path: Path) -> None:
    now = [1000.0]
    journal = toy.create(tmp_path / "s", time_budget_s=10.0)
    first = Director(journal, toy.ToySpace(), clock=lambda: now[0])
    first.start()
    now[0] += 70  # Ray starts
    assert first.next_trial() is not None
    now[0] += 4
    first.interrupt("SIGINT")
    now[0] += 500
    second = Director(journal, toy.ToySpace(), clock=lambda: now[0])
    second.start()
    now[0] += 80
    assert second.next_trial() is not None
    now[0] += 5
    assert second.next_trial() is not None
    now[0] += 2
    assert second.next_trial() is None


def test_constraints_put_infeasible_trials_last(tmp_path: Path) -> None:
    constraints = [{"metric": records.PARAMETERS, "max": 20}]
    director = run_inline(toy.direct(tmp_path / "s", trials=8, constraints=constraints))
    best = ranking.best(director.state)
    assert best is not None and best.reports[-1].metrics[records.PARAMETERS] <= 20


def test_several_objectives_have_a_pareto_front(tmp_path: Path) -> None:
    objectives = [
        {"metric": records.VALIDATION_LOSS, "direction": "minimize"},
        {"metric": records.PARAMETERS, "direction": "maximize"},
    ]
    director = run_inline(toy.direct(tmp_path / "s", trials=10, objectives=objectives))
    front = ranking.pareto_front(director.state)
    loss = [trial.values[records.VALIDATION_LOSS] for trial in front]
    size = [trial.values[records.PARAMETERS] for trial in front]
    assert len(front) >= 2
    assert [s for _, s in sorted(zip(loss, size, strict=True))] == sorted(size)
    for trial in director.state.trials.values():
        beaten = any(
            a <= trial.values[records.VALIDATION_LOSS] and b >= trial.values[records.PARAMETERS]
            for a, b in zip(loss, size, strict=True)
        )
        assert beaten


def test_a_killed_session_leaves_its_running_trial_waiting_for_the_next(tmp_path: Path) -> None:
    director = toy.direct(tmp_path / "s", trials=2)
    director.next_trial()
    director.journal.close()  # what kill -9 leaves
    again = Director(Journal(tmp_path / "s"), toy.ToySpace())
    again.start()
    assert again.state.trials[0].state == records.WAITING
    run_inline(again)
    assert [trial.state for trial in again.state.trials.values()] == [records.FINISHED] * 2
    assert again.state.trials[0].attempts == 2


@pytest.mark.parametrize("sampler", ["random", "tpe", "gp", "cmaes", "nsga2"])
@pytest.mark.parametrize("cut", [1, 4, 11])
def test_a_search_cut_anywhere_comes_to_the_same_end(tmp_path: Path, sampler: str, cut: int) -> None:
    """Cut after any number of messages: every suggestion, decision and metric is the uninterrupted search's."""
    options = {"startup_trials": 2} if sampler in {"tpe", "gp"} else {"population": 3} if sampler == "nsga2" else {}
    section = {"sampler": {"kind": sampler, **options}, "scheduler": {"kind": "asha", "grace_steps": 1}, "trials": 7}
    whole = run_inline(toy.direct(tmp_path / "whole", **section))
    director = toy.direct(tmp_path / "cut", **section)
    while not director.is_over:
        _run_messages(director, cut)
        director.journal.close()
        director = Director(Journal(tmp_path / "cut"), toy.ToySpace())
        director.start()
    assert toy.outcome(director) == toy.outcome(whole)


def _run_messages(director: Director, count: int) -> None:
    """Run ``count`` steps of trials; the last one's report reaches the checkpoint but not the journal."""
    from metaloom.orchestrator.executors.hosting import TrialHost

    host = TrialHost(toy.open_toy)
    for _ in range(20):
        assignment = director.next_trial()
        if assignment is None:
            break
        host.begin(assignment)
        going_on = True
        while going_on:
            message, count = host.step(), count - 1
            if count < 0:
                host.close()
                return
            going_on = director.hear(message)
    host.close()
