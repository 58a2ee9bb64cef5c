"""Copies the journal's trials to an Optuna storage: the proposer's own in memory, and a database for users."""

import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from metaloom.orchestrator.errors import StoreError
from metaloom.orchestrator.journal import Journal
from metaloom.orchestrator.private_api import set_intermediate_values, trial_id
from metaloom.orchestrator.store import Store
from metaloom.orchestrator.tracking.databases import OwnDatabase, Tables, sqlite_uri
from metaloom.orchestrator.tracking.outbox import DATABASE_SILENCE_S, Projection, Pulse
from metaloom.search_spaces.sections.settings import SearchSettings
from metaloom.workers.records import names as records
from metaloom.workers.records.journal import Event
from metaloom.workers.records.search import SearchRecord

optuna.logging.set_verbosity(optuna.logging.WARNING)

DRAFTS = "drafts"  # the study of trials that are put together in memory
ENDS = frozenset({records.TRIAL_STOPPED, records.TRIAL_FINISHED, records.TRIAL_FAILED})


class TrialMirror:
    """Writes the journal's events of trials into an Optuna storage; repeated events change nothing.

    A stopped trial becomes PRUNED with its last value, a failed one (NaN included) FAIL with its reason, both as user
    attributes too. An interrupted trial stays RUNNING, because the search is not over, and so does one that the time
    budget has stopped, because it goes on if the budget is extended.
    """

    def __init__(self, storage: optuna.storages.BaseStorage, study: str, settings: SearchSettings) -> None:
        self._storage, self._settings = storage, settings
        self._study_id = storage.get_study_id_from_name(study)
        trials = storage.get_all_trials(self._study_id, deepcopy=False)
        # cached, because each query of the database takes 3 ms
        self._ids: dict[int, int] = {trial.number: trial_id(trial) for trial in trials}
        self._ended = {trial.number for trial in trials if trial.state.is_finished()}
        self._reports = {trial.number: len(trial.intermediate_values) for trial in trials}

    @property
    def is_empty(self) -> bool:
        """True if the storage has none of the study's trials."""
        return not self._ids

    def lacking(self, events: Sequence[Event]) -> set[int]:
        """Return the trials of ``events`` that the storage lacks, or lacks reports or the end of."""
        reports, ended = Counter[int](), set[int]()
        for event in events:
            if event.trial is not None:
                reports[event.trial] += event.kind == records.TRIAL_REPORTED and self._value(event) is not None
                goes_on = event.payload.get("reason") == records.OUT_OF_TIME
                ended |= {event.trial} if event.kind in ENDS and not goes_on else set()
        return {
            number
            for number, count in reports.items()
            if number not in self._ended and (number in ended or self._reports.get(number, -1) < count)
        }

    def apply_all(self, events: Sequence[Event]) -> None:
        """Write events to Optuna's database in few transactions.

        Trials that begin among them are written once, as they are at the end; the reports of others together.
        """
        suggested = [event.trial for event in events if event.kind == records.TRIAL_SUGGESTED]
        new = {number: [0.0, 0.0] for number in suggested if number is not None and number not in self._ids}
        memory = optuna.storages.InMemoryStorage()
        memory.create_new_study(self._storage.get_study_directions(self._study_id), DRAFTS)
        drafts = TrialMirror(memory, DRAFTS, self._settings)
        self._report_all([event for event in events if event.trial not in new])
        for event in events:
            if event.trial in new:
                drafts.apply(event)
                new[event.trial] = [new[event.trial][0] or event.time, event.time]
            elif event.kind != records.TRIAL_REPORTED:
                self.apply(event)
        for number, times in new.items():
            draft = drafts.stored(number)
            draft.datetime_start, last = map(datetime.fromtimestamp, times)
            if draft.state.is_finished():
                draft.datetime_complete = last
                self._ended.add(number)
            self._ids[number] = self._storage.create_new_trial(self._study_id, template_trial=draft)

    def _report_all(self, events: Sequence[Event]) -> None:
        """Write the intermediate values of trials that are in the database."""
        reports: defaultdict[int, dict[int, float]] = defaultdict(dict)
        for event in events:
            if event.kind == records.TRIAL_REPORTED and event.trial is not None and event.trial not in self._ended:
                value = self._value(event)
                if value is not None:
                    reports[self._id(event.trial)][event.payload["report"]["step"]] = value
        for trial, values in reports.items():
            set_intermediate_values(self._storage, trial, values)

    def stored(self, number: int) -> optuna.trial.FrozenTrial:
        """Return a trial as the storage has it."""
        return self._storage.get_trial(self._ids[number])

    def apply(self, event: Event) -> None:
        """Write one event."""
        number, payload = event.trial, event.payload
        if number is None:
            return
        match event.kind:
            case records.TRIAL_SUGGESTED:
                self.suggested(number, payload)
            case records.TRIAL_REPORTED:
                self._reported(number, event)
            case records.TRIAL_STOPPED if payload["reason"] != records.OUT_OF_TIME:
                attributes = {"stopped_at_step": payload["step"], "reason": payload["reason"]}
                self._end(number, TrialState.PRUNED, payload, attributes)
            case records.TRIAL_FINISHED:
                self._end(number, TrialState.COMPLETE, payload, {})
            case records.TRIAL_FAILED:
                self._end(number, TrialState.FAIL, payload, {"reason": payload["reason"]})
            case records.TRIAL_EXPLOITED if number not in self._ended:
                exploited = {"donor": payload["donor"], **payload["knobs"]}
                self._storage.set_trial_user_attr(self._id(number), "exploited", exploited)

    def suggested(self, number: int, payload: Mapping[str, Any]) -> None:
        """Create the trial, RUNNING, under its own number."""
        if number in self._ids:
            return
        repeated = {"repeat_of": payload["repeat_of"]} if "repeat_of" in payload else {}
        template = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=dict(payload["params"]),
            distributions=distributions_of(payload["distributions"]),
            user_attrs={"sampler": payload["sampler"], **repeated},
        )
        self._ids[number] = self._storage.create_new_trial(self._study_id, template_trial=template)

    def _reported(self, number: int, event: Event) -> None:
        value = self._value(event)
        if value is not None and number not in self._ended:
            self._storage.set_trial_intermediate_value(self._id(number), event.payload["report"]["step"], value)

    def _value(self, event: Event) -> float | None:
        """Return a report's intermediate value; Optuna's samplers accept those of single-objective studies only."""
        first, *others = self._settings.objectives
        value: float | None = event.payload["report"]["metrics"].get(first.metric)
        return None if others else value

    def _end(self, number: int, state: TrialState, payload: Mapping[str, Any], attributes: Mapping[str, Any]) -> None:
        if number in self._ended:
            return
        for name, value in attributes.items():
            self._storage.set_trial_user_attr(self._id(number), name, value)
        metrics = [objective.metric for objective in self._settings.objectives]
        values = [payload["values"].get(metric) for metric in metrics] if "values" in payload else []
        for name, violation in (payload.get("violations") or {}).items():
            # As Trial.set_constraint writes it; a Trial object would sample again.
            finite = min(violation, 1e300) if not math.isnan(violation) else 1e300
            self._storage.set_trial_system_attr(self._id(number), f"constraints:{name}", finite)
        usable = state != TrialState.FAIL and all(value is not None for value in values)
        self._storage.set_trial_state_values(self._id(number), state=state, values=values if usable else None)
        self._ended.add(number)

    def _id(self, number: int) -> int:
        if number not in self._ids:  # made by Study.ask
            self._ids[number] = int(self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number))
        return self._ids[number]


class OptunaProjection:
    """Copies the journal to a store's Optuna database, where ``optuna.load_study`` finds the search by its name.

    Args:
        database: The file; it need not exist.
    """

    state = ""  # nothing is stored with its mark

    def __init__(self, database: Path, *, search: str, settings: SearchSettings) -> None:
        self._path, self._search, self._settings = database, search, settings
        self._mirror: TrialMirror | None = None
        self.pulse = Pulse(DATABASE_SILENCE_S)
        self.database = OwnDatabase(database, TABLES, lambda held: _searches(database.parent, held=held))

    def of_search(self, folder: Path) -> "OptunaProjection":
        """Return the same projection of another search of the store; raises StoreError."""
        return OptunaProjection(self._path, search=folder.name, settings=settings_of(folder))

    def connect(self, journal: Journal, *, thorough: bool) -> list[Event]:
        """Open the database; return the events up to the mark of the trials that it lacks, or whose end it lacks."""
        with self.pulse.waiting():
            storage = optuna.storages.RDBStorage(sqlite_uri(self._path))
            study = optuna.create_study(
                storage=storage,
                study_name=self._search,
                directions=[objective.direction for objective in self._settings.objectives],
                load_if_exists=True,
            )
            _name_metrics(study, [objective.metric for objective in self._settings.objectives])
            self._mirror = TrialMirror(storage, self._search, self._settings)
        mark = journal.mark(records.OPTUNA_MARK)
        if not mark.event or not (thorough or self._mirror.is_empty):
            return []
        events = [event for event in journal.events() if event.id <= mark.event]
        lost = self._mirror.lacking(events)
        return [event for event in events if event.trial in lost]

    def apply(self, events: Sequence[Event]) -> None:
        """Write ``events``; repeated events change nothing. Raises StoreError if the database fails."""
        assert self._mirror is not None  # connected
        try:
            with self.pulse.waiting():
                self._mirror.apply_all(events)
        except optuna.exceptions.StorageInternalError as error:  # its text blames the data; its cause names a full disk
            raise StoreError(f"{self._path}: {str(error.__cause__).splitlines()[0]}") from error


def _name_metrics(study: optuna.Study, metrics: list[str]) -> None:
    """Give a study's values the objectives' names, for Optuna's own plots and for its dashboard."""
    if study.metric_names != metrics:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(metrics)


def projections(folder: Path) -> Mapping[str, Callable[[], Projection]]:
    """Return what copies the search in ``folder`` to its store's Optuna database, by the name of its mark."""

    def make() -> Projection:
        database = Store(folder.parents[1]).optuna_database
        return OptunaProjection(database, search=folder.name, settings=settings_of(folder))

    return {records.OPTUNA_MARK: make}


def settings_of(folder: Path) -> SearchSettings:
    """Return a search's settings, by its journal; raises StoreError if it has none."""
    with Journal(folder, read_only=True) as journal:
        settings = SearchRecord.replay(journal.events(0, 1)).settings
    if settings is None:
        raise StoreError(f"the journal in {folder} holds no search")
    return settings


def distributions_of(documents: Mapping[str, str]) -> dict[str, optuna.distributions.BaseDistribution]:
    """Read distributions by knob from Optuna's JSON."""
    return {name: optuna.distributions.json_to_distribution(text) for name, text in documents.items()}


def _searches(store: Path, *, held: bool) -> list[str]:
    """Return the store's searches; with ``held`` those whose trials were in its Optuna database."""
    found = []
    for name in records.search_names(store):
        try:
            with Journal(store / records.SEARCHES_FOLDER / name, read_only=True) as journal:
                mark, begun = journal.mark(records.OPTUNA_MARK), bool(journal.events(0, 1))
        except StoreError:  # a damaged journal: it can be sent when it is repaired
            continue
        if begun and (mark.event or not held):
            found.append(name)
    return found


def _make_tables(path: Path) -> None:
    optuna.storages.RDBStorage(sqlite_uri(path)).engine.dispose()


def _upgrade_tables(path: Path) -> None:
    storage = optuna.storages.RDBStorage(sqlite_uri(path), skip_compatibility_check=True)
    storage.upgrade()
    storage.engine.dispose()


def _schemas() -> list[str]:
    schemas: list[str] = optuna.storages.RDBStorage("sqlite://").get_all_versions()  # in memory: the package's own
    return schemas


TABLES = Tables("optuna", make=_make_tables, upgrade=_upgrade_tables, schemas=_schemas)
