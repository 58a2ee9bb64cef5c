"""``search`` and ``train``, from Python and for the command line; ``resume`` is in resume.py."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metaloom.orchestrator import credentials
from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.executors import RunOptions
from metaloom.orchestrator.journal import Journal, writer_lock
from metaloom.orchestrator.messages import SearchProgress
from metaloom.orchestrator.proposing.study import build_sampler
from metaloom.orchestrator.reading import Source, load_search, read_experiment, with_network
from metaloom.orchestrator.rehearsal import rehearse
from metaloom.orchestrator.repair import clear
from metaloom.orchestrator.resume import resume
from metaloom.orchestrator.scheduling.base import build_scheduler
from metaloom.orchestrator.session import SearchSummary, check_machine, run_session
from metaloom.orchestrator.store import DEFAULT_STORE, Store, explained
from metaloom.search_spaces.experiment import FINGERPRINT_VERSION, Experiment
from metaloom.search_spaces.knobs.sampling import holds
from metaloom.search_spaces.resolve import defaults, resolve, searched_knobs
from metaloom.search_spaces.sections.loops import under_searched_names
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking

__all__ = ["DEFAULT_STORE", "RunOptions", "SearchSummary", "resume", "search", "train"]

WARM_START = ("search", "warm_start")


def search(
    experiment: Source,
    *,
    overrides: Sequence[str] = (),
    store: str | Path = DEFAULT_STORE,
    name: str | None = None,
    trials: int | None = None,
    executor: str = "ray",
    address: str | None = None,
    insecure_cluster: bool = False,
    concurrency: int | None = None,
    time_budget_s: float | None = None,
    seed: int | None = None,
    progress: SearchProgress | None = None,
    network: Any = None,
    trust_code: bool = False,
) -> SearchSummary:
    """Run a search to its end. After a signal it returns with state ``interrupted``, and can be resumed.

    After SIGTERM to a search that started its own Ray, the process should exit within a minute; it cannot start Ray
    again.

    Args:
        experiment: An ``Experiment``, a YAML file, the name of a preset, or a mapping of sections.
        overrides: ``PATH=VALUE`` each, as for ``--set``.
        store: Folder of all records.
        name: Of the search; None: the experiment's own.
        trials: Instead of the experiment's.
        executor: ``ray``, or ``inline``: one trial after another in this process, without Ray.
        address: Of a Ray cluster; None starts Ray on this machine, for this process only.
        insecure_cluster: Join the cluster at ``address`` though ``RAY_AUTH_MODE`` is not ``token``.
        concurrency: Trials at a time; None: the experiment's, or as many as the resources hold.
        time_budget_s: Instead of the experiment's.
        seed: Instead of the experiment's.
        progress: Receives every event.
        network: Instead of the experiment's architecture, one of your own: a class of ``torch.nn.Module`` or a
            function that makes one (``functools.partial`` gives it keyword arguments), a module at the top level of a
            Python file, or an import path ``package.module:Class``. See docs/networks.md.
        trust_code: Import the classes that ``learner.architecture.of`` names in the experiment: their code runs here.

    Raises:
        BadInput: The experiment, its data or an argument is wrong; nothing was started.
        BadEnvironment: The store, the disk or Ray is at fault; what was recorded is intact.
    """
    options = RunOptions(executor, address, concurrency, insecure_cluster)
    given = {"search.trials": trials, "search.time_budget_s": time_budget_s, "seed": seed}
    changes = [*overrides, *(f"{path}={value}" for path, value in given.items() if value is not None)]
    loaded, trust_code = with_network(read_experiment(experiment, changes), network, trust_code)
    home = Store(store)
    created = _created(loaded, home, changes, experiment)
    notes = _left_out(loaded, created["warm_start"])
    return _create_and_run(loaded, created, options, home, name, progress, notes, trust_code=trust_code)


def train(
    experiment: Source,
    *,
    overrides: Sequence[str] = (),
    store: str | Path = DEFAULT_STORE,
    name: str | None = None,
    executor: str = "inline",
    address: str | None = None,
    insecure_cluster: bool = False,
    seed: int | None = None,
    progress: SearchProgress | None = None,
    network: Any = None,
    trust_code: bool = False,
) -> SearchSummary:
    """Run one trial; a searched knob takes its default, which a note reports. Arguments and errors: see ``search``."""
    options = RunOptions(executor, address, 1, insecure_cluster)
    changes = [*overrides, "search.trials=1", "search.scheduler=none", "search.sampler=random"]
    changes += [] if seed is None else [f"seed={seed}"]
    loaded, trust_code = with_network(read_experiment(experiment, changes), network, trust_code)
    home = Store(store)
    created = _created(loaded, home, changes, experiment)
    chosen = resolve(loaded, defaults(loaded)).knobs
    created["warm_start"] = [{"origin": "defaults", "params": dict(chosen)}]
    values = ", ".join(f"{knob} = {value}" for knob, value in chosen.items())
    noun = "knob" if len(chosen) == 1 else "knobs"
    notes = [f"{len(chosen)} searched {noun} took the default: {values}"] if chosen else []
    return _create_and_run(
        loaded, created, options, home, name, progress, notes, defaults_alone=True, trust_code=trust_code
    )


def _created(experiment: Experiment, store: Store, changes: Sequence[str], source: Source) -> dict[str, Any]:
    """Return the payload of the search's first event; raises BadInput if the search cannot run."""
    settings = experiment.search
    build_sampler(settings)
    build_scheduler(settings.scheduler)
    is_file = isinstance(source, str | Path) and Path(source).is_file()
    return {
        "experiment": {**experiment.document, "search": settings.model_dump(mode="json")},
        "seed": experiment.seed,
        "seeds": records.SEEDS_VERSION,
        "fingerprint": experiment.fingerprint(),
        "fingerprint_version": FINGERPRINT_VERSION,
        "trials": settings.trials,
        "settings": settings.to_document(),
        "warm_start": _warm_starts(experiment, store),
        "file": str(Path(str(source)).absolute()) if is_file else None,
        "overrides": list(changes),
    }


def _create_and_run(
    experiment: Experiment,
    created: dict[str, Any],
    options: RunOptions,
    home: Store,
    name: str | None,
    progress: SearchProgress | None,
    notes: Sequence[str],
    *,
    defaults_alone: bool = False,
    trust_code: bool,
) -> SearchSummary:
    uri = experiment.tracking.uri
    credentials.resolved(home.path, uri or "")  # what is missing is said before anything begins
    if name is not None:
        home.check_free(name)
    here = check_machine(experiment, options)
    with home.taken_back():
        home.create()
        data = rehearse(experiment, cache=home.cache, defaults_alone=defaults_alone, trust_code=trust_code, here=here)
    file = created["file"]  # a name that comes from it gets a number if it is in use; a chosen name must be free
    numbered = name is None and (file is None or Path(file).stem == experiment.name)
    folder = home.new_folder(home.free_name(experiment.name) if numbered else name or experiment.name)
    with writer_lock(folder):
        home.check_free(folder.name)  # another process may have taken the name since
        clear(folder)
        credentials.keep(home.path, uri)
        with explained(folder):
            (folder / records.EXPERIMENT_FILE).write_text(experiment.source_text)
        with Journal(folder) as journal:
            journal.append(records.SEARCH_CREATED, {**created, "data": data, "options": options.__dict__})
            return run_session(experiment, journal, store=home, options=options, progress=progress, notes=notes)


def _warm_starts(experiment: Experiment, store: Store) -> list[dict[str, Any]]:
    """Return the knobs of the earlier search's best trials, with their origin; none without a warm start.

    Raises:
        SearchError: There is no such search, or it has no finished trial; the message names the place in the file.
    """
    wanted = experiment.search.warm_start
    if wanted is None:
        return []
    try:
        ranked = ranking.ranked(load_search(wanted.search, store=store.path))
        if not ranked:
            raise SearchError(f"search '{wanted.search}' has no finished trial to start from; leave warm_start out")
    except SearchError as error:
        place = [experiment.origin(WARM_START), ".".join(WARM_START), str(error)]
        raise SearchError(": ".join(part for part in place if part)) from error
    knobs, origin = searched_knobs(experiment), f"warm_start:{wanted.search}"
    return [
        {"origin": f"{origin}/{trial.number}", "params": under_searched_names(trial.params, knobs)}
        for trial in ranked[: wanted.trials]
    ]


def _left_out(experiment: Experiment, given: list[dict[str, Any]]) -> list[str]:
    """Return at most one note, which lists the values of the warm start ``given`` that this search cannot take."""
    knobs = searched_knobs(experiment)
    why: dict[str, str] = {}
    for trial in given:
        for name, value in trial["params"].items():
            if name not in knobs:
                why[name] = "no searched knob here"
            elif not holds(knobs[name], value):
                why[name] = f"{value} is outside its range here"
    values = ", ".join(f"{name} ({reason})" for name, reason in why.items())
    note = f"warm_start leaves out values that this search cannot take, and draws its own instead: {values}"
    return [note] if why else []
