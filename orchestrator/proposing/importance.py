"""How much each searched knob explains of the trials' values, by Optuna."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from optuna.importance import BaseImportanceEvaluator
from optuna.trial import FrozenTrial, TrialState

from metaloom.learners.errors import BadInput
from metaloom.orchestrator.proposing.mirror import distributions_of
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.search import SearchRecord

FEWEST = 2
FROM_COMMAND = "--kind importance"


@dataclass(frozen=True)
class Explained:
    """The finished trials that importances are taken of.

    Attributes:
        trials: As Optuna has them, with one value each.
        shared: The knobs that all of them have.
        left_out: The knobs that only some have.
        direction: Of the objective.
    """

    trials: Sequence[FrozenTrial]
    shared: Sequence[str]
    left_out: Sequence[str]
    direction: str

    def importances(
        self, evaluator: BaseImportanceEvaluator | None = None, trials: Sequence[FrozenTrial] | None = None
    ) -> dict[str, float]:
        """Return the share of each shared knob, by PED-ANOVA without another evaluator, of all trials or of some."""
        study = optuna.create_study(direction=self.direction)
        study.add_trials(self.trials if trials is None else trials)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=list(self.shared))
        return {name: float(share) for name, share in found.items()}


def explained(name: str, search: SearchRecord, *, metric: str | None = None, asked_by: str = FROM_COMMAND) -> Explained:
    """Return the finished trials of a search with their values of an objective, by default the first.

    Raises:
        BadInput: Fewer than two trials have finished, their values are equal, or they share no searched knob.
    """
    pairs = [(trial, ranking.value(search, trial, metric)) for trial in search.in_state(records.FINISHED)]
    valued = {trial.number: value for trial, value in pairs if value is not None and math.isfinite(value)}
    finished = [trial for trial, _ in pairs if trial.number in valued]
    if len(set(valued.values())) < FEWEST:
        found = f"{len(finished)} finished, with {len(set(valued.values()))} different values"
        raise BadInput(f"{asked_by} needs at least {FEWEST} finished trials of different values; '{name}' has {found}")
    shared = set.intersection(*(set(trial.params) for trial in finished))
    every = set[str]().union(*(trial.params for trial in finished))
    if not shared:
        raise BadInput(f"{asked_by} needs a searched knob that all finished trials have; this search has none")
    aims = search.settings.objectives if search.settings else ()
    directions = [aim.direction for aim in aims if metric in (None, aim.metric)]
    trials = [
        optuna.trial.create_trial(
            state=TrialState.COMPLETE,
            params=dict(trial.params),
            distributions=distributions_of(trial.distributions),
            value=valued[trial.number],
        )
        for trial in finished
    ]
    return Explained(trials, sorted(shared), sorted(every - shared), directions[0] if directions else "maximize")


def importances(name: str, search: SearchRecord) -> tuple[dict[str, float], list[str]]:
    """Return the share of each knob that all finished trials have, by PED-ANOVA, and the knobs that only some have.

    Raises:
        BadInput: As ``explained`` does.
    """
    found = explained(name, search)
    return found.importances(), list(found.left_out)
