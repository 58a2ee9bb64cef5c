"""Figures of what a learner shows of an episode, with the numbers of their captions."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from metaloom.dashboards.knowledge_facts.episode_features import plane
from metaloom.dashboards.knowledge_figures import TrialKnowledge, pictures
from metaloom.learners.episode import TaskShape
from metaloom.learners.state import LearnerState
from metaloom.testing.problems import normal

TASK = TaskShape("classification", (6,), 3)
LABELS, ASKED = torch.tensor([2, 0, 1]), torch.tensor([0, 0, 1, 2])


def drawn(**shown: Tensor) -> dict[str, str]:
    """Return the captions of what is drawn, by the picture's name."""
    given = {"labels": LABELS, "query_labels": ASKED, **{name.replace("__", "/"): one for name, one in shown.items()}}
    knowledge = TrialKnowledge({}, TASK, {}, LearnerState(), given)
    return {picture.name: picture.caption for picture in pictures(knowledge)}


def test_features_are_drawn_in_the_plane_of_their_two_main_directions() -> None:
    corner = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    points = torch.cat([corner[LABELS], corner[ASKED] + 0.1, corner])
    turn, _ = torch.linalg.qr(normal(4, 4, seed=0).float())
    inside = torch.nn.functional.pad(points, (0, 2)) @ turn  # a plane in four dimensions
    caption = drawn(support=inside[:3], queries=inside[3:7], prototypes=inside[7:])["episode-features"]
    assert "(3 support, 4 queries, 3 prototypes)" in caption
    assert "hold 100% of" in caption
    assert "Of 4 queries 4 lie nearest" in caption
    flat, _ = plane(inside)
    torch.testing.assert_close(torch.cdist(flat, flat), torch.cdist(points, points).double(), rtol=1e-4, atol=1e-4)


def test_a_single_number_and_equal_features_have_a_plane_too() -> None:
    assert plane(normal(5, 1, seed=0))[0].shape == (5, 2)
    flat, share = plane(torch.ones(4, 3))
    assert share == 1.0
    assert float(flat.abs().max()) == 0.0


def test_attention_to_the_own_class_is_counted() -> None:
    weights = torch.tensor([[0.1, 0.7, 0.2], [0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [1.0, 0.0, 0.0]])
    assert "80% of it goes to examples of the query's own class" in drawn(attention=weights)["episode-attention"]


def test_relations_count_the_queries_whose_own_class_is_largest() -> None:
    scores = torch.tensor([[3.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 9.0]])
    assert "3 queries have their largest score" in drawn(relation=scores)["episode-relation"]


def test_edges_between_support_examples_of_one_class_are_counted_in_the_last_layer() -> None:
    edges = torch.zeros(2, 4, 4)
    edges[1, 0, 1], edges[1, 1, 2], edges[1, 0, 3] = 3.0, 1.0, 7.0  # the fourth node is a query
    caption = drawn(adjacency=edges, labels=torch.tensor([1, 1, 0]))["episode-adjacency"]
    assert "3 support examples, by class, and then 1 other node." in caption
    assert "75% of the weight" in caption
    assert "episode-adjacency" in drawn(adjacency=edges[1])  # one layer
    single = drawn(adjacency=edges, labels=torch.tensor([1, 0]))["episode-adjacency"]
    assert "one class" not in single, "one example of each class: none are of one class, whatever was learned"


def test_reads_of_a_memory_are_counted() -> None:
    caption = drawn(reads=torch.tensor([[0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]))["memory-reads"]
    assert "4 slots of the memory are read over the 2 steps" in caption
    assert "spread over 1.5 slots on average" in caption


def test_the_layer_that_film_moves_most_is_named() -> None:
    caption = drawn(film__conv0=torch.tensor([1.0, 1.1]), film__conv1=torch.tensor([0.5, 1.5]))["film-scales"]
    assert "farthest from it in conv1, by 0.5 on average" in caption


def test_the_largest_attribute_is_named() -> None:
    caption = drawn(attribute_weights=torch.tensor([0.1, -0.5, 0.3]))["attribute-weights"]
    assert "Attribute 1 has the largest, 0.5; the mean is 0.3" in caption


def test_an_attribute_has_the_name_that_the_table_of_classes_gives_it() -> None:
    described = TaskShape("classification", (3,), 0, features=("fur", "legs", "size"))
    knowledge = TrialKnowledge(
        {},
        replace(TASK, class_features=described),
        {},
        LearnerState(),
        {"attribute_weights": torch.tensor([0.1, -0.5, 0.3])},
    )
    (picture,) = pictures(knowledge)
    assert "Attribute legs has the largest, 0.5" in picture.caption


@pytest.mark.parametrize("name", ["support", "queries", "attention", "relation", "adjacency", "reads"])
def test_what_is_not_finite_or_of_another_shape_is_not_drawn(name: str) -> None:
    whole = {"support": normal(3, 4, seed=0), "queries": normal(4, 4, seed=1)}
    broken = torch.full((4, 3), torch.nan) if name != "adjacency" else torch.full((3, 3), torch.nan)
    if name in whole:
        assert "episode-features" not in drawn(**{**whole, name: broken})
    else:
        assert drawn(**{name: broken}) == {}
    assert drawn(**{name: torch.zeros(2)}) == {}


@pytest.mark.parametrize("shape", [(16,), (5,), (1, 6, 6), (2, 9)])  # a square row, a row, an image, a series
def test_reconstructions_have_their_errors_beside_that_of_the_mean(shape: tuple[int, ...]) -> None:
    original = normal(10, *shape, seed=0).float()
    shown = {"original": original, "corrupted": original + 0.5, "reconstruction": original - 0.1}
    caption = drawn(**shown)["reconstructions"]
    assert "8 queries" in caption
    assert "what the network sees of them (mean squared error 0.25)" in caption
    assert "reconstructed (mean squared error 0.01; " in caption
    first = original[:8].double()
    assert f"{float((first - first.mean(0)).square().mean()):.3g}" in caption
    del shown["corrupted"]
    assert "sees" not in drawn(**shown)["reconstructions"]


def test_reconstructions_of_another_shape_or_not_finite_are_not_drawn() -> None:
    original = normal(3, 4, seed=0)
    assert drawn(original=original) == {}
    assert drawn(original=original, reconstruction=original[:2]) == {}
    assert drawn(original=original, reconstruction=torch.full((3, 4), torch.nan)) == {}


def test_a_learner_that_shows_nothing_has_no_figure() -> None:
    assert pictures(replace(TrialKnowledge({}, TASK, {}, LearnerState()), shown={})) == []


def test_regrets_of_searches_are_drawn_beside_random_ones() -> None:
    ours, random = torch.tensor([[0.5, 0.1], [0.7, 0.3]]), torch.tensor([[0.9, 0.8], [1.0, 0.6]])
    caption = drawn(regrets=ours, regrets_of_random=random)["regrets"]
    assert caption.startswith("The regret of 2 searches on the first validation table, which falls from 0.6000")
    assert caption.endswith("to 0.2000 after 2; at random it is 0.7000 then.")
    assert drawn(regrets=ours) == {}
