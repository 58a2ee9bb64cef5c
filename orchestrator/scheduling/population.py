"""Population-based training: the worst trials copy the checkpoints and knobs of the best.

Jaderberg et al., 2017, https://arxiv.org/abs/1711.09846, section 3 (truncation selection, perturbation).

No two trials copy one checkpoint with the same knobs: they would be equal afterwards, because episodes do not depend on
the trial. The population moves in generations: every ``interval_steps`` a trial pauses until all others have reached
the same step. So a donor's newest checkpoint is that of the step of its comparison, every concurrency gives the same
decisions, and a replay of the journal gives them again.
"""

import json
import math
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from metaloom.learners.domains import Bounds, Real
from metaloom.orchestrator.proposing.study import real_bounds
from metaloom.orchestrator.scheduling.base import PAUSE, Exploit, Scheduler, Steps, Verdict, first_steps, objective_of
from metaloom.search_spaces.sections.strategies import SCHEDULERS
from metaloom.workers.records.names import CHECKPOINTS_FOLDER, trial_directory
from metaloom.workers.records.search import SearchRecord, TrialRecord

REDRAWS = 32  # one draw in four resamples a knob; none of 32 draws does with probability 0.0001
EXCHANGED_FILE = "exchanged.json"  # in a trial's directory: the last generation whose checkpoint was copied there


@SCHEDULERS.register("pbt")
@dataclass(frozen=True)
class PopulationBasedTraining(Scheduler):
    """Population-based training: the worst trials go on from copies of the best, with perturbed knobs.

    Attributes:
        interval_steps: Outer steps from one generation to the next; null: every validation.
        quantile: The worst ``quantile`` copies the best ``quantile``.
        resample_probability: The probability that a copied knob is drawn from its range instead of perturbed.
        factor: A perturbed knob is multiplied or divided by it.
    """

    least_trials: ClassVar[int] = 4
    copies_state: ClassVar[bool] = True
    interval_steps: Steps = None
    quantile: Annotated[float, Real(0.1, 0.5, per=()), Bounds(above=0, at_most=0.5)] = 0.25
    resample_probability: Annotated[float, Real(0.0, 1.0, per=()), Bounds(at_least=0, at_most=1)] = 0.25
    factor: Annotated[float, Real(1.1, 2.0, per=()), Bounds(above=1)] = 1.2

    def judge(self, state: SearchRecord, trial: TrialRecord) -> Verdict:
        """Pause the trial if its report completes its generation."""
        before = trial.reports[-2].step if len(trial.reports) > 1 else 0
        generation = self._generation(trial)
        if generation > before // first_steps(self.interval_steps, trial):
            return Verdict(PAUSE, f"waits for generation {generation} of the population")
        return Verdict()

    def may_start(self, state: SearchRecord, trial: TrialRecord) -> bool:
        """Return whether a paused trial's generation is complete; its exchange is journalled by then."""
        generation = self._generation(trial)
        return generation == 0 or self._is_complete(state, generation)

    def exploits(self, state: SearchRecord, *, seed: int) -> Sequence[Exploit]:
        """Return the exchanges of the generation that has just been completed, if any."""
        alive = [trial for trial in state.trials.values() if not trial.ended]
        generation = min((self._generation(trial) for trial in alive), default=0)
        handled = any(trial.generation >= generation for trial in state.trials.values())
        if len(alive) < 2 or generation == 0 or handled or not self._is_complete(state, generation):
            return ()
        return self._exchange(state, alive, generation, seed)

    def _exchange(self, state: SearchRecord, alive: Sequence[TrialRecord], generation: int, seed: int) -> list[Exploit]:
        objective = objective_of(state)
        ranked = sorted(alive, key=lambda trial: (-objective.score(trial.reports[-1].metrics), trial.number))
        count = min(max(1, int(len(ranked) * self.quantile)), len(ranked) // 2)
        exchanges: list[Exploit] = []
        for trial in ranked[len(ranked) - count :]:
            donors = [donor for donor in ranked[:count] if donor.step == trial.step]
            if not donors:  # the interval of reports is a searched knob: no trial can be compared at this step
                continue
            draw = random.Random(f"{seed}/{generation}/{trial.number}")
            donor = draw.choice(donors)
            params = self._explored(donor, draw)
            for _ in range(REDRAWS):
                if not any((other.donor, other.params) == (donor.number, params) for other in exchanges):
                    break
                params = self._explored(donor, draw)
            exchanges.append(Exploit(trial.number, donor.number, trial.step, generation, params))
        return exchanges

    def _explored(self, donor: TrialRecord, draw: random.Random) -> dict[str, Any]:
        """Return the donor's parameters, each real one perturbed or resampled within its bounds.

        Whole numbers and choices stay, because the checkpoint's shapes depend on them.
        """
        changed = dict(donor.params)
        for name in sorted(changed):
            bounds = real_bounds(donor.distributions[name])
            if bounds is None:
                continue
            low, high, log = bounds
            if draw.random() >= self.resample_probability:
                value = changed[name] * draw.choice((self.factor, 1 / self.factor))
            else:
                value = math.exp(draw.uniform(math.log(low), math.log(high))) if log else draw.uniform(low, high)
            changed[name] = min(max(value, low), high)
        return changed

    def _is_complete(self, state: SearchRecord, generation: int) -> bool:
        """Return whether every trial of the population has ended or reached ``generation``."""
        if state.settings is None or len(state.trials) < state.settings.trials:
            return False
        return all(trial.ended or self._generation(trial) >= generation for trial in state.trials.values())

    def _generation(self, trial: TrialRecord) -> int:
        return trial.step // first_steps(self.interval_steps, trial) if trial.reports else 0


def take_over(donor: Path, directory: Path, *, generation: int) -> None:
    """Replace a trial's checkpoints with the donor's, once per generation."""
    marker = directory / EXCHANGED_FILE
    if marker.exists() and json.loads(marker.read_text())["generation"] >= generation:
        return
    aside = directory / f"{CHECKPOINTS_FOLDER}.new"
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(donor / CHECKPOINTS_FOLDER, aside)
    shutil.rmtree(directory / CHECKPOINTS_FOLDER, ignore_errors=True)
    aside.rename(directory / CHECKPOINTS_FOLDER)
    marker.write_text(json.dumps({"generation": generation}))


def take_over_all(folder: Path, waiting: Sequence[TrialRecord]) -> None:
    """Copy the donors' checkpoints. Repeated after a kill: no trial starts before all are copied.

    Args:
        folder: The search's.
    """
    for trial in waiting:
        if trial.exploited is not None:
            donor = trial_directory(folder, int(trial.exploited["donor"]))
            take_over(donor, trial_directory(folder, trial.number), generation=trial.generation)
