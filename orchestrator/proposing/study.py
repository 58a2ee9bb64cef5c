"""Proposes trials with Optuna. Only the files of this folder import optuna.

A suggestion is a pure function of (search seed, warm start, trial number, journal): the study lives in memory, replay
rebuilds it from the journal, and each suggestion gets a new sampler seeded by the first three. So a resumed search
suggests exactly what the uninterrupted one would have. Running trials are RUNNING in the study, so Optuna's constant
liar avoids their points.

NSGA-II stores its generations in attributes that it writes while sampling; a replay calls the sampler again with the
given values.
"""

import hashlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from metaloom.learners.domains import Choice, Int
from metaloom.learners.errors import BadInput
from metaloom.learners.fields import make_config
from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.private_api import domain_contains, forget_draft, set_parameter
from metaloom.orchestrator.proposing.mirror import TrialMirror, distributions_of
from metaloom.orchestrator.proposing.pooling import PooledEvents
from metaloom.orchestrator.proposing.samplers.base import Define, Sampler, distribution_of
from metaloom.search_spaces.knobs.sampling import Domain, Given, Suggest, Value
from metaloom.search_spaces.sections.settings import SearchSettings
from metaloom.search_spaces.sections.strategies import KIND, samplers, takes_one_objective
from metaloom.workers.records import names as records
from metaloom.workers.records.journal import Event

if TYPE_CHECKING:  # resolve imports torch, which only running trials needs
    from metaloom.search_spaces.resolve import Resolved

logger = logging.getLogger("metaloom.study")


@dataclass(frozen=True)
class Proposal:
    """The values for a trial.

    Attributes:
        resolved: The experiment with the values; None if they contradict each other.
        problem: The contradiction.
        params: The raw values by knob, in Optuna's form.
        distributions: Optuna's JSON of each knob's distribution.
        origin: The sampler, or the trial of an earlier search that has these values.
    """

    resolved: "Resolved | None"
    problem: str
    params: dict[str, Any]
    distributions: dict[str, str]
    origin: str


def trial_seed(seed: int, number: int, *, starts: Sequence[Mapping[str, Any]] = ()) -> int:
    """Return the sampler's seed for a trial's suggestion: 32 bits, the same in every process.

    Args:
        starts: The warm-start values, often of a search with the same seed. Without mixing them in both searches would
            propose the same trials. The origin's name is not part of the seed.
    """
    text = "/".join([str(seed), str(number), "suggestion", *(json.dumps(start, sort_keys=True) for start in starts)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def build_sampler(settings: SearchSettings) -> Sampler:
    """Return the sampler of a search section; raises BadInput if it or a setting is unknown or does not fit."""
    kind = str(settings.sampler[KIND])
    given = {name: value for name, value in settings.sampler.items() if name != KIND and value is not None}
    sampler = cast(Sampler, make_config(samplers()[kind], given, "search.sampler", kind))
    if sampler.one_objective and len(settings.objectives) > 1:
        raise SearchError(f"search.sampler: {takes_one_objective(kind)}")
    return sampler


class Proposer:
    """Proposes trials, from an in-memory study that follows the journal.

    Args:
        warm_start: ``{"origin", "params"}`` of earlier trials; the first trials of the search try them.

    Raises:
        SearchError: The sampler or one of its options does not exist.
    """

    def __init__(
        self, settings: SearchSettings, *, seed: int, define: Define, warm_start: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        self._sampler, self._kind = build_sampler(settings), str(settings.sampler[KIND])
        self._settings, self._seed, self._define = settings, seed, define
        self._warm_start = warm_start
        self._enqueued: list[Mapping[str, Any]] = []  # after the search's beginning, and not suggested yet
        self._enqueued_before = 0  # suggestions of such
        self._pooled = PooledEvents(settings) if settings.repeats > 1 else None
        self._storage = optuna.storages.InMemoryStorage()
        self._study = optuna.create_study(
            storage=self._storage,
            directions=[objective.direction for objective in settings.objectives],
            sampler=optuna.samplers.RandomSampler(seed=seed),
            pruner=optuna.pruners.NopPruner(),
        )
        self._mirror = TrialMirror(self._storage, self._study.study_name, settings)

    def propose(self, number: int) -> Proposal | None:
        """Return the proposal of trial ``number``, or None if the grid has no such point."""
        given, origin = self._given(number)
        if given is None and self._sampler.finite:
            given = self._sampler.point(self._place(number) - len(self._warm_start), self._define)
            if given is None:
                return None
        with self._asked(number) as trial:
            asked = OptunaSuggest(trial, given or {})
            try:
                resolved, problem = self._define(asked), ""
            except BadInput as error:
                resolved, problem = None, str(error)
            forget_draft(trial)
        return Proposal(resolved, problem, asked.params, asked.distributions, origin)

    def resolve_with(self, params: Mapping[str, Any]) -> "Resolved":
        """Resolve the experiment with given values for all knobs."""
        return self._define(Given(params))

    def apply(self, event: Event) -> None:
        """Update the study with an event of the journal."""
        for one in (event,) if self._pooled is None else self._pooled.of(event):
            self._apply(one)
        if event.kind == records.ENQUEUED:
            self._enqueued.append(event.payload)
        elif event.kind == records.TRIAL_SUGGESTED and event.payload["sampler"] in self._origins():
            self._enqueued.pop(0)
            self._enqueued_before += 1

    def _apply(self, event: Event) -> None:
        if event.kind != records.TRIAL_SUGGESTED or event.trial is None:
            self._mirror.apply(event)
        elif event.trial >= len(self._study.get_trials(deepcopy=False)):
            self._replay_suggestion(event.trial, event.payload)

    def _given(self, number: int) -> tuple[Mapping[str, Any] | None, str]:
        place = self._place(number)
        first = self._enqueued[:1] or self._warm_start[place : place + 1]
        return (first[0]["params"], str(first[0]["origin"])) if first else (None, self._kind)

    def _origins(self) -> list[str]:
        """Return the origin of what is tried next, if it was enqueued after the search's beginning."""
        return [str(one["origin"]) for one in self._enqueued[:1]]

    def _place(self, number: int) -> int:
        """Return the place of a suggestion among those that were not enqueued after the search's beginning."""
        return number - self._enqueued_before

    @contextmanager
    def _asked(self, number: int) -> Iterator[optuna.trial.Trial]:
        """Begin a trial with its own sampler; within this context Optuna's warnings are off."""
        starts = [start["params"] for start in self._warm_start]
        with warnings.catch_warnings():  # conditional knobs are sampled independently on purpose
            warnings.simplefilter("ignore")
            self._study.sampler = self._sampler.build(trial_seed(self._seed, number, starts=starts), self._define)
            yield self._study.ask()

    def _replay_suggestion(self, number: int, payload: Mapping[str, Any]) -> None:
        if not self._sampler.keeps_attributes:
            self._mirror.suggested(number, payload)
            return
        given, domains = self._given(number)[0] or {}, distributions_of(payload["distributions"])
        with self._asked(number) as trial:
            if any(not _contains(domain, given.get(name)) for name, domain in domains.items()):
                _ = trial.relative_params  # makes Optuna sample, and write its attributes, now
        for name, domain in domains.items():
            set_parameter(trial, name, domain, payload["params"][name])


class OptunaSuggest(Suggest):
    """Suggests by a trial of Optuna, and records the suggestions.

    Args:
        given: Values to use instead of the sampler's if they are in the knob's domain.
    """

    def __init__(self, trial: optuna.trial.Trial, given: Mapping[str, Any]) -> None:
        self._trial, self._given = trial, given
        self.params: dict[str, Any] = {}
        self.distributions: dict[str, str] = {}

    def value(self, name: str, domain: Domain) -> Value:
        """Return the given value, or the sampler's; asked again, the same one."""
        if name not in self.params:
            distribution, given = distribution_of(domain), self._given.get(name)
            if given is not None and _contains(distribution, given):
                set_parameter(self._trial, name, distribution, given)
                self.params[name] = given
            elif isinstance(domain, Choice):
                self.params[name] = self._trial.suggest_categorical(name, domain.options)
            elif isinstance(domain, Int):
                step = domain.step or 1
                self.params[name] = self._trial.suggest_int(name, domain.low, domain.high, log=domain.log, step=step)
            else:
                drawn = self._trial.suggest_float(name, domain.low, domain.high, log=domain.log, step=domain.step)
                self.params[name] = drawn
            self.distributions[name] = optuna.distributions.distribution_to_json(distribution)
        return cast(Value, self.params[name])


def real_bounds(distribution: str) -> tuple[float, float, bool] | None:
    """Return (low, high, log) of a real distribution without steps given as Optuna's JSON; None for any other."""
    real = optuna.distributions.json_to_distribution(distribution)
    if not isinstance(real, FloatDistribution) or real.step is not None:
        return None
    return real.low, real.high, real.log


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return domain_contains(distribution, float(value))
