"""bfloat16 under autocast, as on a GPU: autocast follows the same rules on a CPU, where it can be held to float32."""

from typing import Any

import pytest
import torch

from benchmarks.workloads import image_episode
from metaloom.learners.base import METHODS, MetaStep
from metaloom.learners.build import build_learner
from metaloom.learners.episode import TaskShape
from metaloom.testing.problems import seeded

ALIKE = 0.85  # cosine of the gradients: bfloat16 sends some ReLU or maximum the other way
EPISODES = [image_episode(seeded(seed), ways=5, shots=1, queries=3) for seed in range(2)]


def meta_step(method: str, *, mixed: bool) -> MetaStep:
    recipe = METHODS[method]
    settings: dict[str, dict[str, Any]] = {name: dict(slot) for name, slot in recipe.learner.items()}
    settings["architecture"] = {"kind": "conv4", "channels": 16}
    outer = {name: value for name, value in recipe.outer.items() if name == "hypergradient"}
    task = TaskShape("classification", (1, 28, 28), 5)
    learner = build_learner(learner=settings, inner=dict(recipe.inner), outer=outer, task=task)
    phi = learner.init(seeded(0))
    state = learner.begin(phi, seeded(1))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
        return learner.meta_step(phi, state, EPISODES, seeded(2))


@pytest.mark.parametrize(
    "method", ["maml", "first_order_maml", "anil", "meta_sgd", "maml_plus_plus", "reptile", "prototypical"]
)
def test_no_learned_knob_loses_its_signal(method: str) -> None:
    full, mixed = (meta_step(method, mixed=mixed) for mixed in (False, True))
    assert mixed.loss != full.loss  # it did compute in another precision
    assert mixed.loss == pytest.approx(full.loss, rel=0.1)
    found, expected = (torch.cat([one.gradient[name].flatten() for name in full.gradient]) for one in (mixed, full))
    assert found.dtype == torch.float32
    assert float(torch.cosine_similarity(found, expected, dim=0)) > ALIKE
    lost = [name for name, slope in full.gradient.items() if bool(slope.any()) and not bool(mixed.gradient[name].any())]
    assert not lost
