"""Trajectories before and after adaptation, in pictures and words."""

from typing import Any

import pytest
import torch

from metaloom.dashboards.canvas import png
from metaloom.dashboards.knowledge_figures import Picture, TrialKnowledge, pictures
from metaloom.learners import build_learner
from metaloom.learners.environments import Navigation, make_environment
from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.learners.state import LearnerState

NAVIGATION = TaskShape(
    "control",
    (2,),
    2,
    environment="navigation",
    environment_settings={"horizon": 8, "reach": 0.2},
    parameters=("goal_x", "goal_y"),
)
LEARNER: dict[str, Any] = {
    "architecture": {"kind": "mlp", "hidden": [3]},
    "initialization": {"kind": "learned"},
    "loss": {"kind": "policy_gradient", "differentiate": "score"},
    "update": {"rate": 0.5, "steps": 2},
}
SWING = {"id": "Swing-v0", "states": 4, "actions": 2, "horizon": 8}


def shown() -> TrialKnowledge:
    learner = build_learner(learner=LEARNER, inner={}, outer={"hypergradient": "unroll"}, task=NAVIGATION)
    generator = torch.Generator().manual_seed(0)
    phi = learner.init(generator)
    starts, goal = torch.zeros(12, 2), torch.tensor([[0.2, 0.1]]).expand(12, -1)
    tensors = learner.inspect(phi, LearnerState(), Episode(Support(starts, goal), starts, goal))
    return TrialKnowledge(LEARNER, NAVIGATION, phi, LearnerState(), tensors)


def drawn(knowledge: TrialKnowledge) -> dict[str, Picture]:
    return {picture.name: picture for picture in pictures(knowledge)}


def test_a_learner_shows_its_trajectories_before_and_after() -> None:
    tensors = shown().shown
    assert tensors["path_before"].shape == (12, 9, 2) and tensors["rewards_after"].shape == (12, 8)
    assert not torch.equal(tensors["path_before"], tensors["path_after"])
    environment, place = make_environment(NAVIGATION), tensors["path_before"]
    assert isinstance(environment, Navigation)
    squared = (place[:, 1:] - torch.tensor([0.2, 0.1])).square().sum(-1)
    torch.testing.assert_close(tensors["rewards_before"], -squared * tensors["active_before"])


def test_places_are_drawn_up_to_the_end_with_the_goal() -> None:
    knowledge = shown()
    knowledge.shown["active_after"][:] = torch.tensor([1.0] * 3 + [0.0] * 5)
    picture = drawn(knowledge)["trajectories"]
    assert picture.caption.startswith("Trajectories of one validation task (goal_x 0.2, goal_y 0.1): the return is ")
    left, right = picture.figure.axes
    assert (left.get_xlabel(), left.get_ylabel()) == ("x", "y")
    assert len(left.get_lines()) == 12  # ten trajectories, the start and the goal
    path, after = right.get_lines()[0].get_xdata(), knowledge.shown["path_after"][0, :, 0]
    assert list(path) == pytest.approx([*after[:4].tolist(), *[float(after[3])] * 5])
    assert list(right.get_lines()[-1].get_xdata()) == pytest.approx([0.2])
    assert png(picture.figure).startswith(b"\x89PNG")


def test_elsewhere_the_rewards_are_summed() -> None:
    plane = shown()
    tensors = {name: value for name, value in plane.shown.items() if name != "parameters"}
    task = TaskShape("control", (4,), 2, environment="gymnasium", environment_settings=SWING)
    picture = drawn(TrialKnowledge({}, task, {}, LearnerState(), tensors))["trajectories"]
    line = picture.figure.axes[0].get_lines()[0].get_ydata()
    assert list(line) == pytest.approx(tensors["rewards_before"][0].cumsum(0).tolist())
    assert "as the sum of their rewards" in picture.caption


@pytest.mark.parametrize("missing", ["path_after", "rewards_before"])
def test_nothing_is_drawn_of_a_part(missing: str) -> None:
    knowledge = shown()
    del knowledge.shown[missing]
    assert "trajectories" not in drawn(knowledge)
