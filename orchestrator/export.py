"""``metaloom export`` and ``metaloom evaluate``: a trial's bundle, and its test."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from metaloom.dashboards import queries as lookups
from metaloom.dashboards.canvas import png
from metaloom.dashboards.knowledge_figures import pictures, read_knowledge
from metaloom.orchestrator.choosing import BEST, chosen_trial
from metaloom.orchestrator.store import DEFAULT_STORE
from metaloom.orchestrator.tracking.registering import register_bundle
from metaloom.workers.bundle import load_bundle
from metaloom.workers.bundle_writing import write_bundle
from metaloom.workers.card import CardPicture
from metaloom.workers.errors import BundleError
from metaloom.workers.generalized import generalized_of_trial
from metaloom.workers.records import names as records
from metaloom.workers.records.trial import read_config
from metaloom.workers.scoring import Evaluation, evaluate_trial

__all__ = ["BEST", "chosen_trial"]  # with what is declared here


def evaluate(
    target: str | Path,
    *,
    trial: str = BEST,
    episodes: int = 600,
    seed: int | None = None,
    ways: int | None = None,
    shots: int | None = None,
    queries: int | None = None,
    generalized: bool = False,
    store: str | Path = DEFAULT_STORE,
    trust_code: bool = False,
) -> Evaluation:
    """Return test-split scores of a bundle (a folder), or of a trial of a search.

    Args:
        target: A bundle's folder, or the name of a search.
        trial: For a search: the trial's number, or ``best``.
        episodes: The number of test episodes.
        seed: Of the episodes; None takes the search's.
        ways: Classes of an episode; None takes the experiment's own number, as for ``shots`` and ``queries``.
        shots: Support examples of each class.
        queries: Query examples of each class.
        generalized: Of a zero-shot learner also the score of training classes and new ones together.
        store: Folder of all records.
        trust_code: Import the class that ``learner.architecture.of`` names: its code runs here.

    Raises:
        MetaloomError: There is no such bundle, search or trial, its data are gone or too few, or the learner takes
            fewer classes.
    """
    folder, cache = Path(store), Path(store) / records.CACHE_FOLDER
    given = {"ways": ways, "shots": shots, "queries": queries}
    sizes = {name: number for name, number in given.items() if number is not None}
    if (Path(target) / records.MANIFEST_FILE).is_file() or len(Path(target).parts) > 1:  # no search's name is a path
        bundle = load_bundle(target, trust_code=trust_code)
        scored = bundle.evaluate(cache=cache, split=records.TEST, episodes=episodes, seed=seed, sizes=sizes)
        return replace(scored, generalized=bundle.evaluate_generalized(cache=cache)) if generalized else scored
    row = chosen_trial(folder, str(target), trial)
    directory = lookups.trial_folder(folder, str(target), row["id"])
    scored = evaluate_trial(directory, cache=cache, episodes=episodes, seed=seed, sizes=sizes, trust_code=trust_code)
    if not generalized:
        return scored
    return replace(scored, generalized=generalized_of_trial(directory, cache=cache, trust_code=trust_code))


def export(
    name: str,
    out: str | Path,
    *,
    trial: str = BEST,
    episodes: int | None = None,
    store: str | Path = DEFAULT_STORE,
    trust_code: bool = False,
    inductive: bool = False,
    register: str | None = None,
) -> Path:
    """Write a trial's bundle, tested on the test split, and return its folder.

    Args:
        name: The search.
        out: The bundle's folder; must not exist.
        trial: Its number, or ``best``.
        episodes: Test episodes; None takes the experiment's own number, 0 leaves the test out.
        store: Folder of all records.
        trust_code: Import the class that ``learner.architecture.of`` names: its code runs here.
        inductive: Let batch norm take the support set's statistics, so that each query is predicted on its own. The
            test says what that costs on the same episodes.
        register: Also register the bundle as a version of this model in MLflow's registry, with the trial's run.

    Raises:
        MetaloomError: There is no such trial, ``out`` exists, or it cannot be written.
    """
    store, out = Path(store), Path(out)
    row = chosen_trial(store, name, trial)
    if out.exists():  # before the test, which takes a while
        raise BundleError(f"{out}: exists already; a bundle is never written over (give another --out)")
    directory = lookups.trial_folder(store, name, row["id"])
    asked = int(read_config(directory).outer["test_episodes"]) if episodes is None else episodes
    test = partial(evaluate_trial, directory, cache=store / records.CACHE_FOLDER, trust_code=trust_code)
    if inductive and not asked:
        test(episodes=1, inductive=True)  # refuses a trial that cannot be made so
    evaluation = test(episodes=asked, inductive=inductive) if asked else None
    transductive = test(episodes=asked) if asked and inductive else None
    learned = [CardPicture(one.name, one.caption, png(one.figure)) for one in pictures(read_knowledge(directory))]
    path = write_bundle(
        directory,
        out,
        origin=_origin(store, name, row),
        evaluation=evaluation,
        pictures=learned,
        inductive=inductive,
        transductive=transductive,
    )
    if register is not None:
        search = lookups.search_record(store, name)
        register_bundle(path, register, name=name, search=search, run_id=row["run_id"], store=store)
    return path


def _origin(store: Path, name: str, row: dict[str, Any]) -> dict[str, Any]:
    search = lookups.search_record(store, name)
    assert search.settings is not None  # it has a trial
    return {
        "search": name,
        "trial": row["id"],
        "seed": search.created.get("seed"),
        "state": row["state"],
        "trials in the search": len(search.trials),
        "sampler": search.settings.sampler.get("kind"),
        "knobs": row["knobs"],
        search.settings.objectives[0].metric: row["value"],
        "validation interval": row["interval"],
        "run_id": row["run_id"],
        **({"stages": [dict(one) for one in trial.stages]} if (trial := search.trials[row["id"]]).stages else {}),
    }
