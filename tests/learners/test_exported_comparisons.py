"""The forward passes of learned comparisons, as an export traces them: any number of queries, by plain operations."""

import pytest
import torch
from torch import Tensor, nn

from metaloom.learners.base import Adapted
from metaloom.learners.episode import TaskShape
from metaloom.testing.problems import SMOOTH, begun, built, episode_of, seeded

TASK = TaskShape("classification", (6,), 3, classes=9)


class Forward(nn.Module):
    """An adapted model as a module."""

    def __init__(self, adapted: Adapted) -> None:
        super().__init__()
        self.passed, self.tensors = adapted.plain()

    def forward(self, x: Tensor) -> Tensor:
        return self.passed(self.tensors, x)


@pytest.mark.parametrize("solver", ["relation", "graph", "snail"])
def test_any_number_of_queries_passes_through(solver: str) -> None:
    learner = built(
        {"architecture": SMOOTH, "initialization": {"kind": "learned"}, "prediction": {"kind": solver}},
        TASK,
        estimator="auto",
        inner={"batch_norm": "support"},
    )
    phi, state = begun(learner)
    episode = episode_of(TASK, 0, support=6, queries=7)
    adapted = learner.adapt(phi, state, episode.support, seeded(0))
    shapes = {"x": {0: torch.export.Dim.DYNAMIC}}
    program = torch.export.export(Forward(adapted), (episode.query_x[:3],), dynamic_shapes=shapes).module()
    torch.testing.assert_close(program(episode.query_x), adapted.predict(episode.query_x))
