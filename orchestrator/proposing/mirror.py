"""Copies the journal's trials to an Optuna storage: the proposer's own in memory, and a database for users."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import filelock
import optuna
from optuna.trial import TrialState

from metaloom.orchestrator.errors import StoreError
from metaloom.orchestrator.private_api import trial_id
from metaloom.orchestrator.store import prepare_database
from metaloom.search_spaces.sections.settings import SearchSettings
from metaloom.workers.records import names as records
from metaloom.workers.records.journal import Event


class TrialMirror:
    """Writes the journal's events of trials into an Optuna storage; repeated events change nothing.

    A stopped trial becomes PRUNED with its last value, a failed one (NaN included) FAIL with its reason, both as user
    attributes too. An interrupted trial stays RUNNING, because the search is not over, and so does one that the time
    budget has stopped, because it goes on if the budget is extended.
    """

    def __init__(self, storage: optuna.storages.BaseStorage, study: optuna.Study, settings: SearchSettings) -> None:
        self._storage, self._settings = storage, settings
        self._study_id = storage.get_study_id_from_name(study.study_name)
        trials = storage.get_all_trials(self._study_id, deepcopy=False)
        # cached, because each query of the database takes 3 ms
        self._ids: dict[int, int] = {trial.number: trial_id(trial) for trial in trials}
        self._ended = {trial.number for trial in trials if trial.state.is_finished()}

    def apply(self, event: Event) -> None:
        """Write one event."""
        number, payload = event.trial, event.payload
        if number is None:
            return
        match event.kind:
            case records.TRIAL_SUGGESTED:
                self.suggested(number, payload)
            case records.TRIAL_REPORTED:
                self._reported(number, payload["report"])
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
        template = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=dict(payload["params"]),
            distributions=distributions_of(payload["distributions"]),
            user_attrs={"sampler": payload["sampler"]},
        )
        self._ids[number] = self._storage.create_new_trial(self._study_id, template_trial=template)

    def _reported(self, number: int, report: Mapping[str, Any]) -> None:
        value = report["metrics"].get(self._settings.objectives[0].metric)
        # Optuna's samplers accept intermediate values of single-objective studies only.
        if value is not None and len(self._settings.objectives) == 1 and number not in self._ended:
            self._storage.set_trial_intermediate_value(self._id(number), report["step"], value)

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
    """Copies the journal to a store's Optuna database, where ``optuna.load_study`` finds the search by its name."""

    state = ""  # nothing is stored with its mark

    def __init__(self, database: Path, *, search: str, settings: SearchSettings) -> None:
        # One process at a time: of eight that create one database together, six fail.
        with filelock.FileLock(database.with_suffix(".lock")):
            prepare_database(database)
            storage = optuna.storages.RDBStorage(f"sqlite:///{quote(str(database))}")
            study = optuna.create_study(
                storage=storage,
                study_name=search,
                directions=[objective.direction for objective in settings.objectives],
                load_if_exists=True,
            )
        self._database, self._mirror = database, TrialMirror(storage, study, settings)

    def apply(self, events: Sequence[Event]) -> None:
        """Write ``events``; repeated events change nothing. Raises StoreError if the database fails."""
        try:
            for event in events:
                self._mirror.apply(event)
        except optuna.exceptions.StorageInternalError as error:  # its text blames the data; its cause names a full disk
            raise StoreError(f"{self._database}: {str(error.__cause__).splitlines()[0]}") from error


def distributions_of(documents: Mapping[str, str]) -> dict[str, optuna.distributions.BaseDistribution]:
    """Read distributions by knob from Optuna's JSON."""
    return {name: optuna.distributions.json_to_distribution(text) for name, text in documents.items()}
