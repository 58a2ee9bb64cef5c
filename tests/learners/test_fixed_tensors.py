"""A fixed number may be a tensor: one vmap over settings is the loop over them."""

import pytest
import torch
from torch import Tensor

from metaloom.learners.knowledge.update_rules import UPDATE_RULES
from metaloom.learners.tensors import InnerState
from metaloom.testing.problems import normal

SETTINGS = {
    "sgd": ("rate", "momentum", "weight_decay"),
    "adam": ("rate", "beta1", "beta2", "weight_decay"),
    "adamw": ("rate", "beta1", "beta2", "weight_decay"),
    "rmsprop": ("rate", "smoothing", "momentum"),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_an_inner_loop_over_a_batch_of_fixed_settings(kind: str) -> None:
    names = SETTINGS[kind]
    start, target = normal(4, seed=1), normal(4, seed=2)
    batch = 0.1 + 0.1 * torch.rand(5, len(names), dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def moved(values: list[Tensor] | list[float]) -> Tensor:
        rule = UPDATE_RULES[kind](UPDATE_RULES[kind].Config(**dict(zip(names, values, strict=True))))
        state = InnerState({"w": start}, rule.begin({"w": start}))
        for index in range(5):
            state = rule.step({}, state, {"w": state.theta["w"] - target}, index)
        return state.theta["w"]

    batched = torch.vmap(lambda row: moved(list(row)))(batch)
    looped = torch.stack([moved(row.tolist()) for row in batch])
    torch.testing.assert_close(batched, looped, rtol=1e-12, atol=1e-12)
