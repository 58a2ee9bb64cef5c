"""V21: a learned augmentation policy beside RandAugment, random policies and none, on 97 training digits.

Every kind gets the same budget: ``TRIALS`` settings of ``STEPS`` steps of the same network from the same start. Its
setting is chosen by the validation split's accuracy, and the chosen network is tested once. The learned policy's only
setting is the outer rate, RandAugment's are number and magnitude, a random policy's is the policy itself. The outer
loop of the learned policy sees 200 meta samples that the others do not train on; ``none`` with them joined to the
training set says what they would be worth as plain data.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.reproductions.harness import Row, Trained, row, train
from metaloom.learners.knowledge.image_operations import STANDARD
from metaloom.workers.scoring import Evaluation, evaluate_learner

STEPS, TRIALS, SUB_POLICIES = 200, 2, 25
TASKS = {
    "source": "digits",
    "batch": 32,
    "meta_batch": 100,
    "meta_size": 200,
    "validation_size": 400,
    "test_size": 1100,
    "queries": 10,
}
OUTER_RATES = (0.01, 0.03)
RAND_AUGMENTS = ((1, 0.3), (2, 0.3))


def experiment(method: str, augmentation: dict[str, Any], *, rate: float = 0.01, **tasks: Any) -> dict[str, Any]:
    """Return the protocol for one setting: MLP 64-128-128-10, SGD 0.05 with momentum 0.9, batches of 32."""
    return {
        "tasks": {**TASKS, **tasks},
        "learner": {
            "method": method,
            "architecture": {"kind": "mlp", "hidden": [128, 128]},
            "augmentation": augmentation,
        },
        "outer": {"steps": STEPS, "rate": rate, "validate_every": STEPS, "validation_episodes": 40},
    }


def random_policy(seed: int) -> list[str]:
    """Draw pairs of the standard operations, with probabilities and magnitudes, all uniform."""
    generator = torch.Generator().manual_seed(seed)
    texts = []
    for _ in range(SUB_POLICIES):
        pair = torch.randperm(len(STANDARD), generator=generator)[:2].tolist()
        numbers = torch.rand(2, 2, generator=generator).tolist()
        texts.append(" + ".join(f"{STANDARD[k]}({p:.3f}, {m:.3f})" for k, (p, m) in zip(pair, numbers, strict=True)))
    return texts


def candidates(seed: int) -> dict[str, list[dict[str, Any]]]:
    """Return each kind's settings to choose from."""
    return {
        "no augmentation": [experiment("cross_entropy", {"kind": "none"})],
        "no augmentation, trained on the 200 meta samples too": [
            experiment("cross_entropy", {"kind": "none"}, train_on="both")
        ],
        "a random policy, the best of 2": [
            experiment("cross_entropy", {"kind": "policy", "sub_policies": random_policy(1000 * seed + i)})
            for i in range(TRIALS)
        ],
        "RandAugment, the best of 2": [
            experiment("cross_entropy", {"kind": "rand_augment", "number": number, "magnitude": magnitude})
            for number, magnitude in RAND_AUGMENTS
        ],
        "learned policy (dada), the best of 2 outer rates": [
            experiment("dada", {"kind": "dada"}, rate=rate) for rate in OUTER_RATES
        ],
    }


def validation(trained: Trained) -> float:
    """Return the accuracy on the whole validation split."""
    phi, state = dict(trained.phi), trained.state
    return evaluate_learner(trained.trial.learner, phi, state, trained.source, "validation", 40).mean


def v21(seeds: Sequence[int], cache: Path) -> list[Row]:
    """Train every candidate, choose on validation, test what was chosen."""
    tested: dict[str, list[Evaluation]] = {}
    for seed in seeds:
        for what, settings in candidates(seed).items():
            found = [train(one, seed=seed, cache=cache) for one in settings]
            best = max(found, key=validation) if len(found) > 1 else found[0]
            tested.setdefault(what, []).append(best.test())
    return [row("V21", f"97 digits: {what}", evaluations) for what, evaluations in tested.items()]
