"""Trains the stages that a trial starts from, each once in a store.

A stage's folder is named by a digest of all that decides its result: its sections, its data, the seed, the device, and
the stages that it starts from. Who comes first trains it, as an ordinary trial with checkpoints, under a lock that the
kernel frees when the process ends; who comes later waits and takes the bundle that it was exported as.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import filelock

from metaloom.learners.errors import BadEnvironment, MetaloomError
from metaloom.learners.outer import OuterConfig
from metaloom.learners.tensors import Tensors
from metaloom.search_spaces.experiment import FINGERPRINT_VERSION
from metaloom.search_spaces.sections.starts import needed_stages, starts_of_section, with_starts
from metaloom.workers import durable
from metaloom.workers.activity import doing
from metaloom.workers.assembly import own_start
from metaloom.workers.bundle_reading import bundle_start, network_in, read_manifest
from metaloom.workers.bundle_writing import write_bundle
from metaloom.workers.data import open_source
from metaloom.workers.device import prepare_device
from metaloom.workers.errors import BundleError, TrialFailed
from metaloom.workers.heartbeat import Heartbeat
from metaloom.workers.records import names
from metaloom.workers.records.stages import (
    STAGE_TRIAL,
    AtStage,
    StageRecord,
    note_at_stage,
    note_needed,
    read_stage,
    write_stage,
)
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.trial.beginning import FIRST, Beginning
from metaloom.workers.trial.runner import Trial

STAGE_VERSION = 1  # of what decides a stage's result and is in none of its sections
LOCK = "lock"
LOOK_S = 0.2  # between two looks at a stage that another process trains


def staged_start(config: TrialConfig, directory: Path, *, cache: Path, store: Path) -> Beginning:
    """Train or find the stages that a trial needs, and return what it starts from.

    A trial that has a checkpoint needs none.

    Args:
        config: The trial.
        directory: Its folder, whose heartbeat goes on meanwhile.
        cache: Where task sources keep their prepared data.
        store: The folder of all records, which keeps the stages.

    Raises:
        TrialFailed: A stage has failed; the message names it.
        BadEnvironment: The machine is at fault.
    """
    at = directory / names.AT_STAGE_FILE
    at.unlink(missing_ok=True)  # of a process that was killed
    needed = list(needed_stages(config.stages, config.learner))
    if not needed or own_start(directory) is not None:
        return FIRST
    done: dict[str, StageRecord] = {}
    asked: dict[str, str] = {}
    networks: dict[str, Tensors] = {}
    try:
        for section in needed:
            name = str(section["name"])
            with _named(name):
                own = config_of(config, section)
                starts = {one: done[one].digest for one in starts_of_section(own.learner)}
                folder = store / names.STAGES_FOLDER / digest_of(own, starts, data_digest(own, cache))
                asked[name] = folder.name
                note_needed(directory, asked)  # before it has a folder: it is kept as long as the search may go on
                done[name] = _Stage(name, own, folder, networks, starts, directory, cache).finished()
                networks[name] = network_in(folder / names.STAGE_BUNDLE)
        return Beginning(bundle_start(config.learner, networks), tuple(done.values()))
    finally:
        at.unlink(missing_ok=True)


def config_of(config: TrialConfig, section: Mapping[str, Any]) -> TrialConfig:
    """Return the stage as a trial of its own; it has the seed of the search, and so its split of the classes."""
    own = {name: section[name] for name in ("tasks", "learner", "inner", "outer")}
    name = str(section["name"])
    return replace(config, search=name, stage=name, trial=STAGE_TRIAL, repeat=0, stages=(), **own)


def digest_of(config: TrialConfig, starts: Mapping[str, str], data: str) -> str:
    """Return the digest of all that decides a stage's result.

    Args:
        config: The stage as a trial of its own.
        starts: The digest of each stage that it starts from, by name.
        data: The digest of its data.
    """
    learner = with_starts(config.learner, starts)
    device = prepare_device(config.resources, OuterConfig.of(config.outer).precision)
    meaning = {
        "sections": [config.tasks, learner, config.inner, config.outer],
        "data": data,
        "seed": [config.seed, config.seeds],
        "device": device.torch.type,
        "versions": [STAGE_VERSION, FINGERPRINT_VERSION],
    }
    return durable.digest(json.dumps(meaning, sort_keys=True).encode())[:32]


def data_digest(config: TrialConfig, cache: Path) -> str:
    """Return the digest of a trial's data; empty where they are generated."""
    return open_source(config.tasks, seed=config.seed, cache=cache).digest


@contextmanager
def _named(stage: str) -> Iterator[None]:
    """Name the stage in whatever fails; raises TrialFailed, or BadEnvironment as it is."""
    try:
        yield
    except BadEnvironment:
        raise
    except Exception as problem:  # any error of a stage is its trial's
        text = str(problem) if isinstance(problem, MetaloomError) else f"{type(problem).__name__}: {problem}"
        raise TrialFailed(f"stage {stage}: {text}") from problem


class _Beat(Heartbeat):
    """The heartbeat of a trial while one of its stages is trained: it also notes how far the stage is."""

    def __init__(self, directory: Path, at: Callable[[], AtStage]) -> None:
        super().__init__(directory)
        self._directory, self._at = directory, at

    def show(self) -> None:
        """Show progress to other processes."""
        super().show()
        if self._directory.is_dir():
            note_at_stage(self._directory, self._at())


@dataclass(frozen=True)
class _Stage:
    """A stage that a trial asks for.

    Attributes:
        name: As the experiment calls it.
        config: It as a trial of its own.
        folder: In the store.
        networks: Of the stages before it, by name.
        starts: The digests of those that it starts from.
        asker: The folder of the trial that asks for it.
    """

    name: str
    config: TrialConfig
    folder: Path
    networks: Mapping[str, Tensors]
    starts: Mapping[str, str]
    asker: Path
    cache: Path

    def finished(self) -> StageRecord:
        """Return the record of the finished stage, which is trained first where nothing has."""
        if (found := self._found()) is not None:
            return found
        with self._locked():
            return self._found() or self._trained()

    def _found(self) -> StageRecord | None:
        record = read_stage(self.folder)
        if record is None or not _is_whole(self.folder / names.STAGE_BUNDLE):
            return None
        return replace(record, name=self.name, reused=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the stage's lock within this context; while another process has it, show that this one waits."""
        _make(self.folder)
        lock, steps = filelock.FileLock(self.folder / LOCK), int(self.config.outer["steps"])
        beat = _Beat(self.asker, lambda: AtStage(self.name, 0, steps, waits=True))
        with doing(f"stage {self.name}: waiting for the process that trains it"):
            while True:
                try:
                    lock.acquire(timeout=0)
                    break
                except filelock.Timeout:
                    beat.beat()
                    time.sleep(LOOK_S)
        try:
            yield
        finally:
            lock.release()

    def _trained(self) -> StageRecord:
        """Train the stage from its newest checkpoint, export it, and note its facts last."""
        steps = int(self.config.outer["steps"])
        beat = _Beat(self.asker, lambda: AtStage(self.name, trial.step, steps, seconds=_seconds_of(trial)))
        start = bundle_start(self.config.learner, self.networks)
        after = Beginning(start, heartbeat=beat, label=f"stage {self.name}")
        trial = Trial(self.config, self.folder, cache=self.cache, after=after)
        try:
            beat.show()
            while not trial.finished:
                trial.advance()
            report, metric = trial.last_report, trial.metric
        finally:
            trial.close()
        assert report is not None  # a finished trial has reported
        record = StageRecord(
            name=self.name,
            digest=self.folder.name,
            method=str(self.config.learner.get("method") or "custom"),
            source=str(self.config.tasks.get("source", "")),
            metric=metric,
            value=report.metrics[metric],
            interval=report.interval,
            steps=report.step,
            seconds=report.seconds,
            starts=self.starts,
        )
        bundle = self.folder / names.STAGE_BUNDLE
        shutil.rmtree(bundle, ignore_errors=True)  # damaged, or of a process that was killed before it noted the facts
        origin = {"stage": self.name, "digest": record.digest, metric: record.value, "interval": list(record.interval)}
        write_bundle(self.folder, bundle, origin=origin, evaluation=None)
        write_stage(self.folder, record)
        return record


def _seconds_of(trial: Trial) -> float:
    """Return the seconds that a trial took up to its last checkpoint, all attempts together."""
    return 0.0 if trial.last_report is None else trial.last_report.seconds


def _make(folder: Path) -> None:
    """Make the folder of a stage; raises StorageError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as problem:
        raise durable.storage_error(folder, problem) from problem


def _is_whole(bundle: Path) -> bool:
    try:
        read_manifest(bundle)
    except (BundleError, OSError):
        return False
    return True
