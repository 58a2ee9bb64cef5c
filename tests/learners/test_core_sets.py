"""Core-sets: how many, of which class, and that each rule does what it says."""

from dataclasses import replace
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metaloom.learners.episode import Episode, Support
from metaloom.learners.errors import LearnerError
from metaloom.learners.knowledge.core_sets import RULES, central_rows, core_set, herded_rows, shares
from metaloom.testing.problems import SINGLE, SMOOTH, begun, built, episode_of, normal, seeded

labels = st.lists(st.integers(0, 3), min_size=1, max_size=25)


@settings(deadline=None, max_examples=40)
@given(labels, st.integers(1, 30), st.sampled_from(sorted(RULES)), st.integers(0, 3))
def test_every_rule_chooses_so_many_different_examples_and_evenly_by_class(
    classes: list[int], size: int, rule: str, seed: int
) -> None:
    y = torch.tensor(classes)
    x = normal(len(classes), 3, seed=seed)
    x[::2] = x[0].clone()  # equal examples are still different ones
    rows = core_set(x, y, size=size, rule=rule, generator=seeded(seed)).tolist()
    assert len(set(rows)) == len(rows) == min(size, len(classes))
    taken = torch.bincount(y[rows], minlength=4)
    given_ = torch.bincount(y, minlength=4)
    open_ = taken[taken < given_]  # of classes that are not used up
    assert len(open_) == 0 or int(taken.max()) <= int(open_.min()) + 1


@settings(deadline=None, max_examples=40)
@given(st.permutations(list(range(12))), st.sampled_from(["herding", "k_center"]))
def test_the_order_of_the_examples_does_not_matter(order: list[int], rule: str) -> None:
    x, y = normal(12, 3, seed=1), torch.arange(12) % 3
    first = core_set(x, y, size=7, rule=rule, generator=seeded(0))
    again = core_set(x[order], y[order], size=7, rule=rule, generator=seeded(0))
    assert sorted(torch.tensor(order)[again].tolist()) == sorted(first.tolist())


def test_shares_are_even_until_a_class_is_used_up() -> None:
    assert shares([5, 5, 5], 7) == [3, 2, 2]
    assert shares([1, 0, 9], 6) == [1, 0, 5]
    assert shares([2, 2], 100) == [2, 2]


@pytest.mark.parametrize("seed", range(5))
def test_herding_is_greedy_on_the_distance_of_the_means(seed: int) -> None:
    x = normal(9, 2, seed=seed)
    rows = herded_rows(x, 5, seeded(0)).tolist()
    for count in range(1, 6):
        before = rows[: count - 1]
        gaps = {row: float((x[[*before, row]].mean(0) - x.mean(0)).norm()) for row in range(9) if row not in before}
        assert min(gaps, key=gaps.__getitem__) == rows[count - 1]


@pytest.mark.parametrize("seed", range(5))
def test_k_center_leaves_none_farther_than_twice_the_best_choice_would(seed: int) -> None:
    x = normal(9, 2, seed=seed)
    distances = torch.cdist(x, x)

    def radius(rows: list[int]) -> float:
        return float(distances[:, rows].min(1).values.max())

    best = min(radius(list(rows)) for rows in combinations(range(9), 3))
    assert radius(central_rows(x, 3, seeded(0)).tolist()) <= 2 * best + 1e-12


def test_random_draws_evenly_from_the_generator() -> None:
    x, y = normal(6, 2, seed=0), torch.zeros(6, dtype=torch.int64)
    generator = seeded(0)
    counts = torch.zeros(6)
    for _ in range(600):
        counts[core_set(x, y, size=2, rule="random", generator=generator)] += 1
    assert ((counts - 200).abs() < 5 * (600 * (1 / 3) * (2 / 3)) ** 0.5).all()


def test_regression_targets_are_one_class() -> None:
    x = normal(8, 2, seed=0)
    rows = core_set(x, normal(8, 1, seed=1), size=3, rule="herding", generator=seeded(0))
    assert rows.tolist() == herded_rows(x, 3, seeded(0)).tolist()


def test_a_learner_trains_on_the_chosen_alone() -> None:
    settings_ = {"architecture": SMOOTH, "initialization": {"kind": "random"}, "update": {"steps": 3, "rate": 0.3}}
    episode = episode_of(SINGLE, 1, support=12)
    small = built({**settings_, "data": {"kind": "core_set", "size": 6, "rule": "k_center"}}, SINGLE)
    plain = built(settings_, SINGLE)
    phi, state = begun(small)
    rows = core_set(episode.support_x, episode.support_y, size=6, rule="k_center", generator=seeded(0))
    alone = Episode(Support(episode.support_x[rows], episode.support_y[rows]), episode.query_x, episode.query_y)
    found = small.evaluate(phi, state, episode, seeded(0))
    assert found == plain.evaluate(phi, state, alone, seeded(0))
    assert found != plain.evaluate(phi, state, episode, seeded(0))
    adapted = small.adapt(phi, state, episode.support, seeded(0)).predict(episode.query_x)
    expected = plain.adapt(phi, state, alone.support, seeded(0)).predict(episode.query_x)
    assert torch.equal(adapted, expected)


def test_the_chosen_keep_their_numbers() -> None:
    task = replace(SINGLE, counts=(4, 4, 4))
    data = {"kind": "core_set", "size": 6}
    learner = built({"architecture": SMOOTH, "data": data, "weighting": {"kind": "per_sample"}}, task)
    episode = replace(episode_of(task, 1, support=12), sample_ids=torch.arange(12) + 20)
    chosen = learner.slots.data.select(episode, seeded(0))
    assert torch.equal(episode.support_x[chosen.sample_ids - 20], chosen.support_x)
    assert torch.equal(learner.slots.data.sample_ids({}, chosen), chosen.sample_ids)


@pytest.mark.parametrize("strategy", ["loop", "vmap", "traced"])
def test_it_goes_with_every_strategy_and_a_learned_start(strategy: str) -> None:
    learner = {"architecture": SMOOTH, "initialization": {"kind": "learned"}, "update": {"steps": 2, "rate": 0.3}}
    learner["data"] = {"kind": "core_set", "size": 4, "rule": "random"}
    episodes = [episode_of(SINGLE, seed) for seed in (1, 2)]
    found = built(learner, SINGLE, strategy=strategy)
    phi, state = begun(found)
    one = found.meta_step(phi, state, episodes, seeded(5))
    loop = built(learner, SINGLE).meta_step(phi, state, episodes, seeded(5))
    for name, value in loop.gradient.items():
        torch.testing.assert_close(one.gradient[name], value, rtol=1e-9, atol=1e-11)


def test_a_size_below_one_is_refused() -> None:
    with pytest.raises(LearnerError, match=r"learner\.data\.size: got 0; allowed: a whole number, at least 1"):
        built({"data": {"kind": "core_set", "size": 0}}, SINGLE)
