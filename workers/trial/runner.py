"""One trial: meta-train, validate, record, checkpoint, report, until it is finished."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Generator

from metaloom.learners.hypergradients.problem import Mapper, one_by_one
from metaloom.learners.networks.base import discretized
from metaloom.learners.state import LearnerState
from metaloom.learners.tensors import Tensors
from metaloom.workers.activity import doing
from metaloom.workers.assembly import Assembly, assemble, describe_trial, own_start
from metaloom.workers.checkpoint import CheckpointFolder, Knowledge
from metaloom.workers.data.base import SampledEpisode
from metaloom.workers.data.features import Features
from metaloom.workers.device import peak_memory
from metaloom.workers.failures import check_finite, check_validation, memory_advice
from metaloom.workers.heartbeat import Heartbeat
from metaloom.workers.progress import Progress, Tally, scored, solution_text, validated, with_validation_of
from metaloom.workers.records import names
from metaloom.workers.records.episode_files import EpisodeBatch, EpisodeRecorder
from metaloom.workers.records.trial import Report, TrialConfig
from metaloom.workers.scoring import Evaluation, evaluate_learner
from metaloom.workers.seeds import derive_generator
from metaloom.workers.trial.beginning import FIRST, Beginning, check_leaves
from metaloom.workers.trial.episodes import draw, measured
from metaloom.workers.trial.features import features_of, of_features, on_features, opened
from metaloom.workers.trial.laps import Laps
from metaloom.workers.trial.loop import OuterLoop, Stage, TrialState
from metaloom.workers.trial.shown import ForReaders
from metaloom.workers.trial.stored import groups_of, placed
from metaloom.workers.ways import Build, LearnersByWays, build_of, describe, ways_of, ways_of_split


class Trial:
    """The default ``TrialRunner``: learns phi in ``directory``, going on from its newest undamaged checkpoint.

    ``cache`` is where task sources keep their prepared data; ``mapper`` evaluates the perturbations of an estimator
    that has some, by default in this process. A caller that has source, learner and device already gives them as
    ``assembly``; ``after`` are the stages before it.

    Raises:
        BadInput: The configuration cannot work.
        BadEnvironment: The device is absent, or the directory cannot be written.
        CheckpointError: The directory belongs to a newer version of metaloom.
        TrialFailed: There is not enough memory to begin.
    """

    def __init__(
        self,
        config: TrialConfig,
        directory: Path,
        *,
        cache: Path,
        assembly: Assembly | None = None,
        mapper: Mapper = one_by_one,
        after: Beginning = FIRST,
    ) -> None:
        with memory_advice(config):
            start = own_start(directory, after.network)  # code that it names was trusted when its search began
            parts = assembly or assemble(config, cache=cache, start=start, mapper=mapper, trust_code=True)
        self.config, self.directory, self._mapper = config, directory, mapper
        self.source, self.learner, self.device, self.outer = parts.source, parts.learner, parts.device, parts.outer
        self.metric = f"{names.VALIDATION}_{self.learner.task.task_kind.metric}"
        self._recorder = EpisodeRecorder(directory / names.EPISODES_FOLDER, parts.origin(config))
        self._checkpoints = CheckpointFolder(directory / names.CHECKPOINTS_FOLDER)
        self._progress, self._state, self._heartbeat = Progress(), TrialState(), after.heartbeat or Heartbeat(directory)
        self._after, self._label = after.stages, after.label or f"trial {config.trial}"
        self._best: Knowledge | None = None
        self._notes, self._warnings = tuple[str, ...](), tuple[str, ...]()  # of the next report
        self._features: Features | None = None  # of examples that no trial step can change
        with memory_advice(config):
            self._restore_or_begin()
            self._compute_features(cache)
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
        """The present meta-knowledge; at the end, the kept one."""
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
        started, spent = time.perf_counter(), self._progress.seconds
        far = doing(self._label, total=self._last_step(), noun="outer steps", done=lambda: self.step, spent=spent)
        with memory_advice(self.config), far:
            if self.config.retrain_steps and self._progress.retraining is None and self.step >= self.outer.steps:
                self._begin_retraining()
            every = self.outer.validate_every
            if not self.step:
                self._show()
            tally = self._train(min(self.step - self.step % every + every, self._stage_end()))
            evaluation = self._validate()
        parts = self._recorder.begin_part(self.step)
        report = replace(self._report(tally, evaluation, time.perf_counter() - started), parts=parts)
        self._store(report)
        return report

    def close(self) -> None:
        """Release memory and the thread that writes; the trial is in its directory."""
        self._recorder.close()
        self._state, self._best = TrialState(), None

    def _loop(self, sampled: SampledEpisode | None = None) -> OuterLoop:
        learner = self.learner if sampled is None else self._by_ways.in_training(ways_of(sampled, self.learner.task))
        return OuterLoop(learner, self.outer, self.device.precision, self._generator)

    def _train(self, end: int) -> Tally:
        tally, stage = Tally(), Stage(0 if self._progress.retraining is None else self.outer.steps, self._stage_end())
        while self.step < end:
            laps, first = Laps(self._progress.costs), self._loop().first_episode(self.step)
            sampled = draw(self.source, first + self.config.first_episode, self.outer.meta_batch)
            loop = self._loop(sampled[0])
            episodes = [one.episode.to(self.device.torch, self.device.dtype) for one in sampled]
            laps.end(names.SAMPLING_SECONDS)
            taken = loop.estimate(self._state, episodes)
            laps.end(names.INNER_SECONDS)
            check_finite(taken.meta, taken.norm, self.config, self.step)
            self._state = loop.move(self._state, taken, episodes, stage)
            tally.add(taken.meta, taken.norm, [one.source for one in sampled])
            laps.end(names.OUTER_SECONDS)
            seconds = laps.seconds / len(sampled)
            facts = [describe(one, first + i, self.learner) for i, one in enumerate(sampled)]
            self._recorder.add(EpisodeBatch(names.TRAIN, self.step, facts, taken.meta.outcomes, seconds, taken.norm))
            self._progress.step = self._state.step
            self._progress.episodes += len(sampled)
            self._heartbeat.beat()
        return tally

    def _validate(self) -> Evaluation:
        """Score the meta-validation episodes: the same at every validation of every trial of the search."""
        split, source, device, seeds = names.VALIDATION, self.source, self.device, self.config.seeds
        at, count = self._by_ways.at(ways_of_split(source, split)), self.outer.validation_episodes
        phi, state, done = self._state.phi, at.state(self._state.learner, device), self._heartbeat.beat
        laps = Laps(self._progress.costs)
        found = evaluate_learner(at.learner, phi, state, source, split, count, device=device, seeds=seeds, done=done)
        laps.end(names.VALIDATING_SECONDS)
        check_validation(found.mean, self.config, self.step)
        self._recorder.add(EpisodeBatch(split, self.step, found.facts, found.outcomes, found.seconds))
        self._progress.episodes += found.episodes
        return found

    def _last_step(self) -> int:
        """Return the last step: 0 for a learner without phi or a persistent inner state, which is only scored."""
        steps = self.outer.steps + self.config.retrain_steps
        return steps if self._state.phi or self.learner.online else 0

    def _stage_end(self) -> int:
        """Return the step at which learning ends, or retraining once it has begun."""
        learning = self.config.retrain_steps and self._progress.retraining is None
        return self.outer.steps if learning else self._last_step()

    def _begin_retraining(self) -> None:
        """Go on with the discrete form of the relaxed network, from new weights; only it is validated from here."""
        chosen = discretized(self.config.learner, self._state.phi)
        self._progress.retraining, self._progress.best, self._progress.stale = chosen, None, 0
        self.learner, self._best = self._build(chosen)(self.source.shape, None), None
        self._begin(self.learner.init(self._generator("retrain", self.step)))
        described = ", ".join(f"{name} {value}" for name, value in chosen["architecture"].items() if name != "kind")
        self._notes = (f"retraining {chosen['architecture']['kind']}: {described}",)
        self._describe()

    def _build(self, section: Mapping[str, Any]) -> Build:
        build = build_of(replace(self.config, learner=section), mapper=self._mapper)
        return build if self._features is None else lambda task, start: of_features(build(task, start))

    def _report(self, tally: Tally, evaluation: Evaluation, seconds: float) -> Report:
        """Report the validation, and whether the trial is finished."""
        progress, reason = self._progress, self.learner.estimator_reason
        progress.seconds += seconds
        progress.recording_seconds += self._recorder.take_seconds()
        progress.costs |= peak_memory(self.device.torch)
        metrics = tally.metrics()
        self._warnings += progress.first_warnings(metrics)
        leaves = (*self._state.phi.values(), *self._state.learner.moving().values())
        report = Report(
            step=self.step,
            metrics={**metrics, **validated(self.metric, evaluation, progress, leaves)},
            **scored(evaluation),
            episodes=progress.episodes,
            seconds=progress.seconds,
            finished=False,
            hypergradient=f"{self.learner.estimator} (auto: {reason})" if reason else self.learner.estimator,
            stages=tuple(one.to_json() for one in self._after) if progress.last is None else (),
            device=str(self.device.torch),
        )
        if progress.is_best(self.metric, report) and self.outer.keeps_best:
            self._best = self._knowledge()
        return self._conclude(report)

    def _conclude(self, report: Report) -> Report:
        """Decide whether this was the last report, and with what meta-knowledge the trial ends."""
        progress, notes, warnings = self._progress, list(self._notes), self._warnings
        self._notes = self._warnings = ()
        patience = self.outer.patience if self._stage_end() == self._last_step() else None
        notes += progress.ended(patience, last=self._last_step())
        if progress.finished and self.outer.keeps_best and progress.best and progress.best.step != self.step:
            assert self._best is not None
            self._state = replace(self._state, phi=self._best.phi, learner=self._best.state)
            report = with_validation_of(report, progress.best)  # its numbers are then the trial's
            notes.append(f"kept the meta-knowledge of step {progress.best.step}, which validated best")
        if progress.finished and (solution := solution_text(report.metrics)):
            notes.append(solution)
        warnings += progress.last_warnings(report.metrics)
        return replace(report, finished=progress.finished, notes=tuple(notes), warnings=warnings)

    def _store(self, report: Report) -> None:
        started, self._progress.last = time.perf_counter(), report
        best = self._progress.best if self.outer.keeps_best else None
        self._show(replace(self._knowledge(), step=(best or report).step) if self.finished else None)
        # The parts and the checkpoint are written at the same time; the checkpoint is put in place after the parts.
        self._checkpoints.write(self._groups(), self._progress.to_json(), first=self._recorder.wait)
        self._place(self._groups())
        self._progress.seconds += time.perf_counter() - started
        self._progress.recording_seconds += self._recorder.take_seconds()

    def _groups(self) -> dict[str, Tensors]:
        return groups_of(self._state, self._best)

    def _knowledge(self) -> Knowledge:
        return Knowledge(self._state.phi, self._state.learner, self.step)

    def _place(self, groups: Mapping[str, Tensors]) -> None:
        """Go on from these tensors, as a process that read them from a file would."""
        self._state, self._best = placed(groups, self.device, self.step)

    def _restore_or_begin(self) -> None:
        stored, self._warnings = self._checkpoints.newest()
        if stored is not None and stored.facts.get("retraining"):
            self.learner = self._build(stored.facts["retraining"])(self.source.shape, None)
        phi = self.learner.init(self._generator("init", 0))
        if stored is None:
            self._begin(phi)
        else:
            check_leaves(self.directory, phi, stored.tensors.get("phi", {}))
            self._progress = Progress.from_json(stored.facts)
            self._place(stored.tensors)
            self._state = self._loop().with_optimizer(self._state)
        self._recorder.resume(self.step)

    def _begin(self, phi: Tensors) -> None:
        phi = self.device.place(phi)
        begun = self._loop().begin(phi)
        state, self._notes = measured(self.learner, phi, begun.learner, self.source, self.device)
        self._place({**Knowledge(phi, state, 0).groups(), "optimizer": begun.optimizer})

    def _compute_features(self, cache: Path) -> None:
        """Go on with features that are computed once, where nothing moves the network that computes them."""
        state = self._state
        found = self._features = features_of(self.learner, state.phi, state.learner, self.source, self.device, cache)
        if found is None:
            return
        self._notes += opened(found, training=self._last_step() > 0) if self._progress.last is None else ()
        self.learner, self.source = on_features(self.learner, self.source, found)

    def _generator(self, purpose: str, step: int) -> Generator:
        return derive_generator(self.config.seed, self.config.trial, step, purpose, version=self.config.seeds)

    def _show(self, finished: Knowledge | None = None) -> None:
        own = Assembly(self.source, self.learner, self.device, self.outer)
        readers = ForReaders(self.directory, self.config, self._progress.retraining, own, self._by_ways)
        readers.show(self._knowledge(), finished)

    def _describe(self) -> None:
        section = self._progress.retraining or self.config.learner
        self._by_ways = LearnersByWays(self.learner, self._build(section))
        describe_trial(self.directory, self.config, section, self.learner)
