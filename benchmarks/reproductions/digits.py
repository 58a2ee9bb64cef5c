"""V7 and V10: one task, scikit-learn's digits. 500 test, 50 clean meta, 1,047 training and 200 validation samples."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.reproductions.harness import Row, Trained, row, train
from metaloom.learners.knowledge.slots import part
from metaloom.workers.scoring import Evaluation

STEPS = 1_500
EVALUATION = {"validation_episodes": 100, "validate_every": 100}


def noisy(method: str, noise: float, **tasks: Any) -> dict[str, Any]:
    """Return Meta-Weight-Net's protocol on digits for a method: MLP 64-128-128-10, SGD 0.05 momentum 0.9, batch 100."""
    settings = {
        "source": "digits",
        "label_noise": noise,
        "batch": 100,
        "meta_size": 50,
        "meta_batch": 50,
        "queries": 10,
    }
    return {
        "tasks": {**settings, **tasks},
        "learner": {"method": method, "architecture": {"kind": "mlp", "hidden": [128, 128]}},
        "outer": {"steps": STEPS, **EVALUATION},
    }


def best_on_the_way(settings: dict[str, Any], seed: int, cache: Path) -> tuple[Trained, Evaluation]:
    """Train, and also return the best test accuracy at any validation: what stopping by an oracle would give."""
    seen: list[Evaluation] = []
    trained = train(settings, seed=seed, cache=cache, at=lambda _, now: seen.append(now.test()))
    return trained, max(seen, key=lambda one: one.mean)


def weight_ratio(trained: Trained) -> float:
    """Return the mean weight of clean training samples over that of noisy ones."""
    learner = trained.trial.learner
    source = trained.source
    phi, theta = dict(trained.phi), part(dict(trained.state), "theta")
    sums = {True: [0.0, 0], False: [0.0, 0]}
    for index in range(20):
        sampled = source.episode("train", index)
        rows = list(sampled.sample_ids[: len(sampled.episode.support_y)])
        clean = torch.from_numpy(~source.noisy[rows])  # type: ignore[attr-defined]
        with torch.no_grad():
            losses = learner.loop.support_losses(phi, theta, sampled.episode, 0)  # type: ignore[attr-defined]
            weights = learner.slots.weighting.weights(part(phi, "weighting"), losses)  # type: ignore[attr-defined]
        for kind in (True, False):
            chosen = weights[clean == kind]
            sums[kind][0] += float(chosen.sum())
            sums[kind][1] += len(chosen)
    return (sums[True][0] / sums[True][1]) / (sums[False][0] / sums[False][1])


def v7(seeds: Sequence[int], cache: Path) -> list[Row]:
    """Meta-Weight-Net under label noise, beside plain training (last and best epoch) and the clean meta set alone."""
    rows: list[Row] = []
    for noise in (0.4, 0.6):
        plain, best, only, nets = [], [], [], []
        ratios: list[float] = []
        for seed in seeds:
            trained, oracle = best_on_the_way(noisy("cross_entropy", noise), seed, cache)
            plain.append(trained.test())
            best.append(oracle)
            only.append(train(noisy("cross_entropy", 0.0, train_on="meta", batch=50), seed=seed, cache=cache).test())
            net = train(noisy("meta_weight_net", noise), seed=seed, cache=cache)
            nets.append(net.test())
            ratios.append(weight_ratio(net))
        rows += _v7_rows(f"{noise:.0%} noise", plain, best, only, nets, tuple(ratios), gated=noise == 0.4)
    return rows


def _v7_rows(
    name: str,
    plain: list[Evaluation],
    best: list[Evaluation],
    only: list[Evaluation],
    nets: list[Evaluation],
    ratios: tuple[float, ...],
    *,
    gated: bool,
) -> list[Row]:
    floor = max(_mean(plain) + 0.08, _mean(only) + 0.04)
    ratio = sum(ratios) / len(ratios)
    return [
        row("V7", f"{name}: plain cross entropy, last epoch", plain),
        row("V7", f"{name}: plain cross entropy, best epoch by the test set (an oracle)", best),
        row("V7", f"{name}: the 50 clean samples alone", only),
        row(
            "V7",
            f"{name}: Meta-Weight-Net, last epoch",
            nets,
            gate=f">= {floor:.3f} (plain + 8 points, clean alone + 4)" if gated else "",
            reached=(lambda mean: mean >= floor) if gated else None,
        ),
        Row("V7", f"{name}: weight of clean over noisy samples", ratios, None, ">= 3", ratio >= 3, "inductive"),
    ]


def _mean(evaluations: Sequence[Evaluation]) -> float:
    return sum(one.mean for one in evaluations) / len(evaluations)


def v10(seeds: Sequence[int], cache: Path) -> list[Row]:
    """Ten distilled digits and one step from a fixed start."""
    rows: list[Row] = []
    for name, hidden in (("linear", []), ("MLP-64", [64])):
        settings = {
            "tasks": {
                "source": "digits",
                "batch": 10,
                "meta_batch": 256,
                "meta_size": 1000,
                "queries": 10,
                "validation_size": 200,
            },
            "learner": {"method": "distillation", "architecture": {"kind": "mlp", "hidden": hidden}},
            "outer": {"steps": STEPS, "rate": 0.01, **EVALUATION},
        }
        found = [train(settings, seed=seed, cache=cache).test() for seed in seeds]
        rows += [
            row("V10", f"10 distilled digits, {name}, before the step", found, step=0),
            row(
                "V10",
                f"10 distilled digits, {name}, after one step",
                found,
                step=1,
                gate=">= 0.94",
                reached=lambda mean: mean >= 0.94,
            ),
        ]
    return rows
