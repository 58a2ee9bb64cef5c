"""V24 and V25: what the inner loop minimizes, learned: a loss for noisy labels, a reward for a policy gradient."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.reproductions.harness import Row, Trained, mean_at, pooled, row, train
from benchmarks.reproductions.weights import best_on_the_way, settings
from metaloom.workers.records.names import VALIDATION_LOSS
from metaloom.workers.scoring import Evaluation

NOISE = 0.4
ROBUST = {"kind": "mixture", "cross_entropy": 0.0, "generalized": 1.0, "q": 0.7}
RATES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # of the policy gradient on the true reward; the best on validation is tested
POLICY_STEPS = 20
CHOOSING, POLICIES = 60, 200  # new policies, each on a task of its own: for choosing the rate, and for the test
REWARD = {"steps": 300, "schedule": "cosine", "validate_every": 100, "validation_episodes": 30}


def v24(seeds: Sequence[int], cache: Path) -> list[Row]:
    """A loss learned from 50 clean samples, beside cross entropy and a robust loss, at equal inner steps."""
    name, noisy = f"{NOISE:.0%} noise", settings("cross_entropy", label_noise=NOISE)
    robust = {**noisy, "learner": {**noisy["learner"], "loss": ROBUST}}
    plain = [best_on_the_way(noisy, seed, cache) for seed in seeds]
    last = [one.test() for one, _ in plain]
    held = {
        "cross entropy, last epoch": last,
        "generalized cross entropy, q = 0.7, last epoch": _tested(robust, seeds, cache),
        "the 50 clean samples alone": _tested(settings("cross_entropy", train_on="meta", batch=50), seeds, cache),
    }
    learned = _tested(settings("learned_loss", label_noise=NOISE), seeds, cache)
    floor = max(sum(one.mean for one in found) / len(found) for found in held.values())
    rows = [row("V24", f"{name}: {what}", found) for what, found in held.items()]
    rows.insert(
        1, row("V24", f"{name}: cross entropy, best epoch by the test set (an oracle)", [best for _, best in plain])
    )
    gate = f"> {floor:.3f} (the best of them without an oracle)"
    what = f"{name}: loss learned by ML3, last epoch"
    return [*rows, row("V24", what, learned, gate=gate, reached=lambda mean: mean > floor)]


def _tested(experiment: Mapping[str, Any], seeds: Sequence[int], cache: Path) -> list[Evaluation]:
    return [train(experiment, seed=seed, cache=cache).test() for seed in seeds]


def v25(seeds: Sequence[int], cache: Path) -> list[Row]:
    """A learned potential beside the true reward alone, at equal policy-gradient steps and trajectories."""
    rate, plain = _best_by_true_reward(cache)
    shaped = [_shaped(seed, cache).test(episodes=POLICIES) for seed in seeds]
    name = f"true reward alone, rate {rate:g} (best of {len(RATES)} on validation)"
    rows: list[Row] = []
    for step in (0, 5, 10, POLICY_STEPS):
        rows.append(_reward_row(f"{name}, after {step} steps", [plain], step))
        above = rows[-1].interval if step else None
        rows.append(_reward_row(f"with the learned potential, after {step} steps", shaped, step, above))
    return rows


def _shaped(seed: int, cache: Path) -> Trained:
    learner = {"method": "learned_reward", "update": {"evaluation_steps": POLICY_STEPS}}
    experiment = {"tasks": {"source": "point_mass"}, "learner": learner, "outer": REWARD}
    return train(experiment, seed=seed, cache=cache)


def _by_true_reward(rate: float, cache: Path) -> Trained:
    """Return REINFORCE, which learns nothing from one task for another: its training seed does not matter."""
    experiment = {
        "tasks": {"source": "point_mass"},
        "learner": {"method": "policy_gradient", "update": {"rate": rate, "evaluation_steps": POLICY_STEPS}},
        "outer": {"validation_episodes": CHOOSING},
    }
    return train(experiment, seed=0, cache=cache)


def _best_by_true_reward(cache: Path) -> tuple[float, Evaluation]:
    """Choose the rate on validation, and return it with its test."""
    tried = {rate: _by_true_reward(rate, cache) for rate in RATES}
    reports = {rate: one.trial.last_report for rate, one in tried.items()}
    losses = {rate: report.metrics[VALIDATION_LOSS] for rate, report in reports.items() if report is not None}
    best = min(losses, key=losses.__getitem__)
    return best, tried[best].test(episodes=POLICIES)


def _reward_row(
    what: str, evaluations: Sequence[Evaluation], step: int, above: tuple[float, float] | None = None
) -> Row:
    """Put a row of true rewards per step together: minus the loss; ``above`` is the interval to be clear of."""
    low, high = pooled(evaluations, step)
    return Row(
        "V25",
        f"point mass: {what}, reward per step",
        tuple(-mean_at(one, step) for one in evaluations),
        (-high, -low),
        "" if above is None else f"interval above {above[1]:.4f} (the true reward's)",
        None if above is None else -high > above[1],
        "new policies on unseen tasks",
    )
