"""The payloads of suggestions: what the sampler proposes, and the repeats of it."""

from dataclasses import replace
from typing import Any

from metaloom.orchestrator.proposing.study import Proposal
from metaloom.search_spaces.sections.strategies import KIND, schedulers
from metaloom.workers.records.configurations import twin_of
from metaloom.workers.records.search import SearchRecord
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.records.trial_record import TrialRecord


def populations() -> set[str]:
    """Return the schedulers that change knobs while trials train, so that no two have the same ones to their end."""
    return {name for name, kind in schedulers().items() if kind.copies_state}


def suggestion(proposal: Proposal, config: TrialConfig | None, state: SearchRecord) -> dict[str, Any]:
    """Return the payload of a suggestion; ``config`` is None if the knobs contradict each other."""
    changes = state.settings is not None and state.settings.scheduler[KIND] in populations()
    twin = None if config is None or changes else twin_of(state, proposal.params)
    return {
        "knobs": dict(proposal.params if proposal.resolved is None else proposal.resolved.knobs),
        "config": None if config is None else config.to_json(),
        "sampler": proposal.origin,
        "params": proposal.params,
        "distributions": proposal.distributions,
        **({} if twin is None else {"twin": twin}),
    }


def repetition(first: TrialRecord, number: int, state: SearchRecord) -> dict[str, Any]:
    """Return the payload of trial ``number``, which trains the knobs of ``first`` once more."""
    assert first.config is not None  # a trial without one has failed, and is not repeated
    before = 1 + sum(trial.repeat_of == first.number for trial in state.trials.values())
    return {
        "knobs": dict(first.knobs),
        "config": replace(first.config, trial=number, repeat=before).to_json(),
        "sampler": first.origin,
        "params": dict(first.params),
        "distributions": dict(first.distributions),
        "repeat_of": first.number,
    }


def without_repeats(state: SearchRecord) -> SearchRecord:
    """Return a search with the suggestions alone, among which a scheduler judges."""
    if state.settings is None or state.settings.repeats == 1:
        return state
    return replace(state, trials={number: one for number, one in state.trials.items() if one.repeat_of is None})
