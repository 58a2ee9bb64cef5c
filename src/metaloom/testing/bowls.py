"""A conditional space whose loss is a bowl under each choice, with a known best point, and a search of it by hand."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from metaloom.orchestrator.proposing.study import Proposer
from metaloom.search_spaces.sections.settings import SearchSettings
from metaloom.testing import toy
from metaloom.workers.records import names as records
from metaloom.workers.records.journal import Event

BEST_RATE = 10**-3.2
BEST = {"method": "deep", "rate": BEST_RATE, "deep.decay": 0.8, "deep.width": 8}
FLAT_RATE = 10**-0.8  # the best for the other method, which is 0.5 worse


@dataclass(frozen=True)
class Trial:
    """What was proposed, and its loss."""

    params: dict[str, Any]
    loss: float


class Bowls:
    """Resolves the space; everything but the method depends on it."""

    knobs: Mapping[str, Any] = {}

    def __call__(self, suggest: Any) -> Any:
        """Resolve by ``suggest``: the rate is asked for after the method's own knobs, as an outer section's is."""
        if suggest.choice("method", ("flat", "deep")) == "deep":
            suggest.choice("deep.metric", ("cosine", "euclidean"))
            suggest.real("deep.decay", 0.0, 1.0, False)
            suggest.integer("deep.width", 1, 64, True)
        suggest.real("rate", 1e-4, 1.0, True)
        return self


def loss(params: Mapping[str, Any]) -> float:
    """Return how far a point lies from the best one under its choice."""
    rate, decay = float(params["rate"]), float(params.get("deep.decay", 0.0))
    if params["method"] == "flat":
        return 0.5 + (math.log10(rate / FLAT_RATE) / 4) ** 2
    width = math.log(params["deep.width"] / 8) / math.log(64)
    return (math.log10(rate / BEST_RATE) / 4) ** 2 + (decay - 0.8) ** 2 + width**2


def is_inside(params: Mapping[str, Any]) -> bool:
    """Say whether the knobs are those of their branch, each in its domain."""
    if params["method"] == "flat":
        return params.keys() == {"method", "rate"} and 1e-4 <= params["rate"] <= 1.0
    whole = isinstance(params["deep.width"], int) and 1 <= params["deep.width"] <= 64
    numbers = 0.0 <= params["deep.decay"] <= 1.0 and 1e-4 <= params["rate"] <= 1.0
    names = {"method", "rate", "deep.metric", "deep.decay", "deep.width"}
    return params.keys() == names and whole and numbers and params["deep.metric"] in ("cosine", "euclidean")


class Exploration:
    """Proposes and judges trials, and remembers the events, as a journal does.

    Args:
        sampler: The sampler section.
        seed: The search's.
        define: The space.
        judge: The loss of a point.
    """

    def __init__(
        self,
        sampler: Mapping[str, Any],
        *,
        seed: int = 0,
        define: Callable[[Any], Any] | None = None,
        judge: Callable[[Mapping[str, Any]], float] = loss,
    ) -> None:
        settings = SearchSettings.from_document(toy.settings(sampler=dict(sampler)))
        self._fresh: Callable[[], Proposer] = lambda: Proposer(settings, seed=seed, define=define or Bowls())
        self._proposer, self._judge = self._fresh(), judge
        self._events: list[Event] = []
        self.trials: list[Trial] = []

    def run(self, trials: int) -> list[Trial]:
        """Go on by so many trials, one after another, and return all."""
        for _ in range(trials):
            self.begin()
            self.end(len(self.trials) - 1)
        return self.trials

    def begin(self) -> None:
        """Propose one more trial, which then runs."""
        number = len(self.trials)
        proposal = self._proposer.propose(number)
        assert proposal is not None
        what = {"params": proposal.params, "distributions": proposal.distributions, "sampler": proposal.origin}
        self._tell(Event(0, 0.0, number, records.TRIAL_SUGGESTED, what))
        self.trials.append(Trial(proposal.params, self._judge(proposal.params)))

    def end(self, number: int) -> None:
        """Let a trial finish."""
        values = {records.VALIDATION_LOSS: self.trials[number].loss}
        self._tell(Event(0, 0.0, number, records.TRIAL_FINISHED, {"values": values}))

    def kill(self) -> None:
        """Lose all that is in memory but the events."""
        self._proposer = self._fresh()
        for event in self._events:
            self._proposer.apply(event)

    def _tell(self, event: Event) -> None:
        self._events.append(event)
        self._proposer.apply(event)


def late_loss(trials: list[Trial]) -> float:
    """Return the median loss of the last twenty trials."""
    return sorted(trial.loss for trial in trials[-20:])[10]
