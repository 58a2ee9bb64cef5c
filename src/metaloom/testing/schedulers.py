"""What every scheduler must do: decide by the journal alone, so that a search that was stopped goes on the same way."""

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from metaloom.learners.errors import BadInput
from metaloom.orchestrator.director import Director
from metaloom.orchestrator.executors.inline import InlineExecutor
from metaloom.orchestrator.interruption import Interruption, Stopped
from metaloom.orchestrator.journal import Journal
from metaloom.orchestrator.scheduling.base import CONTINUE, PAUSE, STOP, build_scheduler
from metaloom.search_spaces.sections.strategies import schedulers
from metaloom.testing import toy
from metaloom.testing.contract import Contract, misspelt_settings
from metaloom.workers.records import names as records
from metaloom.workers.records.trial import Report, TrialConfig

TRIALS = 8


class Interrupting(toy.ToyTrial):
    """A trial that stops the search after so many reports of all its trials."""

    def __init__(self, left: list[int], interruption: Interruption, config: TrialConfig, directory: Path) -> None:
        super().__init__(config, directory)
        self._left, self._interruption = left, interruption

    def advance(self) -> Report:
        """Take steps to the next report."""
        report = super().advance()
        self._left[0] -= 1
        if self._left[0] == 0:
            self._interruption.signal_number = 2
        return report


class SchedulerContract(Contract):
    """The contract of schedulers.

    Attributes:
        rows: A scheduler's name to settings that fit trials of nine steps with a report each.
    """

    rows: Mapping[str, Mapping[str, Any]] = {}

    def cases(self) -> Mapping[str, Iterable[Any]]:
        return {"scheduler": self.rows}

    def section(self, scheduler: str) -> dict[str, Any]:
        """Return the scheduler section of a search."""
        return {"kind": scheduler, **self.rows[scheduler]}

    def directed(self, scheduler: str, folder: Path) -> Director:
        """Make a search of eight trials with it."""
        return toy.direct(folder, scheduler=self.section(scheduler), trials=TRIALS)

    def test_a_setting_that_does_not_exist_is_refused(self, scheduler: str) -> None:
        for given, message in misspelt_settings(schedulers()[scheduler]).items():
            with pytest.raises(BadInput, match=message):
                build_scheduler({**self.section(scheduler), given: 1})

    def test_a_search_with_it_ends_and_every_trial_with_it(self, scheduler: str, tmp_path: Path) -> None:
        director = self.directed(scheduler, tmp_path / "s")
        InlineExecutor(Interruption()).run(director, toy.open_toy)
        assert director.is_over
        ends = [trial.state for trial in director.state.trials.values()]
        assert len(ends) == TRIALS and set(ends) <= {records.FINISHED, records.STOPPED}
        assert records.FINISHED in ends

    def test_it_keeps_nothing_but_the_journal(self, scheduler: str, tmp_path: Path) -> None:
        director = self.directed(scheduler, tmp_path / "s")
        InlineExecutor(Interruption()).run(director, toy.open_toy)
        first, again = (build_scheduler(self.section(scheduler)) for _ in range(2))
        before = toy.outcome(director)
        for trial in director.state.trials.values():
            verdict = first.judge(director.state, trial)
            assert verdict == again.judge(director.state, trial) == first.judge(director.state, trial)
            assert verdict.action in (CONTINUE, PAUSE, STOP)
        assert toy.outcome(director) == before

    @pytest.mark.parametrize("reports", [3, 11, 20])
    def test_a_search_that_was_stopped_goes_on_as_the_uninterrupted_one(
        self, scheduler: str, reports: int, tmp_path: Path
    ) -> None:
        whole = self.directed(scheduler, tmp_path / "whole")
        InlineExecutor(Interruption()).run(whole, toy.open_toy)
        stopped, interruption = self.directed(scheduler, tmp_path / "s"), Interruption()
        with pytest.raises(Stopped):
            InlineExecutor(interruption).run(stopped, partial(Interrupting, [reports], interruption))
        resumed = Director(Journal(tmp_path / "s"), toy.ToySpace())
        resumed.start()
        InlineExecutor(Interruption()).run(resumed, toy.open_toy)
        assert toy.outcome(resumed) == toy.outcome(whole)
