"""What a learner shows of an episode: the tensors that figures are drawn of."""

import torch

from metaloom.learners.episode import TaskShape
from metaloom.testing.problems import SMOOTH, begun, built, episode_of, seeded

FEW_SHOT = TaskShape("classification", (6,), 3, classes=9)


def test_prototypes_show_the_points_that_the_prediction_compares() -> None:
    learner = built({"architecture": SMOOTH, "prediction": {"kind": "prototypes"}}, FEW_SHOT, estimator="auto")
    episode = episode_of(FEW_SHOT, 0, support=6, queries=4)
    phi, state = begun(learner)
    shown = learner.inspect(phi, state, episode)
    assert torch.equal(shown["labels"], episode.support_y)
    assert torch.equal(shown["query_labels"], episode.query_y)
    distances = torch.cdist(shown["queries"], shown["prototypes"]).square()
    predicted = learner.adapt(phi, state, episode.support, seeded(0)).predict(episode.query_x)
    torch.testing.assert_close(torch.softmax(-distances, -1), predicted)
    own = shown["support"][episode.support_y == 1].mean(0)
    torch.testing.assert_close(own, shown["prototypes"][1])
    assert not any(value.requires_grad for value in shown.values())


def test_a_solver_that_shows_nothing_shows_no_labels_either() -> None:
    learner = built({"prediction": {"kind": "nearest_neighbour"}}, FEW_SHOT, estimator="auto")
    assert learner.inspect(*begun(learner), episode_of(FEW_SHOT, 0)) == {}
