"""V17: DARTS and GDAS against random search, TPE and evolution, on cells few enough to train every network.

125 networks (3 edges, 5 operations each) on the digits, every one trained with three seeds: the truth. A
search method is judged by the regret of what it ends with: the best network's true accuracy minus that of
the one it chose. Random search, TPE and evolution see the validation accuracy of single runs, and may train as many
networks as one DARTS search costs in process time; GDAS takes as many steps as DARTS, which are cheaper.
"""

import hashlib
import itertools
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import torch
from scipy.stats import kendalltau

from benchmarks.reproductions.harness import Row, Trained, train
from metaloom.learners.knowledge.cells import derive_genotype
from metaloom.learners.knowledge.genotypes import OPERATIONS
from metaloom.orchestrator.proposing.samplers.evolution import RegularizedEvolution

TRUTH_SEEDS = (100, 101, 102)
CHANNELS, STEPS, SEARCH_STEPS = 8, 150, 300
DRAWS = 1_000  # random searches that the median is of
TASKS = {"source": "digits", "flat": False, "batch": 64, "meta_batch": 64, "meta_size": 500, "queries": 10}
EVALUATION = {"validation_episodes": 1_000, "test_episodes": 1_000}
CELLS: dict[str, dict[str, Any]] = {
    "darts": {},
    "darts_first_order": {},
    "gdas": {"relaxation": "sampled", "annealing": SEARCH_STEPS},
}
GENOTYPES = ["|".join(operations) for operations in itertools.product(OPERATIONS, repeat=3)]


def network(genotype: str) -> dict[str, Any]:
    """Return the plain training of one genotype."""
    architecture = {"kind": "genotype", "genotype": genotype, "channels": CHANNELS}
    return {
        "tasks": {**TASKS, "meta_size": 50, "meta_batch": 50},
        "learner": {"method": "cross_entropy", "architecture": architecture, "update": {"rate": 0.1}},
        "outer": {"steps": STEPS, "validate_every": STEPS, **EVALUATION},
    }


def truth(cache: Path) -> tuple[dict[str, float], dict[str, float], float]:
    """Return every genotype's mean test accuracy, its validation accuracy in the first run, and seconds a training.

    What was trained under the same protocol is kept beside the task data, and is not trained again.
    """
    protocol = json.dumps([network("GENOTYPE"), TRUTH_SEEDS], sort_keys=True)
    kept = cache / f"cells-truth-{hashlib.sha256(protocol.encode()).hexdigest()[:12]}.json"
    known: dict[str, dict[str, float]] = json.loads(kept.read_text()) if kept.exists() else {}
    for genotype in GENOTYPES:
        if genotype not in known:
            known[genotype] = _trained_truth(genotype, cache)
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(known, indent=1) + "\n")
    tested = {genotype: known[genotype]["tested"] for genotype in GENOTYPES}
    validated = {genotype: known[genotype]["validated"] for genotype in GENOTYPES}
    return tested, validated, statistics.fmean(known[genotype]["seconds"] for genotype in GENOTYPES)


def _trained_truth(genotype: str, cache: Path) -> dict[str, float]:
    """Train one genotype with every seed of the truth."""
    started = time.process_time()
    runs = [train(network(genotype), seed=seed, cache=cache) for seed in TRUTH_SEEDS]
    last = runs[0].trial.last_report
    return {
        "tested": statistics.fmean(run.test().mean for run in runs),
        "validated": 0.0 if last is None else last.metrics["validation_accuracy"],
        "seconds": (time.process_time() - started) / len(TRUTH_SEEDS),
    }


def search_by_gradient(method: str, seed: int, cache: Path) -> tuple[Trained, float]:
    """Run one search of relaxed cells; return it with its process time."""
    architecture = {"kind": "cells", "channels": CHANNELS, **CELLS[method]}
    experiment = {
        "tasks": TASKS,
        "learner": {"method": method, "architecture": architecture},
        "outer": {"steps": SEARCH_STEPS, "rate": 0.01, "validate_every": SEARCH_STEPS, **EVALUATION},
    }
    started = time.process_time()
    found = train(experiment, seed=seed, cache=cache)
    return found, time.process_time() - started


def rank_correlation(alpha: torch.Tensor, tested: Mapping[str, float]) -> float:
    """Return Kendall's tau between what the logits [edges, operations] say of every genotype, and the truth."""
    log_shares = torch.log_softmax(alpha, -1)
    said = [
        sum(float(log_shares[edge, OPERATIONS.index(name)]) for edge, name in enumerate(genotype.split("|")))
        for genotype in GENOTYPES
    ]
    return float(kendalltau(said, [tested[genotype] for genotype in GENOTYPES]).statistic)


def random_choice(validated: Mapping[str, float], budget: int, generator: torch.Generator) -> str:
    """Return the best by validation of ``budget`` genotypes drawn without replacement."""
    drawn = torch.randperm(len(GENOTYPES), generator=generator)[:budget]
    return max((GENOTYPES[int(index)] for index in drawn), key=lambda genotype: validated[genotype])


def proposed_choice(validated: Mapping[str, float], budget: int, sampler: optuna.samplers.BaseSampler) -> str:
    """Return the best by validation of ``budget`` genotypes proposed by a sampler, an edge a knob."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=sampler)

    def accuracy(trial: optuna.Trial) -> float:
        return validated["|".join(trial.suggest_categorical(f"edge{edge}", OPERATIONS) for edge in range(3))]

    study.optimize(accuracy, n_trials=budget)
    return "|".join(study.best_params[f"edge{edge}"] for edge in range(3))


def evolution(seed: int) -> RegularizedEvolution:
    """Return regularized evolution, with a population for as few networks as there are."""
    return RegularizedEvolution(seed=seed, population=4, tournament=2)


def v17(seeds: Sequence[int], cache: Path) -> list[Row]:
    """Regret and rank correlation of DARTS and GDAS; regret of random search, TPE and evolution at equal budget."""
    tested, validated, training_seconds = truth(cache)
    found = {method: [search_by_gradient(method, seed, cache) for seed in seeds] for method in CELLS}
    search_seconds = statistics.fmean(seconds for _, seconds in found["darts"])
    budget = min(max(round(search_seconds / training_seconds), 1), len(GENOTYPES))
    generator = torch.Generator().manual_seed(0)
    best = max(tested.values())
    median = statistics.median(best - tested[random_choice(validated, budget, generator)] for _ in range(DRAWS))
    proposed = {
        "TPE": [proposed_choice(validated, budget, optuna.samplers.TPESampler(seed=seed)) for seed in seeds],
        "regularized evolution": [proposed_choice(validated, budget, evolution(seed)) for seed in seeds],
    }
    rows = [
        Row("V17", f"true accuracy of the best of {len(GENOTYPES)} networks", (best,)),
        Row("V17", "true accuracy of the median network", (statistics.median(tested.values()),)),
        Row("V17", "process seconds of training a network once", (training_seconds,)),
        Row("V17", f"random search, {budget} networks: median regret of {DRAWS:,} searches", (median,)),
    ]
    for name, chosen in proposed.items():
        regret = tuple(best - tested[genotype] for genotype in chosen)
        rows.append(Row("V17", f"{name}, {budget} networks: regret", regret))
    for method, runs in found.items():
        rows += _gradient_rows(method, runs, tested, median)
    return rows


def _gradient_rows(
    method: str, runs: Sequence[tuple[Trained, float]], tested: Mapping[str, float], random_regret: float
) -> list[Row]:
    best, gated = max(tested.values()), method == "darts"
    alphas = [run.phi["architecture/alpha"] for run, _ in runs]
    genotypes = [derive_genotype(alpha) for alpha in alphas]
    regret = tuple(best - tested[genotype] for genotype in genotypes)
    taus = tuple(rank_correlation(alpha, tested) for alpha in alphas)
    skips = tuple(float(genotype.split("|").count("skip")) for genotype in genotypes)
    return [
        Row(
            "V17",
            f"{method}: regret ({', '.join(genotypes)})",
            regret,
            None,
            f"<= random's median = {random_regret:.4f}" if gated else "",
            statistics.fmean(regret) <= random_regret if gated else None,
        ),
        Row("V17", f"{method}: Kendall's tau of the logits with the truth", taus),
        Row("V17", f"{method}: skip connections of 3 edges (a collapse has all)", skips),
        Row("V17", f"{method}: process seconds of a search", tuple(seconds for _, seconds in runs)),
    ]
