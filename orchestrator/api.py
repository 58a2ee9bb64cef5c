"""``search`` and ``train``, from Python and for the command line; ``resume`` is in resume.py."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metaloom.orchestrator import credentials
from metaloom.orchestrator.executors import RunOptions
from metaloom.orchestrator.journal import Journal, writer_lock
from metaloom.orchestrator.messages import SearchProgress
from metaloom.orchestrator.preparing import Prepared, prepare_search, prepare_train
from metaloom.orchestrator.reading import Source
from metaloom.orchestrator.rehearsal import rehearse
from metaloom.orchestrator.repair import clear
from metaloom.orchestrator.resume import resume
from metaloom.orchestrator.session import SearchSummary, check_machine, check_workers, run_session
from metaloom.orchestrator.starting_points import Enqueued
from metaloom.orchestrator.store import DEFAULT_STORE, explained
from metaloom.workers.records import names as records

__all__ = ["DEFAULT_STORE", "RunOptions", "SearchSummary", "resume", "search", "train"]


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
    enqueue: Enqueued | None = None,
    search_from: str | Path | None = None,
    progress: SearchProgress | None = None,
    network: Any = None,
    tasks: Any = None,
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
        enqueue: Values of searched knobs, a mapping for each of the first trials, or a YAML file of them; instead of
            the experiment's.
        search_from: A bundle of the method ``search_settings``, whose sampler, scheduler and portfolio are taken where
            the experiment gives none. See docs/search_of_searches.md.
        progress: Receives every event.
        network: Instead of the experiment's architecture, one of your own: a class of ``torch.nn.Module`` or a
            function that makes one (``functools.partial`` gives it keyword arguments), a module at the top level of a
            Python file, or an import path ``package.module:Class``. See docs/networks.md.
        tasks: Instead of the experiment's tasks, data of your own: arrays of numpy or torch as a pair (x, y), a data
            frame of pandas or polars, an Arrow table, a data set of torch or of Hugging Face, or a mapping with one of
            these as ``data`` and the settings of the tasks section. See docs/python_data.md.
        trust_code: Import the classes that ``learner.architecture.of`` names in the experiment: their code runs here.

    Raises:
        BadInput: The experiment, its data or an argument is wrong; nothing was started.
        BadEnvironment: The store, the disk or Ray is at fault; what was recorded is intact.
    """
    prepared = prepare_search(
        experiment,
        overrides=overrides,
        store=store,
        name=name,
        trials=trials,
        executor=executor,
        address=address,
        insecure_cluster=insecure_cluster,
        concurrency=concurrency,
        time_budget_s=time_budget_s,
        seed=seed,
        enqueue=enqueue,
        search_from=search_from,
        network=network,
        tasks=tasks,
        trust_code=trust_code,
    )
    return _create_and_run(prepared, progress)


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
    tasks: Any = None,
    trust_code: bool = False,
) -> SearchSummary:
    """Run one trial; a searched knob takes its default, which a note reports. Arguments and errors: see ``search``."""
    prepared = prepare_train(
        experiment,
        overrides=overrides,
        store=store,
        name=name,
        executor=executor,
        address=address,
        insecure_cluster=insecure_cluster,
        seed=seed,
        network=network,
        tasks=tasks,
        trust_code=trust_code,
    )
    return _create_and_run(prepared, progress)


def _create_and_run(prepared: Prepared, progress: SearchProgress | None) -> SearchSummary:
    experiment, home, options = prepared.experiment, prepared.home, prepared.options
    uri = experiment.tracking.uri
    credentials.resolved(home.path, uri or "")  # what is missing is said before anything begins
    if prepared.name is not None:
        home.check_free(prepared.name)
    here = check_machine(experiment, options)
    with home.taken_back():
        home.create()
        data = rehearse(
            experiment,
            cache=home.cache,
            defaults_alone=prepared.defaults_alone,
            trust_code=prepared.trust_code,
            here=here,
        )
        check_workers(experiment, options)
    folder = home.new_folder(prepared.free_name)
    with writer_lock(folder):
        home.check_free(folder.name)  # another process may have taken the name since
        clear(folder)
        credentials.keep(home.path, uri)
        with explained(folder):
            (folder / records.EXPERIMENT_FILE).write_text(experiment.source_text)
        with Journal(folder) as journal:
            journal.append(records.SEARCH_CREATED, {**prepared.created, "data": data, "options": options.__dict__})
            return run_session(
                experiment, journal, store=home, options=options, progress=progress, notes=prepared.notes
            )
