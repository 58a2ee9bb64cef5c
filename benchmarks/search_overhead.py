"""What a search costs beside its trials: 60 trials of 1 s, two at a time, against a bare loop over two processes.

    python -m benchmarks.search_overhead [--trials 60] [--seconds 1.0] [--work sleep|busy]

The pool of the bare loop is up before it is timed, and so are Ray's workers (its first trial has begun); their
start is given too. Then fully recorded trials of no work (journal, MLflow, Optuna's database): the cost of
each after the first. The page of the benchmarks shows it all.
"""

import argparse
import json
import logging
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from benchmarks.report import DOCS, OVERHEAD, keep, machine
from metaloom.orchestrator.director import Director
from metaloom.orchestrator.executors.ray_cluster import environment as ray_environment
from metaloom.orchestrator.interruption import Interruption
from metaloom.orchestrator.journal import Journal
from metaloom.orchestrator.proposing.mirror import OptunaProjection
from metaloom.orchestrator.tracking.outboxes import start_projections
from metaloom.workers.records import names as records
from metaloom.workers.records.trial import Report, TrialConfig

if TYPE_CHECKING:
    from metaloom.orchestrator.executors.ray_cluster.connection import Connection


def work(seconds: float, kind: str) -> None:
    """Take ``seconds``, asleep or computing."""
    if kind == "sleep":
        time.sleep(seconds)
        return
    deadline = time.process_time() + seconds
    while time.process_time() < deadline:
        sum(range(10_000))


@dataclass
class TimedTrial:
    """A trial that takes its time and reports once."""

    config: TrialConfig
    directory: Path
    step: int = 0
    finished: bool = False
    last_report: Report | None = None

    def advance(self) -> Report:
        """Work, and be done."""
        work(self.config.outer["seconds"], self.config.outer["work"])
        self.finished = True
        value = float(self.config.learner["rate"])
        return Report(1, {records.VALIDATION_LOSS: value}, (value, value), (value,) * 100, 100, 1.0, True)

    def close(self) -> None:
        """Hold nothing."""


def open_timed(config: TrialConfig, directory: Path) -> TimedTrial:
    """Open a timed trial."""
    return TimedTrial(config, directory)


class Space:
    """One real knob."""

    def __init__(self, outer: dict[str, Any]) -> None:
        self.outer = outer

    def __call__(self, suggest: Any) -> Any:
        """Resolve it."""
        knobs = {"rate": suggest.real("rate", 0.01, 1.0, True)}
        sections = {"tasks": {}, "learner": knobs, "inner": {}, "outer": self.outer, "resources": {}}
        return SimpleNamespace(**sections, knobs=knobs, stage="", stages=())


def search(folder: Path, trials: int, outer: dict[str, Any]) -> Director:
    """Make a search and its Director."""
    folder.mkdir(parents=True)
    journal = Journal(folder)
    objectives = [{"metric": records.VALIDATION_LOSS, "direction": "minimize"}]
    settings = {"trials": trials, "objectives": objectives}
    created = {"experiment": {}, "seed": 0, "fingerprint": "", "trials": trials, "settings": settings}
    journal.append(records.SEARCH_CREATED, created)
    director = Director(journal, Space(outer))
    director.start()
    return director


@dataclass(frozen=True)
class Times:
    """Seconds of one search.

    Attributes:
        trials: From the first trial's start, when Ray's workers are there, to the last one's end.
        all: The start of the workers included.
        delivered: The same, until MLflow and Optuna's database have everything.
    """

    trials: float
    all: float
    delivered: float


def timed_search(
    connection: "Connection", store: Path, name: str, trials: int, outer: dict[str, Any], *, record: bool
) -> Times:
    """Run a search and time it."""
    from metaloom.orchestrator.executors.ray_cluster.tune import RayExecutor

    director = search(store / "searches" / name, trials, outer)
    started = time.perf_counter()
    database = store / "optuna.db"
    optuna = partial(OptunaProjection, database, search=name, settings=director.settings)
    folder = director.journal.folder
    outboxes = (
        start_projections(folder, store=store, tracking={}, warn=print, others={"optuna": optuna}) if record else None
    )
    RayExecutor(Interruption(), connection).run(director, open_timed, concurrency=2)
    director.end()
    ran = time.perf_counter() - started
    times = [event.time for event in director.journal.events() if event.trial is not None]
    if outboxes is not None:
        left = outboxes.close(120.0)
        assert not left, left
    return Times(times[-1] - times[0], ran, time.perf_counter() - started)


def time_of_no_work(connection: "Connection", store: Path, name: str, trials: int) -> float:
    """Return the seconds of a fully recorded trial of no work, from searches of 10 and of ``trials`` more."""
    outer, numbers = {"seconds": 0.0, "work": "sleep"}, (10, 10 + trials)
    few, many = (timed_search(connection, store, f"{name}-{n}", n, outer, record=True).delivered for n in numbers)
    return (many - few) / trials


def main() -> None:
    """Measure, and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--work", choices=("sleep", "busy"), default="sleep")
    parser.add_argument("--turns", type=int, default=5, help="measurements of a trial of no work; the median is kept")
    parser.add_argument("--idle-trials", type=int, default=100, help="trials of no work in a measurement")
    parser.add_argument("--out", type=Path, default=DOCS, help="the folder of the page and its records")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    ray_environment.prepare()
    from metaloom.orchestrator.executors.ray_cluster.connection import connected

    outer = {"seconds": options.seconds, "work": options.work}
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(work, [0.0] * 2, [options.work] * 2))  # the pool is up
        started = time.perf_counter()
        list(pool.map(work, [options.seconds] * options.trials, [options.work] * options.trials))
        bare = time.perf_counter() - started
    result: dict[str, Any] = {"trials": options.trials, "seconds": options.seconds, "work": options.work}
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary, connected(Interruption(), cpus=2) as ray:
        result["ray_start_s"] = round(time.perf_counter() - started, 2)
        store = Path(temporary)
        plain = timed_search(ray, store, "timed", options.trials, outer, record=False)
        recorded = timed_search(ray, store, "recorded", options.trials, outer, record=True)
        no_work = [time_of_no_work(ray, store, str(turn), options.idle_trials) for turn in range(options.turns)]
    result |= {
        "bare_s": round(bare, 2),
        "search_s": round(plain.trials, 2),
        "search_with_start_of_workers_s": round(plain.all, 2),
        "recorded_search_s": round(recorded.trials, 2),
        "ratio": round(plain.trials / bare, 3),
        "recorded_ratio": round(recorded.trials / bare, 3),
        "no_work_s_a_trial": round(statistics.median(no_work), 4),
    }
    keep(options.out, {OVERHEAD: result | {"machine": machine()}})
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
