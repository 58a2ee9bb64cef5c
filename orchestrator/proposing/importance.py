"""How much each searched knob explains of the trials' values, by Optuna."""

import optuna
from optuna.trial import TrialState

from metaloom.learners.errors import BadInput
from metaloom.orchestrator.proposing.mirror import distributions_of
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.search import SearchRecord

FEWEST = 2


def importances(name: str, search: SearchRecord) -> tuple[dict[str, float], list[str]]:
    """Return the share of each knob that all finished trials have, by PED-ANOVA, and the knobs that only some have.

    Raises:
        BadInput: Fewer than two trials have finished, their values are equal, or they share no searched knob.
    """
    finished = [trial for trial in search.in_state(records.FINISHED) if ranking.value(search, trial) is not None]
    values = {ranking.value(search, trial) for trial in finished}
    if len(finished) < FEWEST or len(values) < FEWEST:
        found = f"{len(finished)} finished, with {len(values)} different values"
        raise BadInput(
            f"--kind importance needs at least {FEWEST} finished trials of different values; '{name}' has {found}"
        )
    shared = set.intersection(*(set(trial.params) for trial in finished))
    every = set[str]().union(*(trial.params for trial in finished))
    if not shared:
        raise BadInput("--kind importance needs a searched knob that all finished trials have; this search has none")
    study = optuna.create_study(direction=search.settings.objectives[0].direction if search.settings else "maximize")
    for trial in finished:
        study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.COMPLETE,
                params=dict(trial.params),
                distributions=distributions_of(trial.distributions),
                value=ranking.value(search, trial),
            )
        )
    return optuna.importance.get_param_importances(study, params=sorted(shared)), sorted(every - shared)
