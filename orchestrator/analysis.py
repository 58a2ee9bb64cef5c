"""What the pages need worked out of a search's records: importances of its knobs, and the rungs of its scheduler."""

import random
import statistics
import threading
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from metaloom.dashboards.analysis import METHODS, ImportanceEstimate, KnobImportance
from metaloom.learners.errors import BadInput, unknown
from metaloom.orchestrator.scheduling.base import build_scheduler
from metaloom.search_spaces.sections.strategies import KIND, schedulers
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.search import SearchRecord

if TYPE_CHECKING:  # importing them takes 150 MB, which the server of the pages never needs
    from optuna.trial import FrozenTrial

    from metaloom.orchestrator.proposing.importance import Explained

SEEDS = {"ped-anova": 10, "fanova": 5}
TREES = 16  # of a forest; with 64 the shares move by less than their error over seeds, in four times the time
MOST_OF_A_FOREST = 250  # trials: the time of a forest grows with their number, by a second for these
HOW = {
    "ped-anova": "PED-ANOVA of all trials; a seed draws as many of them again, with repetition",
    "fanova": f"fANOVA by forests of {TREES} trees; a seed grows one, of at most {MOST_OF_A_FOREST} trials",
}
WAIT_S = 0.5  # for the first seeds
KEPT = 32  # estimates
ASKED_BY = "An importance"


@dataclass
class _Work:
    """The evaluation of one set of trials, seed by seed, in a thread."""

    of: "Explained"
    method: str
    whole: dict[str, float] = field(default_factory=dict)
    draws: list[dict[str, float]] = field(default_factory=list)
    problem: str = ""
    first: threading.Event = field(default_factory=threading.Event)  # there is something to show

    def run(self) -> None:
        """Evaluate all seeds; a study that Optuna refuses becomes the problem."""
        try:
            if self.method == "ped-anova":
                self.whole = self.of.importances()
                self.first.set()
            for seed in range(SEEDS[self.method]):
                self.draws.append(self._draw(seed))
                self.first.set()
        except (RuntimeError, ValueError) as refused:  # such as: no variance in any tree
            self.problem = f"Optuna finds no importances: {refused}"
        finally:
            self.first.set()

    def _draw(self, seed: int) -> dict[str, float]:
        generator, trials = random.Random(seed), list(self.of.trials)
        if self.method == "ped-anova":
            return self.of.importances(trials=resampled(trials, generator))
        chosen = generator.sample(trials, MOST_OF_A_FOREST) if len(trials) > MOST_OF_A_FOREST else trials
        from optuna.importance import FanovaImportanceEvaluator

        return self.of.importances(FanovaImportanceEvaluator(n_trees=TREES, seed=seed), chosen)

    def estimate(self) -> ImportanceEstimate:
        """Return what is known by now."""
        draws = list(self.draws)
        knobs = tuple(_importance(knob, self.whole, draws) for knob in self.of.shared) if self.whole or draws else ()
        return ImportanceEstimate(
            knobs=knobs,
            left_out=tuple(self.of.left_out),
            trials=len(self.of.trials),
            seeds=len(draws),
            asked=SEEDS[self.method],
            how=HOW[self.method],
            problem=self.problem,
        )


class SearchAnalysis:
    """Implements ``dashboards.analysis.Analysis``; safe for threads."""

    def __init__(self) -> None:
        self._works: dict[Hashable, _Work] = {}
        self._lock = threading.Lock()

    def importances(self, name: str, search: SearchRecord, *, metric: str, method: str) -> ImportanceEstimate:
        """Return the importances by the seeds that are evaluated within half a second, or were before.

        They are kept by the search and the values of its finished trials. Raises BadInput for an unknown method.
        """
        if method not in METHODS:
            raise BadInput(unknown("method", method, METHODS))
        from metaloom.orchestrator.proposing.importance import explained

        finished = search.in_state(records.FINISHED)
        values = tuple((one.number, ranking.value(search, one, metric)) for one in finished)
        key = (name, search.created_at, metric, method, values)
        with self._lock:
            work = self._works.get(key)
            if work is None:
                try:
                    work = _Work(explained(name, search, metric=metric, asked_by=ASKED_BY), method)
                except BadInput as problem:
                    return ImportanceEstimate(problem=str(problem))
                self._works[key] = work
                while len(self._works) > KEPT:
                    del self._works[next(iter(self._works))]
                threading.Thread(target=work.run, name="importances", daemon=True).start()
        work.first.wait(WAIT_S)
        return work.estimate()

    def rungs(self, search: SearchRecord) -> Sequence[int]:
        """Return the rungs of the search's scheduler; none of a plugin's that is not installed here."""
        if search.settings is None or str(search.settings.scheduler[KIND]) not in schedulers():
            return ()
        return build_scheduler(search.settings.scheduler).rungs(search)


def resampled(trials: "Sequence[FrozenTrial]", generator: random.Random) -> "list[FrozenTrial]":
    """Draw as many trials again, with repetition; two different values are among them."""
    while True:
        drawn = generator.choices(trials, k=len(trials))
        if len({one.value for one in drawn}) > 1:
            return drawn


def _importance(knob: str, whole: dict[str, float], draws: Sequence[dict[str, float]]) -> KnobImportance:
    """Return a knob's importance by all trials, or by the mean of the forests."""
    by_seed = tuple(draw[knob] for draw in draws)
    share = whole[knob] if whole else statistics.fmean(by_seed)
    return KnobImportance(knob, share, statistics.stdev(by_seed) if len(by_seed) > 1 else None, by_seed)
