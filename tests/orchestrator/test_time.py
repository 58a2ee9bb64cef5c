"""Time budgets over kills and set clocks, their extension, and trials that hang."""

import itertools
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from metaloom.dashboards import queries
from metaloom.orchestrator.clock import note_time, noted_time, steady_clock
from metaloom.orchestrator.director import Director
from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.executors import watching
from metaloom.orchestrator.executors.inline import InlineExecutor
from metaloom.orchestrator.extending import Extension, extend
from metaloom.orchestrator.interruption import Interruption, every_second
from metaloom.orchestrator.journal import Journal
from metaloom.testing import toy
from metaloom.workers.heartbeat import Heartbeat, last_beat, process_of
from metaloom.workers.records import names as records
from metaloom.workers.records.search import SearchRecord
from tests.orchestrator.test_faults import SECTION, start, state_of

DAY_S = 86_400.0
HUNG = "it showed no progress for 2 s (search.trial_timeout_s)"


def go_on(folder: Path, *, clock: Callable[[], float] | None = None, **outer: Any) -> Director:
    director = Director(Journal(folder), toy.ToySpace(outer), clock=clock)
    director.start()
    return director


def run_inline(director: Director) -> Director:
    InlineExecutor(Interruption()).run(director, toy.open_toy)
    return director


@pytest.mark.parametrize("jump", [DAY_S, -DAY_S])
def test_a_session_counts_its_own_time_whatever_the_wall_clock_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    director = toy.direct(tmp_path / "s", time_budget_s=1000.0)
    director.next_trial()
    real, began = time.time, time.monotonic()
    monkeypatch.setattr(time, "time", lambda: real() + jump)
    director.next_trial()
    assert not director.time_is_up() and director.state.elapsed_s <= time.monotonic() - began + 1.0
    director.journal.close()  # what kill -9 leaves
    again = go_on(tmp_path / "s")
    assert again.state.in_state(records.WAITING) and again.next_trial() is not None
    assert again.state.elapsed_s <= time.monotonic() - began + 1.0


def test_a_killed_session_counts_up_to_its_last_event_or_its_last_note(tmp_path: Path) -> None:
    now = [1000.0]
    director = Director(toy.create(tmp_path / "s", time_budget_s=100.0), toy.ToySpace(), clock=lambda: now[0])
    director.start()
    director.next_trial()
    now[0] += 5
    director.next_trial()
    director.journal.close()
    again = go_on(tmp_path / "s", clock=lambda: 5000.0)
    assert again.state.elapsed_s == 5.0  # the last event; not the time until this session
    again.journal.close()
    director = go_on(tmp_path / "s", clock=lambda: now[0])
    director.next_trial()
    now[0] += 7
    director.tick()
    director.journal.close()
    assert go_on(tmp_path / "s").state.elapsed_s == 12.0


def test_a_note_of_another_session_or_a_torn_one_counts_nothing(tmp_path: Path) -> None:
    note_time(tmp_path, 4, 7.5)
    assert (noted_time(tmp_path, 4), noted_time(tmp_path, 5)) == (7.5, 0.0)
    for torn in ("", "{", "[]", '{"session": 4}', '{"session": 4, "spent_s": null}'):
        (tmp_path / records.CLOCK_FILE).write_text(torn)
        assert noted_time(tmp_path, 4) == 0.0


def test_a_steady_clock_goes_on_evenly_from_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    before, clock = time.time(), steady_clock()
    assert before <= clock() <= time.time() + 0.1
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert clock() >= before


def cut_and_extended(folder: Path, budgets: list[float], **section: Any) -> tuple[Director, list[SearchRecord]]:
    """Run a search whose clock goes on by a second at every look, with one budget after the other."""
    journal, ended = toy.create(folder, **section, time_budget_s=budgets[0]), []
    for index, budget in enumerate(budgets):
        if index:
            extend(journal, Extension(budget))
        director = run_inline(go_on(folder, clock=map(float, itertools.count(int(1e6 * index))).__next__))
        director.end()
        ended.append(SearchRecord.replay(journal.events()))
    return director, ended


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_search_that_its_budget_ended_and_that_was_extended_is_the_search_without_one(
    tmp_path: Path, sampler: str
) -> None:
    options = {"startup_trials": 2} if sampler == "tpe" else {}
    section = {"sampler": {"kind": sampler, **options}, "scheduler": {"kind": "asha", "grace_steps": 1}, "trials": 7}
    whole = run_inline(toy.direct(tmp_path / "whole", **section))
    cut, ended = cut_and_extended(tmp_path / "cut", [10.0, 40.0, 1e6], **section)
    assert [(one.state, one.out_of_time) for one in ended] == [
        ("finished", True),
        ("finished", True),
        ("finished", False),
    ]
    assert [len(one.trials) for one in ended] == sorted({len(one.trials) for one in ended})
    assert all(one.cut_off() for one in ended[:2])
    assert toy.outcome(cut) == toy.outcome(whole)
    for trial in range(7):
        steps = [line["step"] for line in toy.truth(tmp_path / "cut", trial) if line["what"] == "step"]
        assert steps == sorted(set(steps))  # none was repeated


def test_an_extension_is_more_than_what_is_spent_and_tests_the_best_again(tmp_path: Path) -> None:
    director, _ = cut_and_extended(tmp_path / "searches" / "s", [10.0])
    director.note(records.BEST_TESTED, trial=0, evaluation={})
    director.note(records.BASELINE, method="a", evaluation={})
    spent = director.state.elapsed_s
    with pytest.raises(SearchError, match=f"has spent {spent:.1f} s, so --time-budget 10 is no more time"):
        extend(director.journal, Extension(10.0))
    extend(director.journal, Extension(50.0))
    extended = SearchRecord.replay(director.journal.events())
    assert (extended.tested, extended.baselines) == (None, [])
    assert extended.settings is not None and extended.settings.time_budget_s == 50.0


def test_a_search_that_its_budget_ended_says_so(tmp_path: Path) -> None:
    cut_and_extended(tmp_path / "searches" / "s", [10.0])
    shown = queries.search_summary(tmp_path, "s")["time_budget"]
    tried = len(SearchRecord.replay(Journal(tmp_path / "searches" / "s").events()).trials)
    spent = shown.pop("spent")
    assert spent >= 10.0 and shown == {"seconds": 10.0, "has_ended_search": True, "tried": tried, "asked": 6}
    cut_and_extended(tmp_path / "searches" / "whole", [1e6])
    assert not queries.search_summary(tmp_path, "whole")["time_budget"]["has_ended_search"]


def test_a_trial_that_hangs_inline_is_resumed_and_at_last_failed(tmp_path: Path) -> None:
    whole = run_inline(toy.direct(tmp_path / "whole", trials=3))
    director = toy.direct(tmp_path / "s", toy.ToySpace({"hanging": {"0": 1, "2": 9}}), trials=3, retries=1)
    director.settings = director.settings.model_copy(update={"trial_timeout_s": 2.0})
    run_inline(director)
    again, never = director.state.trials[0], director.state.trials[2]
    assert (again.lost, again.attempts, never.attempts) == (1, 2, 2)
    assert never.reason == f"its worker was lost 2 times; the last time: {HUNG}"
    found, expected = toy.outcome(director), toy.outcome(whole)
    assert (found[0], found[1]) == (expected[0], expected[1]) and never.step == toy.HANGS_AT - 1


def test_a_spent_budget_ends_a_trial_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "BUDGET_GRACE_S", 1.0)
    journal = toy.create(tmp_path / "s", trials=3, time_budget_s=50.0)
    hangs = {"what": "step", "step": toy.HANGS_AT}

    def clock() -> float:
        return 100.0 * any(hangs.items() <= line.items() for line in toy.truth(tmp_path / "s", 1))

    director = Director(journal, toy.ToySpace({"hanging": {"1": 9}}), clock=clock)
    director.start()
    run_inline(director).end()
    finished, hung = director.state.trials[0], director.state.trials[1]
    assert (finished.state, hung.state, hung.reason) == (records.FINISHED, records.STOPPED, records.OUT_OF_TIME)
    assert hung.values == {records.VALIDATION_LOSS: hung.reports[-1].metrics[records.VALIDATION_LOSS]}
    assert director.state.out_of_time and len(director.state.trials) == 2


@pytest.fixture
def alarm() -> Iterator[list[int]]:
    """A caller's own alarm, far away."""
    rung: list[int] = []
    former = signal.signal(signal.SIGALRM, lambda number, frame: rung.append(number))
    left, interval = signal.setitimer(signal.ITIMER_REAL, 100.0)
    yield rung
    signal.signal(signal.SIGALRM, former)
    signal.setitimer(signal.ITIMER_REAL, left, interval)


def test_a_callers_own_alarm_is_put_off_and_kept(alarm: list[int]) -> None:
    with every_second(lambda: None):
        pass
    left, _ = signal.getitimer(signal.ITIMER_REAL)
    assert 0 < left <= 100.0 and not alarm
    signal.raise_signal(signal.SIGALRM)
    assert alarm == [signal.SIGALRM]


def test_a_heartbeat_changes_with_progress_and_names_its_process(tmp_path: Path) -> None:
    Heartbeat(tmp_path).beat()  # nobody has begun it
    assert last_beat(tmp_path) is None
    heartbeat = Heartbeat(tmp_path)
    heartbeat.begin()
    first = last_beat(tmp_path)
    time.sleep(0.02)
    heartbeat.beat()
    assert last_beat(tmp_path) not in (None, first)
    second = last_beat(tmp_path)
    heartbeat.beat()  # at once: it is not written
    assert last_beat(tmp_path) == second and process_of(tmp_path).host


def test_trials_that_hang_on_ray_are_ended_with_their_workers(tmp_path: Path) -> None:
    section = {**SECTION, "trials": 3, "scheduler": {"kind": "none"}, "trial_timeout_s": 2.0, "retries": 1}
    driver = start(tmp_path / "s", "ray", {"hanging": {"0": 1, "2": 9}}, section=section)
    _, errors = driver.communicate(timeout=90.0)
    assert driver.returncode == 0, errors
    state = state_of(tmp_path / "s")
    assert {number: trial.state for number, trial in state.trials.items()} == {
        0: "finished",
        1: "finished",
        2: "failed",
    }
    assert state.trials[2].reason == f"its worker was lost 2 times; the last time: {HUNG}"
    assert (state.trials[0].attempts, state.trials[0].step) == (2, toy.STEPS)
    whole = run_inline(toy.direct(tmp_path / "whole", **{**section, "trial_timeout_s": None})).state
    assert [one.scores for one in state.trials[0].reports] == [one.scores for one in whole.trials[0].reports]
    hung = [line["pid"] for line in toy.truth(tmp_path / "s", 2)]
    assert hung and not any(Path(f"/proc/{pid}").exists() for pid in hung)
