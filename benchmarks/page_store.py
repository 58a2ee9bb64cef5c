"""Make a store to measure pages on: its trials come from a formula, everything else from the package itself.

    python -m benchmarks.page_store OUT [--trials 1000] [--episodes 10000000] [--seed 0] [--others 2]

The Director suggests trials with TPE, judges them with ASHA and journals them; the recorder writes their episodes; the
outboxes fill MLflow's and Optuna's databases. There are four workers, a stop, a killed driver, lost workers and failed
trials, and the time of all events is that of training. Only the waiting for the disk after each file is left out.
``others`` are smaller searches beside the large one.
"""

import argparse
import functools
import heapq
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.generated_trials import Episodes, GeneratedTrial
from metaloom.orchestrator.director import Director
from metaloom.orchestrator.executors.hosting import TrialHost
from metaloom.orchestrator.journal import Journal, writer_lock
from metaloom.orchestrator.preparing import prepare_search
from metaloom.orchestrator.proposing import mirror
from metaloom.orchestrator.session import BASELINES_FOLDER
from metaloom.orchestrator.store import Store
from metaloom.orchestrator.tracking.outboxes import synchronize
from metaloom.search_spaces.experiment import Experiment
from metaloom.search_spaces.resolve import baseline, baseline_name, resolve
from metaloom.workers import data, durable
from metaloom.workers.data.base import Source
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.episode_files import EpisodeBatch, write_part
from metaloom.workers.records.journal import Event
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.scoring import Evaluation, paired_difference

NAME, WORKERS = "glyphs", 4
TASKS = {"source": "glyphs", "ways": 5, "shots": 1, "queries": 5}
FEW_EPISODES = 2000  # of a trial of the smaller searches
REPORTS, RUNGS = 20, (5, 10, 20)  # the most of a trial, and the reports at which ASHA halves
USUAL_REPORTS = 12.0  # of a trial, as ASHA lets them go on
META_BATCH, VALIDATION_EPISODES, TEST_EPISODES = 4, 100, 600
LOST, AGAIN_S = 0.0015, 3600.0  # of the reports the worker is lost before; the time until a search is resumed
BEGAN_S = 4 * 86400.0  # ago
EXPERIMENT = Path(__file__).with_name("page_store.yaml")


def experiment_of(trials: int, episodes: int, seed: int) -> tuple[Experiment, dict[str, Any]]:
    """Return the experiment whose trials have so many episodes in all, and the payload of its first event."""
    per_report = episodes / (USUAL_REPORTS * trials)
    every = max(1, round((per_report - VALIDATION_EPISODES) / META_BATCH))
    overrides = [
        f"outer.steps={every * REPORTS}",
        f"outer.meta_batch={META_BATCH}",
        f"outer.validate_every={every}",
        f"outer.validation_episodes={VALIDATION_EPISODES}",
        f"outer.test_episodes={TEST_EPISODES}",
        f"search.scheduler={{kind: asha, grace_steps: {RUNGS[0] * every}, reduction_factor: 2}}",
        f"search.concurrency={WORKERS}",
    ]
    prepared = prepare_search(EXPERIMENT, overrides=overrides, trials=trials, seed=seed, executor="ray")
    options = {"executor": "ray", "address": None, "concurrency": WORKERS, "insecure_cluster": False}
    return prepared.experiment, {**prepared.created, "file": None, "data": {}, "options": options}


@dataclass
class Clock:
    """The time of a search, which goes on from report to report."""

    now: float

    def __call__(self) -> float:
        """Return it."""
        return self.now


class Workers:
    """Four workers that take turns by the time that their trials need."""

    def __init__(self, director: Director, clock: Clock, open_trial: Callable[[TrialConfig, Path], GeneratedTrial]):
        self.director, self.clock = director, clock
        self.hosts = [TrialHost(functools.partial(self._open, slot)) for slot in range(WORKERS)]
        self._opened: dict[int, GeneratedTrial] = {}
        self._open_trial = open_trial
        for slot, host in enumerate(self.hosts):
            host.worker = f"{socket.gethostname()}:{4000 + slot}"
        self._due: list[tuple[float, int]] = []
        self._draws = np.random.default_rng(director.seed)

    def run(self, until: Callable[[], bool]) -> None:
        """Run trials until there are none, or ``until`` says so."""
        for slot in range(WORKERS):
            self._begin(slot)
        while self._due and not until():
            self.clock.now, slot = heapq.heappop(self._due)
            self._report(slot)
        for host in self.hosts:
            host.close()

    def _open(self, slot: int, config: TrialConfig, directory: Path) -> GeneratedTrial:
        self._opened[slot] = self._open_trial(config, directory)
        return self._opened[slot]

    def _begin(self, slot: int) -> None:
        assignment = self.director.next_trial(worker=self.hosts[slot].worker)
        if assignment is not None:
            self.hosts[slot].begin(assignment)
            heapq.heappush(self._due, (self.clock.now + 2.0, slot))

    def _report(self, slot: int) -> None:
        host = self.hosts[slot]
        message = host.step()
        if self._draws.random() < LOST:
            host.close()
            self.director.lost(message.trial, "the worker process died (SIGKILL); it may have run out of memory")
        elif self.director.hear(message):
            heapq.heappush(self._due, (self.clock.now + self._opened[slot].next_seconds, slot))
            return
        self._begin(slot)


def generate(store: Path, name: str, *, trials: int, episodes: int, seed: int, source: Episodes) -> None:
    """Write one search."""
    experiment, created = experiment_of(trials, episodes, seed)
    folder = Store(store).create().new_folder(name)
    clock = Clock(time.time() - BEGAN_S)
    open_trial = functools.partial(GeneratedTrial, episodes=source, cache=store / records.CACHE_FOLDER)
    with unwaited(), writer_lock(folder), Journal(folder) as journal:
        (folder / records.EXPERIMENT_FILE).write_text(experiment.source_text)
        journal.append_all([Event(0, clock.now, None, records.SEARCH_CREATED, created)])
        director = _sessions(journal, experiment, clock, open_trial, trials)
        _test(director, experiment, open_trial)
        director.end()


def send(store: Path, name: str) -> None:
    """Send a search to MLflow and Optuna's database, as ``metaloom sync`` does."""
    left, _ = synchronize(store, name, warn=lambda line: print(line, file=sys.stderr), others=mirror.projections)
    if left:
        raise SystemExit(f"page_store: {left}")


def _sessions(
    journal: Journal,
    experiment: Experiment,
    clock: Clock,
    open_trial: Callable[[TrialConfig, Path], GeneratedTrial],
    trials: int,
) -> Director:
    """Run three sessions: one is stopped, the driver of the next is killed, the last one ends the search."""
    for share in (0.35, 0.7, None):
        director = Director(journal, functools.partial(resolve, experiment), clock=clock)
        director.start()
        most = None if share is None else int(share * trials)
        Workers(director, clock, open_trial).run(functools.partial(_has_begun, director, most))
        if share == 0.35:
            director.interrupt("SIGINT was received")
        clock.now += AGAIN_S if share else 1.0
    return director


def _has_begun(director: Director, trials: int | None) -> bool:
    return trials is not None and len(director.state.trials) >= trials


def _test(
    director: Director, experiment: Experiment, open_trial: Callable[[TrialConfig, Path], GeneratedTrial]
) -> None:
    """Test the best trial and the baselines, as the end of a session does."""
    best = ranking.best(director.state)
    assert best is not None and best.config is not None
    directory = director.directory(best.number)
    evaluation = _tested(open_trial(best.config, directory), directory)
    director.note(records.BEST_TESTED, trial=best.number, evaluation=evaluation.to_json())
    for index, asked in enumerate(experiment.search.baselines):
        method = baseline_name(asked)
        config = director.config(-1 - index, baseline(experiment, asked))
        place = director.journal.folder / BASELINES_FOLDER / method
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        trial = open_trial(config, place)
        while not trial.finished:
            trial.advance()
        evaluation, better = _tested(trial, place), paired_difference(directory, place)
        difference = better.to_json() if better else None
        director.note(records.BASELINE, method=method, evaluation=evaluation.to_json(), best_better_by=difference)


def _tested(trial: GeneratedTrial, directory: Path) -> Evaluation:
    """Test a trial and record the episodes."""
    found = trial.tested(TEST_EPISODES)
    batch = EpisodeBatch(records.TEST, trial.step, found.facts, found.outcomes, found.seconds)
    write_part(records.part_of_test(directory, trial.config.seed), trial.origin, [batch])
    trial.close()
    return found


@contextmanager
def unwaited() -> Iterator[None]:
    """Do not wait for the disk after each file of a trial, which would take most of the time."""
    waiting, durable.sync = durable.sync, lambda path: None
    try:
        yield
    finally:
        durable.sync = waiting


def make(store: Path, *, trials: int, episodes: int, seed: int = 0, others: int = 0, databases: bool = True) -> None:
    """Make a store with one large search, and ``others`` of at most 60 trials.

    With ``databases`` its searches are sent to MLflow and to Optuna's database, which takes longer than making them.
    """
    torch.set_num_threads(1)
    cache = Store(store).create().cache
    opened = data.open_source(dict(TASKS), seed=seed, cache=cache)
    assert isinstance(opened, Source)
    shared, few = Episodes(opened), [min(trials, 24 + 12 * number) for number in range(others)]
    sizes = {f"{NAME}-{number}": (count, count * FEW_EPISODES) for number, count in enumerate(few)}
    for name, (count, played) in {**sizes, NAME: (trials, episodes)}.items():
        generate(store, name, trials=count, episodes=played, seed=seed, source=shared)
    for name in [*sizes, NAME] if databases else ():
        send(store, name)


def main() -> None:
    """Make the store that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page_store", description=__doc__)
    parser.add_argument("out", type=Path, help="the store's folder")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--episodes", type=int, default=10_000_000, help="about so many, over all trials")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--others", type=int, default=2, help="smaller searches beside the large one")
    parser.add_argument(
        "--databases", action=argparse.BooleanOptionalAction, default=True, help="MLflow's and Optuna's"
    )
    given = vars(parser.parse_args())
    store, started = given.pop("out"), time.perf_counter()
    make(store, **given)
    print(json.dumps({"store": str(store), "seconds": round(time.perf_counter() - started, 1)}))


if __name__ == "__main__":
    main()
