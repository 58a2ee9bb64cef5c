"""What every sampler must do: propose within the space, and go on after a kill as if there had been none."""

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from metaloom.learners.errors import BadInput
from metaloom.orchestrator.proposing.study import build_sampler
from metaloom.search_spaces.sections.settings import SearchSettings
from metaloom.search_spaces.sections.strategies import samplers
from metaloom.testing import bowls, toy
from metaloom.testing.contract import Contract, misspelt_settings

RANDOM: Mapping[str, Any] = {"kind": "random"}


class SamplerContract(Contract):
    """The contract of samplers that may propose numbers.

    Attributes:
        rows: A sampler's name to settings under which thirty trials are enough for it to show what it does.
        learning: The names of those that learn from sixty trials.
    """

    rows: Mapping[str, Mapping[str, Any]] = {}
    learning: Iterable[str] = ()

    def cases(self) -> Mapping[str, Iterable[Any]]:
        return {"sampler": self.rows, "learner": self.learning}

    def section(self, sampler: str) -> dict[str, Any]:
        """Return the sampler section of a search."""
        return {"kind": sampler, **self.rows[sampler]}

    def test_a_setting_that_does_not_exist_is_refused(self, sampler: str) -> None:
        for given, message in misspelt_settings(samplers()[sampler]).items():
            section = {**self.section(sampler), given: 1}
            with pytest.raises(BadInput, match=message):
                build_sampler(SearchSettings.from_document(toy.settings(sampler=section)))

    def test_every_proposal_is_in_its_branch_and_in_its_domains(self, sampler: str) -> None:
        trials = bowls.Exploration(self.section(sampler)).run(30)
        assert all(bowls.is_inside(trial.params) for trial in trials)
        assert {trial.params["method"] for trial in trials} == {"flat", "deep"}

    def test_a_search_that_was_killed_proposes_what_the_uninterrupted_one_does(self, sampler: str) -> None:
        whole, killed = (bowls.Exploration(self.section(sampler)) for _ in range(2))
        for _ in range(5):
            killed.run(6)
            killed.kill()
        assert killed.trials == whole.run(30)

    def test_so_does_one_that_was_killed_while_three_trials_ran(self, sampler: str) -> None:
        whole, killed = (bowls.Exploration(self.section(sampler), seed=2) for _ in range(2))
        for number in range(30):
            for exploration in (whole, killed):
                exploration.begin()
                if number >= 2:
                    exploration.end(number - 2)
            if number % 5 == 4:
                killed.kill()
        assert killed.trials == whole.trials

    def test_samplers_that_learn_come_to_the_best_point_under_the_best_choice(self, learner: str) -> None:
        for seed in range(3):
            trials = bowls.Exploration(self.section(learner), seed=seed).run(60)
            assert bowls.late_loss(trials) < 0.15 < 0.25 < bowls.late_loss(bowls.Exploration(RANDOM, seed=seed).run(60))
