"""Optuna: what to try next, and the study that others can open.

Only this file, and those of the samplers, import optuna.

A suggestion is a pure function of (search seed, warm start, trial number, journal): the
study lives in memory, is rebuilt from the journal by replay, and each suggestion gets a
fresh sampler seeded by the first three. So a resumed search suggests exactly what the
uninterrupted one would have. Trials that run are RUNNING in the study, which is what
Optuna's constant liar keeps away from.

NSGA-II keeps its generations in attributes that it writes while sampling; replaying
such a search asks the sampler again, with the values given.
"""

import logging
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import filelock
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from metaloom.learners.errors import BadInput
from metaloom.orchestrator.errors import StoreError
from metaloom.orchestrator.journal import Event
from metaloom.orchestrator.private_api import domain_contains, forget_draft, set_parameter, trial_id
from metaloom.orchestrator.proposing.grid import grid_point
from metaloom.orchestrator.proposing.samplers import (
    GRID,
    SAMPLES_BY_ATTRIBUTE,
    build_sampler,
    checked_sampler,
    trial_seed,
)
from metaloom.orchestrator.state import SearchSettings
from metaloom.workers.records import names as records

if TYPE_CHECKING:  # resolve imports torch, which only those who run trials need
    from metaloom.search_spaces.resolve import Resolved, Suggest

optuna.logging.set_verbosity(optuna.logging.WARNING)
logger = logging.getLogger("metaloom.study")

Define = Callable[["Suggest"], "Resolved"]


@dataclass(frozen=True)
class Proposal:
    """What a trial is to try.

    Attributes:
        resolved: The experiment with the values put in; None if they do not fit together.
        problem: Why they do not.
        params: The raw values by knob, as Optuna knows them.
        distributions: Optuna's JSON of each one's distribution.
        origin: The sampler, or the trial of an earlier search that they were taken from.
    """

    resolved: "Resolved | None"
    problem: str
    params: dict[str, Any]
    distributions: dict[str, str]
    origin: str


class Proposer:
    """Proposes trials, from an in-memory study that follows the journal.

    Args:
        settings: The search section.
        seed: The search's seed.
        define: Resolves the experiment through a ``Suggest``.
        warm_start: ``{"origin", "params"}`` of earlier trials; the first trials of the search try them.

    Raises:
        SearchError: The sampler or one of its options does not exist.
    """

    def __init__(
        self, settings: SearchSettings, *, seed: int, define: Define, warm_start: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        self._kind = checked_sampler(settings)
        self._settings, self._seed, self._define = settings, seed, define
        self._warm_start = warm_start
        self._storage = optuna.storages.InMemoryStorage()
        self._study = optuna.create_study(
            storage=self._storage,
            directions=[one.direction for one in settings.objectives],
            sampler=optuna.samplers.RandomSampler(seed=seed),
            pruner=optuna.pruners.NopPruner(),
        )
        self._mirror = TrialMirror(self._storage, self._study, settings)

    def propose(self, number: int) -> Proposal | None:
        """Return what trial ``number`` is to try, or None if the grid has no such point."""
        given, origin = self._given(number)
        if given is None and self._kind == GRID:
            given, origin = grid_point(self._define, number - len(self._warm_start)), GRID
            if given is None:
                return None
        with warnings.catch_warnings():  # conditional knobs are sampled independently on purpose
            warnings.simplefilter("ignore")
            self._study.sampler = self._sampler_of(number)
            trial = self._study.ask()
            asked = OptunaSuggest(trial, given or {})
            try:
                resolved, problem = self._define(asked), ""
            except BadInput as error:
                resolved, problem = None, str(error)
            forget_draft(trial)
        return Proposal(resolved, problem, asked.params, asked.distributions, origin)

    def resolve_with(self, params: Mapping[str, Any]) -> "Resolved":
        """Resolve the experiment with values that are all given."""
        return self._define(GivenSuggest(params))

    def apply(self, event: Event) -> None:
        """Keep the study in step with the journal."""
        if event.kind != records.TRIAL_SUGGESTED or event.trial is None:
            self._mirror.apply(event)
        elif event.trial >= len(self._study.get_trials(deepcopy=False)):
            self._replay_suggestion(event.trial, event.payload)

    def _given(self, number: int) -> tuple[Mapping[str, Any] | None, str]:
        if number < len(self._warm_start):
            return self._warm_start[number]["params"], str(self._warm_start[number]["origin"])
        return None, self._kind

    def _sampler_of(self, number: int) -> BaseSampler:
        starts = [one["params"] for one in self._warm_start]
        return build_sampler(self._settings, trial_seed(self._seed, number, starts=starts), self._define)

    def _replay_suggestion(self, number: int, payload: Mapping[str, Any]) -> None:
        if self._kind not in SAMPLES_BY_ATTRIBUTE:
            self._mirror.suggested(number, payload)
            return
        given, domains = self._given(number)[0] or {}, _distributions(payload["distributions"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._study.sampler = self._sampler_of(number)
            trial = self._study.ask()
            if any(not _contains(domain, given.get(name)) for name, domain in domains.items()):
                _ = trial.relative_params  # Optuna samples, and writes, no sooner than it is asked for a knob
        for name, domain in domains.items():
            set_parameter(trial, name, domain, payload["params"][name])


class OptunaSuggest:
    """``search_spaces``' ``Suggest`` over a trial of Optuna, remembering what was suggested.

    Args:
        trial: A running trial.
        given: Values to use instead of the sampler's where they lie in the knob's domain.
    """

    def __init__(self, trial: optuna.trial.Trial, given: Mapping[str, Any]) -> None:
        self._trial, self._given = trial, given
        self.params: dict[str, Any] = {}
        self.distributions: dict[str, str] = {}

    def real(self, name: str, low: float, high: float, log: bool) -> float:
        """Suggest a real number in [low, high]."""
        return float(self._suggest(name, FloatDistribution(low, high, log=log)))

    def integer(self, name: str, low: int, high: int, log: bool) -> int:
        """Suggest a whole number in [low, high]."""
        return int(self._suggest(name, IntDistribution(low, high, log=log)))

    def choice(self, name: str, options: tuple[str, ...]) -> str:
        """Suggest one of ``options``."""
        return str(self._suggest(name, CategoricalDistribution(options)))

    def _suggest(self, name: str, distribution: optuna.distributions.BaseDistribution) -> Any:
        if name not in self.params:
            given = self._given.get(name)
            if given is not None and _contains(distribution, given):
                set_parameter(self._trial, name, distribution, given)
                self.params[name] = given
            else:
                self.params[name] = self._sample(name, distribution)
            self.distributions[name] = optuna.distributions.distribution_to_json(distribution)
        return self.params[name]

    def _sample(self, name: str, distribution: optuna.distributions.BaseDistribution) -> Any:
        if isinstance(distribution, FloatDistribution):
            return self._trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)
        if isinstance(distribution, IntDistribution):
            return self._trial.suggest_int(name, distribution.low, distribution.high, log=distribution.log)
        assert isinstance(distribution, CategoricalDistribution)
        return self._trial.suggest_categorical(name, distribution.choices)


class GivenSuggest:
    """A ``Suggest`` whose values are all known."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self._params = params

    def real(self, name: str, low: float, high: float, log: bool) -> float:
        """Return the value given."""
        return float(self._params[name])

    def integer(self, name: str, low: int, high: int, log: bool) -> int:
        """Return the value given."""
        return int(self._params[name])

    def choice(self, name: str, options: tuple[str, ...]) -> str:
        """Return the value given."""
        return str(self._params[name])


class TrialMirror:
    """Writes what the journal says about trials into an Optuna storage; events seen before change nothing.

    A stopped trial becomes PRUNED with its last value, a failed one (NaN among them)
    FAIL with its reason, both as user attributes too; an interrupted one stays RUNNING,
    which is true: the search is not over.
    """

    def __init__(self, storage: optuna.storages.BaseStorage, study: optuna.Study, settings: SearchSettings) -> None:
        self._storage, self._settings = storage, settings
        self._study_id = storage.get_study_id_from_name(study.study_name)
        known = storage.get_all_trials(self._study_id, deepcopy=False)
        # kept here: asking the database costs 3 ms each time
        self._ids: dict[int, int] = {trial.number: trial_id(trial) for trial in known}
        self._ended = {trial.number for trial in known if trial.state.is_finished()}

    def apply(self, event: Event) -> None:
        """Write one event."""
        if event.trial is None:
            return
        if event.kind == records.TRIAL_SUGGESTED:
            self.suggested(event.trial, event.payload)
        elif event.kind == records.TRIAL_REPORTED:
            self._reported(event.trial, event.payload["report"])
        elif event.kind == records.TRIAL_STOPPED:
            attributes = {"stopped_at_step": event.payload["step"], "reason": event.payload["reason"]}
            self._end(event.trial, TrialState.PRUNED, event.payload, attributes)
        elif event.kind == records.TRIAL_FINISHED:
            self._end(event.trial, TrialState.COMPLETE, event.payload, {})
        elif event.kind == records.TRIAL_FAILED:
            self._end(event.trial, TrialState.FAIL, event.payload, {"reason": event.payload["reason"]})
        elif event.kind == records.TRIAL_EXPLOITED:
            self._set_attribute(event.trial, "exploited", {"donor": event.payload["donor"], **event.payload["knobs"]})

    def suggested(self, number: int, payload: Mapping[str, Any]) -> None:
        """Create the trial, RUNNING, under its own number."""
        if number in self._ids:
            return
        template = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=dict(payload["params"]),
            distributions=_distributions(payload["distributions"]),
            user_attrs={"sampler": payload["sampler"]},
        )
        self._ids[number] = self._storage.create_new_trial(self._study_id, template_trial=template)

    def _reported(self, number: int, report: Mapping[str, Any]) -> None:
        value = report["metrics"].get(self._settings.objectives[0].metric)
        # Optuna's samplers accept intermediate values of single-objective studies only.
        if value is not None and len(self._settings.objectives) == 1 and self._is_open(number):
            self._storage.set_trial_intermediate_value(self._id(number), report["step"], value)

    def _end(self, number: int, state: TrialState, payload: Mapping[str, Any], attributes: Mapping[str, Any]) -> None:
        if not self._is_open(number):
            return
        for name, value in attributes.items():
            self._set_attribute(number, name, value)
        values = [payload["values"].get(one.metric) for one in self._settings.objectives] if "values" in payload else []
        for name, violation in (payload.get("violations") or {}).items():
            # What Trial.set_constraint writes; a Trial object cannot be had without sampling anew.
            finite = min(violation, 1e300) if not math.isnan(violation) else 1e300
            self._storage.set_trial_system_attr(self._id(number), f"constraints:{name}", finite)
        usable = state != TrialState.FAIL and all(value is not None for value in values)
        self._storage.set_trial_state_values(self._id(number), state=state, values=values if usable else None)
        self._ended.add(number)

    def _set_attribute(self, number: int, name: str, value: Any) -> None:
        if self._is_open(number):
            self._storage.set_trial_user_attr(self._id(number), name, value)

    def _is_open(self, number: int) -> bool:
        return number not in self._ended

    def _id(self, number: int) -> int:
        if number not in self._ids:  # made by Study.ask
            found = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
            self._ids[number] = int(found)
        return self._ids[number]


class OptunaProjection:
    """Follows the journal into an Optuna database, where ``optuna.load_study`` finds the search by its name.

    Args:
        database: The SQLite file, shared by all searches of a store.
        search: Name of the search, which is the study's.
        settings: The search section.
    """

    name = records.OPTUNA_MARK

    def __init__(self, database: Path, *, search: str, settings: SearchSettings) -> None:
        # Eight processes that create one fresh database at once lose six of them: one at a time.
        with filelock.FileLock(database.with_suffix(".lock")):
            storage = optuna.storages.RDBStorage(f"sqlite:///{quote(str(database))}")
            study = optuna.create_study(
                storage=storage,
                study_name=search,
                directions=[one.direction for one in settings.objectives],
                load_if_exists=True,
            )
        self._database, self._mirror = database, TrialMirror(storage, study, settings)

    def apply(self, events: Sequence[Event]) -> None:
        """Write ``events``; those written before change nothing. Raises StoreError where the database fails."""
        try:
            for event in events:
                self._mirror.apply(event)
        except optuna.exceptions.StorageInternalError as error:  # blames invalid data; the cause knows of a full disk
            raise StoreError(f"{self._database}: {str(error.__cause__).splitlines()[0]}") from error


def record_in_database(events: Sequence[Event], database: Path, *, search: str, settings: SearchSettings) -> None:
    """Write a search's events into the Optuna database ``database``; idempotent."""
    OptunaProjection(database, search=search, settings=settings).apply(events)


def real_bounds(distribution: str) -> tuple[float, float, bool] | None:
    """Return (low, high, log) of a real distribution given as Optuna's JSON; None of any other."""
    known = optuna.distributions.json_to_distribution(distribution)
    return (known.low, known.high, known.log) if isinstance(known, FloatDistribution) else None


def _distributions(documents: Mapping[str, str]) -> dict[str, optuna.distributions.BaseDistribution]:
    return {name: optuna.distributions.json_to_distribution(text) for name, text in documents.items()}


def _contains(distribution: optuna.distributions.BaseDistribution, value: Any) -> bool:
    """Say whether ``value`` may be used for a knob with this distribution."""
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return domain_contains(distribution, float(value))
