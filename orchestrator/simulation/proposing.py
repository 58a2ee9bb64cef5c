"""Proposes trials as a search does, and takes a configuration of the table for each proposal.

The sampler learns the values of the configuration that was taken, not those that it proposed, so that its model is of
what was measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from optuna.distributions import distribution_to_json

from metaloom.learners.errors import BadInput
from metaloom.orchestrator.proposing.samplers.base import Define, distribution_of
from metaloom.orchestrator.proposing.study import Proposal, Proposer
from metaloom.orchestrator.simulation.candidates import Candidates
from metaloom.search_spaces.knobs.sampling import Domain, Given, Value
from metaloom.search_spaces.sections.settings import SearchSettings
from metaloom.workers.data.result_tables import ResultTable
from metaloom.workers.records import names as records
from metaloom.workers.records.journal import Event


class TableProposer(Proposer):
    """Proposes configurations of a table; see ``Proposer``.

    Attributes:
        taken: The place in the table of each suggestion, in their order.
        place_of: The place in the table of each trial, by its number.
    """

    def __init__(
        self,
        settings: SearchSettings,
        *,
        seed: int,
        define: Define,
        warm_start: Sequence[Mapping[str, Any]] = (),
        table: ResultTable,
        candidates: Candidates,
    ) -> None:
        super().__init__(settings, seed=seed, define=define, warm_start=warm_start)
        self._table, self._candidates, self._ask = table, candidates, define
        self.taken: list[int] = []
        self.place_of: dict[int, int] = {}

    def propose(self, number: int) -> Proposal | None:
        """Return the proposal of trial ``number``; None if the table, or the grid, has none left."""
        proposal = super().propose(number)
        place = None if proposal is None else self._candidates.nearest(proposal.params, self.taken)
        if proposal is None or place is None:
            return None
        self.taken.append(place)
        return self._moved(proposal, self._table.configurations[place])

    def apply(self, event: Event) -> None:
        """Update the study with an event, and note which place of the table a new trial has."""
        if event.kind == records.TRIAL_SUGGESTED and event.trial is not None:
            first = event.payload.get("repeat_of")
            self.place_of[event.trial] = self.taken[-1] if first is None else self.place_of[first]
        super().apply(event)

    def _moved(self, proposal: Proposal, to: Mapping[str, Value]) -> Proposal:
        """Return a proposal with the values of a configuration of the table."""
        if dict(proposal.params) == dict(to):
            return proposal
        asked = _Noted(to)
        try:
            resolved, problem = self._ask(asked), ""
        except BadInput as error:
            resolved, problem = None, str(error)
        return replace(proposal, resolved=resolved, problem=problem, params=dict(to), distributions=asked.distributions)


class _Noted(Given):
    """Suggests the values of a configuration, and notes the distributions of its knobs."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        super().__init__(values)
        self.distributions: dict[str, str] = {}

    def value(self, name: str, domain: Domain) -> Value:
        self.distributions[name] = distribution_to_json(distribution_of(domain))
        return super().value(name, domain)
