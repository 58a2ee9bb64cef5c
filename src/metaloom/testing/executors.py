"""What every executor must do: run a search's trials to the same end, whatever its workers are."""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from metaloom.learners.errors import BadEnvironment
from metaloom.orchestrator.director import Director
from metaloom.orchestrator.executors import EXECUTORS, ExecutorRequest
from metaloom.orchestrator.executors.base import Executor
from metaloom.orchestrator.executors.hosting import OpenTrial
from metaloom.orchestrator.executors.inline import InlineExecutor
from metaloom.orchestrator.interruption import Interruption, Stopped
from metaloom.testing import toy
from metaloom.testing.contract import Contract
from metaloom.workers.errors import StorageError
from metaloom.workers.records import names as records
from metaloom.workers.records.trial import TrialConfig

Make = Callable[[Interruption], Executor]
JUDGED: tuple[dict[str, Any], ...] = ({"kind": "asha", "grace_steps": 2}, {"kind": "pbt", "interval_steps": 3})


class Opened:
    """A registered executor, opened again for each run.

    Args:
        kind: Its name.
        interruption: Holds the signals.
    """

    def __init__(self, kind: str, interruption: Interruption) -> None:
        self._kind, self._interruption = kind, interruption

    def run(self, director: Director, open_trial: OpenTrial, *, concurrency: int = 1) -> None:
        """Run trials as a session does."""
        with EXECUTORS[self._kind].open(ExecutorRequest(self._interruption, concurrency=concurrency)) as opened:
            executor, at_a_time = opened
            executor.run(director, open_trial, concurrency=at_a_time)


def run(make: Make, director: Director, opening: OpenTrial = toy.open_toy, concurrency: int = 1) -> Director:
    """Run a search to its end."""
    make(Interruption()).run(director, opening, concurrency=concurrency)
    return director


def open_on_a_full_disk(config: TrialConfig, directory: Path) -> toy.ToyTrial:
    """Find the machine at fault."""
    raise StorageError("the disk is full")


def open_wrong(config: TrialConfig, directory: Path) -> toy.ToyTrial:
    """Open any trial but the second."""
    if config.trial == 1:
        raise ValueError("cannot be opened")
    return toy.open_toy(config, directory)


class ExecutorContract(Contract):
    """The contract of executors.

    Attributes:
        kinds: The executors' names.
    """

    kinds: Iterable[str] = ()

    def cases(self) -> Mapping[str, Iterable[Any]]:
        return {"executor": self.kinds, "scheduler": JUDGED}

    @pytest.fixture
    def make(self, executor: str) -> Make:
        """Return what makes the executor; override it where something must run beforehand."""
        return partial(Opened, executor)

    def test_one_at_a_time_gives_the_same_search(self, make: Make, tmp_path: Path, scheduler: dict[str, Any]) -> None:
        section: dict[str, Any] = {"scheduler": scheduler, "sampler": {"kind": "tpe", "startup_trials": 3}}
        expected = run(InlineExecutor, toy.direct(tmp_path / "inline", **section))
        director = run(make, toy.direct(tmp_path / "s", **section))
        assert director.is_over
        assert toy.outcome(director) == toy.outcome(expected)

    def test_several_at_a_time_run_every_trial_once(self, make: Make, tmp_path: Path) -> None:
        director = run(make, toy.direct(tmp_path / "s", trials=8), concurrency=2)
        assert [trial.state for trial in director.state.trials.values()] == [records.FINISHED] * 8
        for number in range(8):
            steps = [line["step"] for line in toy.truth(tmp_path / "s", number) if line["what"] == "step"]
            assert steps == list(range(1, toy.STEPS + 1))

    def test_failed_trials_do_not_end_the_search(self, make: Make, tmp_path: Path) -> None:
        director = run(make, toy.direct(tmp_path / "s", trials=3), open_wrong)
        states = [trial.state for trial in director.state.trials.values()]
        assert states == [records.FINISHED, records.FAILED, records.FINISHED]
        assert director.state.trials[1].reason == "ValueError: cannot be opened"
        assert "open_wrong" in (director.state.trials[1].traceback or "")

    def test_a_nan_fails_its_trial(self, make: Make, tmp_path: Path) -> None:
        director = run(make, toy.direct(tmp_path / "s", toy.ToySpace({"nan_at": 2}), trials=2))
        assert [trial.reason for trial in director.state.trials.values()] == ["validation_loss is nan at step 2"] * 2

    def test_a_machine_at_fault_ends_the_search(self, make: Make, tmp_path: Path) -> None:
        director = toy.direct(tmp_path / "s", trials=2)
        with pytest.raises(BadEnvironment, match="the disk is full"):
            run(make, director, open_on_a_full_disk)
        assert director.state.trials[0].state == records.WAITING

    def test_a_signal_leaves_the_loop_and_the_trial_waits(self, make: Make, tmp_path: Path) -> None:
        director = toy.direct(tmp_path / "s", toy.ToySpace({"seconds": 0.1}))
        interruption = Interruption()
        with interruption.installed():
            threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
            with pytest.raises(Stopped):
                make(interruption).run(director, toy.open_toy)
        director.interrupt("SIGTERM was received")
        assert not director.state.in_state(records.RUNNING)
        assert run(make, director).is_over
