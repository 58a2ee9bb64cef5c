"""The protocols on series: their division of the archive, the classifiers, the sign test, and the rows."""

import numpy as np
import pytest
import torch

from benchmarks.reproductions import conv_time_net, time_net
from benchmarks.reproductions.series_archive import (
    FAMILIES,
    OneSet,
    SignTest,
    divided,
    linear_machine,
    nearest,
)

ALONE = [f"Set{number}" for number in range(19)]
NAMES = [*(name for family in FAMILIES for name in family.split()), *ALONE]


def waves(classes: int = 3, each: int = 8) -> OneSet:
    """Return sines of other frequencies with noise, and as many for the test."""
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), each)
    parts = []
    for _ in range(2):
        clean = np.sin((labels[:, None] + 1) * np.linspace(0, 6, 24))
        parts.append(torch.from_numpy((clean + 0.1 * draw.normal(size=clean.shape))[:, None].astype(np.float32)))
    return OneSet(parts[0], labels, parts[1], labels)


def test_the_sets_are_divided_by_whole_families() -> None:
    found = divided(NAMES)
    parts = (found.train, found.validation, found.held_out)
    assert [len(part) for part in parts] == [18, 6, 26]
    assert sorted(name for part in parts for name in part) == sorted(NAMES)
    for family in FAMILIES:
        assert sum(bool(set(family.split()) & set(part)) for part in parts) == 1
    assert divided(list(reversed(NAMES))) == found


def test_both_classifiers_tell_clear_classes_apart_and_one_example_a_class_is_enough() -> None:
    data = waves()
    assert np.mean(nearest(data)) == 1.0
    assert np.mean(linear_machine(data, lambda x: x.flatten(1))) == 1.0
    rows = [0, 8, 16]
    few = OneSet(data.x[rows], data.y[rows], data.test_x, data.test_y)
    assert np.mean(linear_machine(few, lambda x: x.flatten(1))) > 0.9


def test_the_sign_test_leaves_ties_out() -> None:
    found = SignTest.of([0.5, 0.6, 0.7, 0.8, 0.9, 0.3], [0.4, 0.5, 0.6, 0.7, 0.8, 0.3])
    assert (found.wins, found.losses) == (5, 0)
    assert found.p == pytest.approx(2 * 0.5**5)
    assert SignTest.of([0.5], [0.5]).p == 1.0


def test_the_rows_of_timenet_are_held_to_both_sign_tests() -> None:
    right = {name: [1.0, 1.0] for name in ALONE[:8]}
    half = {name: [1.0, 0.0] for name in ALONE[:8]}
    each = [{time_net.OURS: right, time_net.UNTRAINED: half, time_net.NEIGHBOUR: right}] * 2
    rows = {row.what: row for row in time_net.summary(each)}
    assert rows["sets of 8 on which TimeNet is better than the same network untrained"].reached is True
    assert rows["sets of 8 on which TimeNet is better than 1-NN Euclidean"].reached is False
    assert rows[f"mean accuracy on 8 held-out sets: {time_net.UNTRAINED}"].values == (0.5, 0.5)
    assert len(time_net.by_set(each)) == 24


def test_the_labels_of_fine_tuning_are_so_many_of_each_class() -> None:
    labels = np.array([0] * 9 + [1] * 3 + [4] * 7)
    rows = conv_time_net.chosen(labels, 5, seed=1)
    assert np.bincount(labels[rows]).tolist() == [5, 3, 0, 0, 5]
    assert len(conv_time_net.chosen(labels, None, seed=1)) == 19
    assert not np.array_equal(rows, conv_time_net.chosen(labels, 5, seed=2))


def test_fine_tuning_learns_and_both_arms_have_the_same_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv_time_net, "TUNING_STEPS", 15)
    data, nowhere = waves(), conv_time_net.Start({}, {})
    rows = np.arange(len(data.y))
    first, again = (conv_time_net.tuned(data, rows, nowhere, 0.01, seed=0) for _ in range(2))
    assert first == again
    assert np.mean(first) > 0.8


def test_the_rows_of_conv_time_net_are_held_to_their_share_of_the_sets() -> None:
    names = ALONE[:5]
    better = {name: [1.0] if place < 3 else [0.0] for place, name in enumerate(names)}
    case = {conv_time_net.OURS: better, conv_time_net.SCRATCH: {name: [0.5] for name in names}}
    *_, share = conv_time_net.case_rows(conv_time_net.CASE, [case] * 2)
    assert share.values == (0.6, 0.6)
    assert share.reached is True
    *_, other = conv_time_net.case_rows("all labels", [case])
    assert (other.gate, other.reached) == ("", None)
