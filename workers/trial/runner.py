"""One trial: meta-train, validate, record, checkpoint, report; again, until there is nothing left to do."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Generator

from metaloom.learners.base import Learner
from metaloom.learners.hypergradients.problem import Mapper, one_by_one
from metaloom.learners.networks.base import discretized
from metaloom.learners.state import LearnerState
from metaloom.learners.tensors import Tensors
from metaloom.workers.assembly import Assembly, assemble, learner_of
from metaloom.workers.checkpoint import CheckpointFolder, Knowledge, check_same_leaves, settled, write_knowledge
from metaloom.workers.data.base import SampledEpisode
from metaloom.workers.failures import check_finite, check_validation, memory_advice
from metaloom.workers.outer import OPTIMIZERS
from metaloom.workers.progress import Progress, Tally, solution_text, with_validation_of
from metaloom.workers.records import names
from metaloom.workers.records.episode_files import EpisodeRecorder, Seen
from metaloom.workers.records.trial import Report, TrialConfig
from metaloom.workers.scoring import Evaluation, describe, evaluate_learner, mean_interval
from metaloom.workers.seeds import derive_generator
from metaloom.workers.trial.folder import count_parameters, describe_trial, described_estimator, own_start
from metaloom.workers.trial.loop import OuterLoop, OuterStep, Stage, TrialState


class Trial:
    """The default ``TrialRunner``: learns phi in ``directory``, going on from its newest good checkpoint.

    Args:
        config: Everything that determines the trial.
        directory: Its own folder; created if absent.
        cache: Where task sources keep what they have made.
        assembly: Source, learner and device, if the caller holds them already.
        mapper: Evaluates the perturbations of an estimator that has some; in this process, where nothing is said.

    Raises:
        BadInput: The configuration cannot work.
        BadEnvironment: The device is not there, or the directory cannot be written.
        CheckpointError: The directory belongs to a newer version of metaloom.
        TrialFailed: There is not the memory to begin.
    """

    def __init__(
        self,
        config: TrialConfig,
        directory: Path,
        *,
        cache: Path,
        assembly: Assembly | None = None,
        mapper: Mapper = one_by_one,
    ) -> None:
        with memory_advice(config):
            start = own_start(directory)  # code that it names was admitted with its search
            parts = assembly or assemble(config, cache=cache, start=start, mapper=mapper, trust_code=True)
        self.config, self.directory, self._mapper = config, directory, mapper
        self.source, self.learner = parts.source, parts.learner
        self.device, self.outer = parts.device, parts.outer
        self.metric = f"{names.VALIDATION}_{self.learner.task.task_kind.metric}"
        self._recorder = EpisodeRecorder(directory / names.EPISODES_FOLDER, parts.origin(config))
        self._checkpoints = CheckpointFolder(directory / names.CHECKPOINTS_FOLDER)
        self._progress = Progress()
        self._state = TrialState()
        self._best: Knowledge | None = None
        self._notes: tuple[str, ...] = ()
        self._warnings: tuple[str, ...] = ()
        with memory_advice(config):
            self._restore_or_begin()
        self._describe()

    @property
    def step(self) -> int:
        """Outer steps done."""
        return self._progress.step

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self._progress.finished

    @property
    def last_report(self) -> Report | None:
        """The report of the checkpoint the trial stands at; None before the first."""
        return self._progress.last

    @property
    def phi(self) -> Tensors:
        """The meta-knowledge as it stands; at the end, that which is kept."""
        return dict(self._state.phi)

    @property
    def state(self) -> LearnerState:
        """The learner's state."""
        return self._state.learner

    def advance(self) -> Report:
        """Train to the next validation, validate, write the episodes' part and a checkpoint, report.

        Raises:
            TrialFailed: A loss or gradient is not finite, or memory ran out.
            StorageError: The disk is full; what was written before is intact.
            ValueError: The trial is finished.
        """
        if self.finished:
            raise ValueError(f"trial {self.config.trial} is finished: there is nothing to advance to")
        started = time.perf_counter()
        with memory_advice(self.config):
            if self.config.retrain_steps and self._progress.retraining is None and self.step >= self.outer.steps:
                self._begin_retraining()
            tally = self._train(self._next_validation())
            evaluation = self._validate()
        self._recorder.write(self.step)
        report = self._report(tally, evaluation, time.perf_counter() - started)
        self._store(report)
        return report

    def close(self) -> None:
        """Let go of memory; the trial is in its directory."""
        self._state, self._best = TrialState(), None

    @property
    def _loop(self) -> OuterLoop:
        return OuterLoop(self.learner, self.outer, self.device.precision, self._generator)

    def _train(self, end: int) -> Tally:
        tally, loop = Tally(), self._loop
        stage = Stage(0 if self._progress.retraining is None else self.outer.steps, self._stage_end())
        while self.step < end:
            started = time.perf_counter()
            sampled = self._sample(loop.first_episode(self.step))
            episodes = [one.episode.to(self.device.torch, self.device.dtype) for one in sampled]
            taken = loop.estimate(self._state, episodes)
            check_finite(taken.meta, taken.norm, self.config, self.step)
            self._state = loop.move(self._state, taken, episodes, stage)
            tally.add(taken.meta, taken.norm)
            self._record(sampled, taken, loop.first_episode(self.step), time.perf_counter() - started)
            self._progress.step = self._state.step
            self._progress.episodes += len(sampled)
        return tally

    def _sample(self, first: int) -> list[SampledEpisode]:
        """Draw the episodes of an outer step: which they are depends on nothing but the step."""
        available = self.source.available(names.TRAIN)
        numbers = range(first, first + self.outer.meta_batch)
        return [self.source.episode(names.TRAIN, n if available is None else n % available) for n in numbers]

    def _validate(self) -> Evaluation:
        """Score the meta-validation episodes: the same at every validation of every trial of the search."""
        phi, state, count = self._state.phi, self._state.learner, self.outer.validation_episodes
        split, device, seeds = names.VALIDATION, self.device, self.config.seeds
        evaluation = evaluate_learner(self.learner, phi, state, self.source, split, count, device=device, seeds=seeds)
        check_validation(evaluation.mean, self.config, self.step)
        self._recorder.add(Seen(split, self.step, evaluation.drawn, evaluation.outcomes, evaluation.seconds))
        self._progress.episodes += evaluation.episodes
        return evaluation

    def _record(self, sampled: list[SampledEpisode], taken: OuterStep, first: int, seconds: float) -> None:
        drawn = [describe(one, first + i, self.learner) for i, one in enumerate(sampled)]
        seen = Seen(names.TRAIN, self.step, drawn, taken.meta.outcomes, seconds / len(sampled), taken.norm)
        self._recorder.add(seen)

    def _next_validation(self) -> int:
        every = self.outer.validate_every
        return min(self.step - self.step % every + every, self._stage_end())

    def _last_step(self) -> int:
        """Nothing is learned without phi or an inner state that persists: such a learner is only scored."""
        steps = self.outer.steps + self.config.retrain_steps
        return steps if self._state.phi or self.learner.online else 0

    def _stage_end(self) -> int:
        """Return the step at which learning ends, or retraining once it has begun."""
        learning = self.config.retrain_steps and self._progress.retraining is None
        return self.outer.steps if learning else self._last_step()

    def _begin_retraining(self) -> None:
        """Go on with the network that the relaxed one has chosen, from new weights: it alone is validated."""
        chosen = discretized(self.config.learner, self._state.phi)
        self._progress.retraining, self._progress.best, self._progress.stale = chosen, None, 0
        self._best = None
        self.learner = self._retrained(chosen)
        self._begin(self.device.place(self.learner.init(self._generator("retrain", self.step))))
        described = ", ".join(f"{name} {value}" for name, value in chosen["architecture"].items() if name != "kind")
        self._notes = (f"retraining {chosen['architecture']['kind']}: {described}",)
        self._describe()

    def _retrained(self, section: Mapping[str, Any]) -> Learner:
        config = replace(self.config, learner=section)
        return learner_of(config, self.source.shape, mapper=self._mapper, trust_code=True)

    def _report(self, tally: Tally, evaluation: Evaluation, seconds: float) -> Report:
        """Say how the trial stands, and whether it is over."""
        progress = self._progress
        progress.seconds += seconds
        progress.recording_seconds += self._recorder.take_seconds()
        metrics = tally.metrics()
        self._warnings += progress.first_warnings(metrics)
        report = Report(
            step=self.step,
            metrics={**metrics, **self._validated(evaluation)},
            interval=evaluation.interval,
            scores=evaluation.scores,
            episodes=progress.episodes,
            seconds=progress.seconds,
            finished=False,
            hypergradient=described_estimator(self.learner),
        )
        if progress.judge(self.metric, report) and self.outer.keeps_best:
            self._best = self._knowledge()
        return self._conclude(report)

    def _conclude(self, report: Report) -> Report:
        """Decide whether this was the last report, and with what meta-knowledge the trial ends."""
        progress, notes, warnings = self._progress, list(self._notes), self._warnings
        self._notes, self._warnings = (), ()
        patience = self.outer.patience if self._stage_end() == self._last_step() else None
        if patience is not None and progress.stale >= patience and self.step < self._last_step():
            notes.append(f"stopped early at step {self.step}: {progress.stale} validations without improvement")
            progress.finished = True
        progress.finished |= self.step >= self._last_step()
        if progress.finished and self.outer.keeps_best and progress.best and progress.best.step != self.step:
            assert self._best is not None
            self._state = replace(self._state, phi=self._best.phi, learner=self._best.state)
            report = with_validation_of(report, progress.best)  # its numbers are then the trial's
            notes.append(f"kept the meta-knowledge of step {progress.best.step}, which validated best")
        if progress.finished and (solution := solution_text(report.metrics)):
            notes.append(solution)
        return replace(report, finished=progress.finished, notes=tuple(notes), warnings=warnings)

    def _validated(self, evaluation: Evaluation) -> dict[str, float]:
        loss, _, _ = mean_interval(evaluation.losses)
        tensors = (*self._state.phi.values(), *self._state.learner.moving().values())
        return {
            self.metric: evaluation.mean,
            names.VALIDATION_LOSS: loss,
            names.SECONDS: self._progress.seconds,
            names.ADAPT_SECONDS: evaluation.seconds,
            names.PARAMETERS: float(count_parameters(tensors)),
            names.RECORDING_SECONDS: self._progress.recording_seconds,
        }

    def _store(self, report: Report) -> None:
        """Write the checkpoint, and at the end the meta-knowledge."""
        started = time.perf_counter()
        self._progress.last = report
        if self.finished:
            best = self._progress.best if self.outer.keeps_best else None
            path = self.directory / names.META_KNOWLEDGE_FILE
            write_knowledge(path, self._knowledge().groups(), {"step": str((best or report).step)})
        self._checkpoints.write(self._groups(), self._progress.to_json())
        self._place(self._groups())
        self._progress.seconds += time.perf_counter() - started

    def _groups(self) -> dict[str, Tensors]:
        """Every tensor of the trial, by group."""
        best = {} if self._best is None else self._best.groups()
        kept = {f"best_{group}": tensors for group, tensors in best.items()}
        return {**self._knowledge().groups(), "optimizer": self._state.optimizer, **kept}

    def _knowledge(self) -> Knowledge:
        return Knowledge(self._state.phi, self._state.learner, self.step)

    def _place(self, groups: Mapping[str, Tensors]) -> None:
        """Go on from these tensors, as a process that read them from a file would."""
        placed = {group: settled(self.device.place(tensors)) for group, tensors in groups.items()}
        now = Knowledge.of(placed, self.step)
        best = {group.removeprefix("best_"): placed[group] for group in placed if group.startswith("best_")}
        self._state = TrialState(self.step, now.phi, now.state, placed.get("optimizer", {}))
        self._best = Knowledge.of(best, self.step) if best else None

    def _restore_or_begin(self) -> None:
        found, self._warnings = self._checkpoints.newest()
        if found is not None and found.facts.get("retraining"):
            self.learner = self._retrained(found.facts["retraining"])
        phi = self.learner.init(self._generator("init", 0))
        if found is None:
            self._begin(self.device.place(phi))
        else:
            check_same_leaves(phi, found.tensors.get("phi", {}), self.directory)
            self._progress = Progress.from_json(found.facts)
            self._place(found.tensors)
            fresh = OPTIMIZERS[self.outer.optimizer][0](self._state.phi)
            if fresh.keys() != self._state.optimizer.keys():  # taken over from a trial with another optimizer
                self._state = replace(self._state, optimizer=fresh)
        self._recorder.resume(self.step)

    def _begin(self, phi: Tensors) -> None:
        begun = self._loop.begin(phi)
        self._place({**Knowledge(phi, begun.learner, 0).groups(), "optimizer": begun.optimizer})

    def _generator(self, purpose: str, step: int) -> Generator:
        return derive_generator(self.config.seed, self.config.trial, step, purpose, version=self.config.seeds)

    def _describe(self) -> None:
        describe_trial(self.directory, self.config, self._progress.retraining or self.config.learner, self.learner)
