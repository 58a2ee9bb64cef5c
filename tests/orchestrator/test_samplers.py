"""Which sampler a search gets, and the seeds of its suggestions."""

from typing import Any

import pytest
import toy

from metaloom.learners.errors import BadInput
from metaloom.orchestrator.samplers import checked_sampler, trial_seed
from metaloom.orchestrator.state import SearchSettings


def test_seeds_differ_by_search_and_trial_and_are_stable() -> None:
    assert len({trial_seed(seed, number) for seed in range(20) for number in range(20)}) == 400
    assert trial_seed(0, 0) == 1796802197  # written down: another value would change every recorded search


def test_a_warm_start_changes_the_seeds_by_where_it_comes_from() -> None:
    origins: list[list[str]] = [[], ["warm_start:a/1"], ["warm_start:b/1"], ["warm_start:a/1", "warm_start:a/2"]]
    assert len({trial_seed(0, number, origins=one) for number in range(20) for one in origins}) == 80


@pytest.mark.parametrize("sampler", [{"kind": "tpee"}, {"kind": "tpe", "startups": 3}])
def test_what_does_not_exist_is_refused_with_its_nearest_spelling(sampler: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="did you mean"):
        checked_sampler(SearchSettings.from_document(toy.settings(sampler=sampler)))
