"""S1: a search section that is learned on some tables of results, on others, against Optuna's TPE.

The tables and their division are in ``search_tables``. The number is how many trials a search takes until it has found
what Optuna's TPE finds in 200 trials on the same table from the same seed: the median over the held-out tables and ten
seeds. A search that does not find it counts as 201. A configuration is worth the mean of its recorded runs.
"""

import itertools
import math
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import optuna

from benchmarks.reproductions.harness import Row, kept
from benchmarks.reproductions.search_tables import HELD_OUT, LEARNED_ON
from metaloom.orchestrator.api import search
from metaloom.orchestrator.export import export
from metaloom.orchestrator.learned_section import LearnedSection, read_section, written
from metaloom.orchestrator.simulation.learned import simulated
from metaloom.workers.data.result_tables import ResultTable
from metaloom.workers.data.result_tables.grid import GridTable
from metaloom.workers.data.result_tables.opening import open_table

TRIALS = 200  # of the reference, and at most of every search
MOST, MOST_OF_PORTFOLIO = 100, 30  # of the learned section, and of its portfolio
WHOLE = f"a portfolio of {MOST_OF_PORTFOLIO}, then TPE"
SEEDS = range(10)  # of the searches on a held-out table
Curves = dict[str, list[list[float]]]  # of a table: a list of regrets by trial for each seed
PORTFOLIO = {"search": {"low": 0, "high": 30}}
EXPERIMENT: Mapping[str, Any] = {
    "name": "searches",
    "tasks": {
        "source": "searches",
        "tables": list(LEARNED_ON),
        "test": list(HELD_OUT),
        "budget": MOST,
        "searches": 2,
    },
    "learner": {
        "method": "search_settings",
        "prediction": {
            "search": [
                {
                    "kind": "search_settings",
                    "sampler": {
                        "kind": "tpe",
                        "startup_trials": {"search": [5, 10, 20]},
                        "multivariate": {"search": [True, False]},
                    },
                    "portfolio": PORTFOLIO,
                },
                {
                    "kind": "search_settings",
                    "sampler": {
                        "kind": "evolution",
                        "population": {"search": [10, 20, 40]},
                        "tournament": {"search": [3, 10]},
                    },
                    "portfolio": PORTFOLIO,
                },
                {"kind": "search_settings", "sampler": "random", "portfolio": PORTFOLIO},
            ]
        },
    },
    "search": {"trials": 16},
}


def learned_section(seed: int) -> LearnedSection:
    """Run the search over searches, and read the section from the bundle of its best trial."""
    with tempfile.TemporaryDirectory() as folder:
        search(EXPERIMENT, store=folder, executor="inline", seed=seed, name="over")
        return read_section(export("over", Path(folder) / "bundle", episodes=0, store=folder))


def measured_section(seed: int) -> dict[str, Any]:
    """Return a learned section as JSON values."""
    return asdict(learned_section(seed))


def optuna_tpe(name: str, seed: int) -> list[float]:
    """Return the regrets of Optuna's own TPE, asked as the package's example asks it: a number by its index."""
    table = open_table(name)
    assert isinstance(table, GridTable)
    study = optuna.create_study(direction=table.direction, sampler=optuna.samplers.TPESampler(seed=seed))
    grid = itertools.product(*(range(len(levels)) for levels in table.levels.values()))
    places = {key: place for place, key in enumerate(grid)}
    found: list[float] = []
    for _ in range(TRIALS):
        trial, key = study.ask(), []
        for knob, levels in table.levels.items():
            if isinstance(levels[0], str):
                key.append(list(levels).index(trial.suggest_categorical(knob, list(levels))))
            else:
                key.append(trial.suggest_int(knob, 0, len(levels) - 1))
        value = float(table.values[places[tuple(key)]])
        study.tell(trial, value)
        found.append(min(table.regret(value), *found[-1:] or [float("inf")]))
    return found


def _regret(table: ResultTable, worth: float | None) -> float:
    return math.inf if worth is None else table.regret(worth)


def reference() -> Curves:
    """Return the regrets of Optuna's TPE on every held-out table."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return {name: [optuna_tpe(name, seed) for seed in SEEDS] for name in HELD_OUT}


def curves(sampler: Any, scheduler: Any = "none", section: LearnedSection | None = None, tried: int = 0) -> Curves:
    """Return the regrets of our own searches on every held-out table.

    Args:
        sampler: Of the searches.
        scheduler: Likewise.
        section: What has the portfolios; None without.
        tried: How many configurations of a portfolio are tried first.
    """
    found: Curves = {}
    for name in HELD_OUT:
        table, starts = open_table(name), []
        for one in section.portfolios if section else ():
            if set(one["knobs"]) == set(table.domains):
                starts = one["portfolio"][:tried]
        runs = [
            simulated(table, sampler=sampler, scheduler=scheduler, starts=starts, trials=TRIALS, seed=seed)
            for seed in SEEDS
        ]
        found[name] = [[_regret(table, end.worth) for end in run.ends] for run in runs]
    return found


def trials_to_reach(found: Curves, wanted: Curves) -> dict[str, list[int]]:
    """Return for each table and seed the trials until a search has what the reference has at its end."""
    return {
        name: [
            next((at for at, regret in enumerate(run, 1) if regret <= other[-1] + 1e-12), TRIALS + 1)
            for run, other in zip(runs, wanted[name], strict=True)
        ]
        for name, runs in found.items()
    }


def median_of(counts: Mapping[str, Sequence[int]]) -> float:
    """Return the median over all tables and seeds."""
    return float(statistics.median([count for each in counts.values() for count in each]))


def s1(seeds: Sequence[int], cache: Path) -> list[Row]:
    """Learn a search section for each seed, and count the trials that it needs on the held-out tables."""
    wanted: Curves = kept(cache, "S1-optuna", reference)
    sections = [LearnedSection(**kept(cache, f"S1-section-{seed}", partial(measured_section, seed))) for seed in seeds]
    learned = []
    for seed, section in zip(seeds, sections, strict=True):
        measure = partial(curves, section.sampler, section.scheduler, section, section.tried)
        learned.append(trials_to_reach(kept(cache, f"S1-learned-{seed}", measure), wanted))
    # the portfolio depends on the tables alone, and so is the same for all seeds
    measure = partial(curves, "tpe", "none", sections[0], MOST_OF_PORTFOLIO)
    whole = trials_to_reach(kept(cache, "S1-portfolio", measure), wanted)
    told = "; ".join(map(_described, sections))
    rows = [
        _row("learned section", learned, MOST, f"sections: {told}"),
        _row(WHOLE, [whole], MOST_OF_PORTFOLIO, "learned on the other tables"),
        _row("Optuna's TPE", [trials_to_reach(wanted, wanted)], None, "Optuna's own defaults: the reference itself"),
    ]
    for name in ("tpe", "random"):
        control = kept(cache, f"S1-{name}", partial(curves, name))
        rows.append(_row(f"{name}, our defaults", [trials_to_reach(control, wanted)], None, "no portfolio"))
    for table in HELD_OUT:
        for what, counts in (("learned section", learned), (WHOLE, [whole])):
            rows.append(_row(f"{what}, {table} alone", [{table: one[table]} for one in counts], None, "10 seeds"))
    return rows


def _row(what: str, counts: Sequence[Mapping[str, Sequence[int]]], most: int | None, setting: str) -> Row:
    """Return the medians of each seed of the learning, held to the gate by their mean."""
    values = tuple(map(median_of, counts))
    reached = None if most is None else sum(values) / len(values) <= most
    gate = "" if most is None else f"<= {most} trials to Optuna TPE's best of {TRIALS}"
    return Row("S1", f"median trials to reach it: {what}", values, None, gate, reached, setting)


def _described(section: LearnedSection) -> str:
    return f"{written(section.sampler)}, {section.tried} of the portfolio first"
