"""The test of the best trial and the baselines on the same episodes, after the trials."""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from metaloom.learners.errors import BadEnvironment, MetaloomError
from metaloom.orchestrator.director import Director
from metaloom.orchestrator.executors.hosting import open_trial
from metaloom.orchestrator.interruption import Interruption
from metaloom.orchestrator.results import trial_config
from metaloom.orchestrator.store import Store
from metaloom.search_spaces.experiment import Experiment
from metaloom.search_spaces.resolve import baseline, baseline_name
from metaloom.workers.pairing import paired_difference
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.scoring import evaluate_trial

BASELINES_FOLDER = "baselines"
REFUSED_IN_FOLDERS = re.compile(r"[^\w.=()\[\]-]")


def compare_on_test(experiment: Experiment, director: Director, store: Store, interruption: Interruption) -> list[str]:
    """Test and journal what is untested; return notes on tests that failed. Raises Stopped or BadEnvironment."""
    notes: list[str] = []
    best = ranking.best(director.state)
    if best is not None and best.config is not None and director.state.tested is None:
        number, directory = best.number, director.directory(best.number)
        episodes = int(best.config.outer["test_episodes"])
        evaluation = _guarded(
            lambda: _evaluate(directory, store, episodes), f"trial {number} could not be tested", interruption, notes
        )
        if evaluation is not None:
            director.note(records.BEST_TESTED, trial=number, evaluation=evaluation)
    done, folder = {baseline["method"] for baseline in director.state.baselines}, director.journal.folder
    for index, asked in enumerate(experiment.search.baselines):
        method = baseline_name(asked)
        if method in done:
            continue
        number = -1 - index  # and so a seed, that no trial of the search has
        resolved, seeds = baseline(experiment, asked), {"seed": director.seed, "seeds": director.seeds}
        config = trial_config(resolved, search=folder.name, trial=number, **seeds)
        directory = folder / BASELINES_FOLDER / REFUSED_IN_FOLDERS.sub("_", method)
        train = functools.partial(_trained_and_tested, config, directory, store)
        evaluation = _guarded(train, f"baseline {method} could not be tested", interruption, notes)
        if evaluation is not None:
            result = {"method": method, "evaluation": evaluation, "best_better_by": _difference(director, directory)}
            director.note(records.BASELINE, **result)
    return notes


def _trained_and_tested(config: TrialConfig, directory: Path, store: Store) -> dict[str, Any]:
    """Train a baseline as a trial of its own, from a checkpoint if there is one, and test it."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    trial = open_trial(config, directory, cache=store.cache)
    while not trial.finished:
        trial.advance()
    trial.close()
    return _evaluate(directory, store, int(config.outer["test_episodes"]))


def _evaluate(directory: Path, store: Store, episodes: int) -> dict[str, Any]:
    return evaluate_trial(directory, cache=store.cache, episodes=episodes, trust_code=True).to_json()


def _difference(director: Director, baseline: Path) -> dict[str, Any] | None:
    """Return by how much the tested best trial is better than a tested baseline; None without common episodes."""
    tested = director.state.tested
    difference = None if tested is None else paired_difference(director.directory(tested["trial"]), baseline)
    return None if difference is None else difference.to_json()


def _guarded(
    work: Callable[[], dict[str, Any]], problem: str, interruption: Interruption, notes: list[str]
) -> dict[str, Any] | None:
    """Do work that a signal may cut off; what fails becomes a note, since the trials are safe."""
    try:
        with interruption.raising():
            return work()
    except BadEnvironment:
        raise
    except MetaloomError as error:
        notes.append(f"{problem}: {error}")
        return None
