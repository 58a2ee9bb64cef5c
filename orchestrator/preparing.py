"""Reads what ``search`` and ``train`` are given: the experiment with its changes, and its first event's payload."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaloom.orchestrator.executors import RunOptions
from metaloom.orchestrator.given_tasks import with_tasks
from metaloom.orchestrator.learned_section import taken_from
from metaloom.orchestrator.proposing.study import build_sampler
from metaloom.orchestrator.reading import Source, read_experiment, with_network
from metaloom.orchestrator.scheduling.base import build_scheduler
from metaloom.orchestrator.starting_points import Enqueued, starting_points, with_enqueued
from metaloom.orchestrator.store import DEFAULT_STORE, Store
from metaloom.search_spaces.experiment import FINGERPRINT_VERSION, Experiment
from metaloom.search_spaces.resolve import defaults, resolve
from metaloom.workers.records import names as records


@dataclass(frozen=True)
class Prepared:
    """A search that can begin, once its data and its learners are rehearsed.

    Attributes:
        created: The payload of its first event, without the data's digests and the options.
        name: The chosen name; None: the experiment's own.
        notes: What the user is told at its end.
        defaults_alone: Only the defaults of the searched knobs will run.
    """

    experiment: Experiment
    created: dict[str, Any]
    options: RunOptions
    home: Store
    name: str | None
    notes: Sequence[str]
    trust_code: bool
    defaults_alone: bool = False

    @property
    def free_name(self) -> str:
        """The name that it would get: one from its file gets a number if it is in use, a chosen one does not."""
        file = self.created["file"]
        numbered = self.name is None and (file is None or Path(file).stem == self.experiment.name)
        return self.home.free_name(self.experiment.name) if numbered else self.name or self.experiment.name


def prepare_search(
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
    network: Any = None,
    tasks: Any = None,
    trust_code: bool = False,
) -> Prepared:
    """Prepare ``search``, which documents the arguments."""
    options = RunOptions(executor, address, concurrency, insecure_cluster)
    given = {"search.trials": trials, "search.time_budget_s": time_budget_s, "seed": seed}
    changes = [*overrides, *(f"{path}={value}" for path, value in given.items() if value is not None)]
    home = Store(store)
    experiment = with_tasks(experiment, tasks, home)
    taken = taken_from(search_from, experiment, changes, enqueues=enqueue is not None)
    read, changes = with_enqueued(experiment, [*taken.changes, *changes], enqueue)
    loaded, trust_code = with_network(read, network, trust_code)
    created = _created(loaded, changes, experiment)
    created["warm_start"], notes = starting_points(loaded, home)
    if search_from is not None:
        created["search_from"], notes = taken.facts, [*taken.notes, *notes]
    return Prepared(loaded, created, options, home, name, notes, trust_code)


def prepare_train(
    experiment: Source,
    *,
    overrides: Sequence[str] = (),
    store: str | Path = DEFAULT_STORE,
    name: str | None = None,
    executor: str = "inline",
    address: str | None = None,
    insecure_cluster: bool = False,
    seed: int | None = None,
    network: Any = None,
    tasks: Any = None,
    trust_code: bool = False,
) -> Prepared:
    """Prepare ``train``, which documents the arguments."""
    options = RunOptions(executor, address, 1, insecure_cluster)
    changes = [*overrides, "search.trials=1", "search.scheduler=none", "search.sampler=random"]
    changes += [] if seed is None else [f"seed={seed}"]
    home = Store(store)
    experiment = with_tasks(experiment, tasks, home)
    loaded, trust_code = with_network(read_experiment(experiment, changes), network, trust_code)
    created = _created(loaded, changes, experiment)
    chosen = resolve(loaded, defaults(loaded)).knobs
    created["warm_start"] = [{"origin": "defaults", "params": dict(chosen)}]
    values = ", ".join(f"{knob} = {value}" for knob, value in chosen.items())
    noun = "knob" if len(chosen) == 1 else "knobs"
    notes = [f"{len(chosen)} searched {noun} took the default: {values}"] if chosen else []
    return Prepared(loaded, created, options, home, name, notes, trust_code, defaults_alone=True)


def _created(experiment: Experiment, changes: Sequence[str], source: Source) -> dict[str, Any]:
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
        "warm_start": [],
        "file": str(Path(str(source)).absolute()) if is_file else None,
        "overrides": list(changes),
    }
