"""Many data sets as one source: which one an episode is of, its numbers, its inputs, and what is refused."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metaloom.learners.episode import TaskShape
from metaloom.workers.data import SPLITS, DataError, Source, open_source
from metaloom.workers.data.agreement import fitting
from metaloom.workers.data.many import Many
from metaloom.workers.data.sampler import FewShotSource
from metaloom.workers.data.streams import outer_step_of
from metaloom.workers.records.trial import REPEAT_EPISODES

SIZES: dict[str, Any] = {"ways": 2, "shots": 2, "queries": 3}


def written(folder: Path, name: str, classes: int = 8, each: int = 7, inputs: Sequence[int] = (3,)) -> dict[str, Any]:
    """Write a data set whose examples are numbered, and return its tasks section."""
    y = np.repeat(np.arange(classes), each)
    x = np.random.default_rng(len(name)).random((len(y), *inputs)).astype(np.float32)
    np.savez(folder / f"{name}.npz", x=x, y=y)
    return {"source": "arrays", "path": str(folder / f"{name}.npz"), "standardize": False}


def opened(folder: Path, *sources: Mapping[str, Any], seed: int = 0, **settings: Any) -> Many:
    given = {"source": "many", "sources": list(sources), **SIZES, **settings}
    source = open_source(given, seed=seed, cache=folder / "cache")
    assert isinstance(source, Many)
    return source


def few_shot(source: Source) -> FewShotSource:
    assert isinstance(source, FewShotSource)
    return source


def test_an_episode_is_one_of_its_data_set_with_ids_of_its_own(tmp_path: Path) -> None:
    one, other = written(tmp_path, "one"), written(tmp_path, "other", classes=10)
    many = opened(tmp_path, one, other)
    alone = [few_shot(open_source({**each, **SIZES}, seed=0, cache=tmp_path)) for each in (one, other)]
    assert many.shape.groups == tuple(source.shape.classes for source in alone) and many.shape.classes == 10
    seen = {many.episode("train", index).source for index in range(20)}
    assert seen == {"arrays:one", "arrays:other"}
    for index in range(20):
        drawn = many.episode("train", index)
        place = ("arrays:one", "arrays:other").index(drawn.source)
        own = alone[place].episode("train", index)
        assert torch.equal(drawn.episode.support_x, own.episode.support_x) and drawn.seed == own.seed
        assert [one - 8 * place for one in drawn.class_ids] == list(own.class_ids)
        assert [one - 56 * place for one in drawn.sample_ids] == list(own.sample_ids)
        assert drawn.episode.class_ids is not None and own.episode.class_ids is not None
        first, end = many.shape.group_of(drawn.episode.class_ids)
        assert (first, end) == ((0, many.shape.groups[0]), (many.shape.groups[0], 10))[place]
        assert torch.equal(drawn.episode.class_ids - first, own.episode.class_ids)


def test_without_groups_all_classes_are_one_group() -> None:
    assert TaskShape("classification", (3,), 2, classes=7).group_of(torch.tensor([5, 1])) == (0, 7)


def test_held_out_episodes_go_through_the_data_sets_in_turn(tmp_path: Path) -> None:
    sections = [written(tmp_path, name) for name in ("one", "two", "three")]
    many = opened(tmp_path, *sections, weights=[0.0, 1.0, 0.0])
    for split in ("validation", "test"):
        assert [many.episode(split, index).source for index in range(4)] == [
            "arrays:one",
            "arrays:two",
            "arrays:three",
            "arrays:one",
        ]
        alone = open_source({**sections[1], **SIZES}, seed=0, cache=tmp_path / "cache")
        assert torch.equal(many.episode(split, 4).episode.query_x, alone.episode(split, 1).episode.query_x)
    assert {many.episode("train", index).source for index in range(20)} == {"arrays:two"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.25, 0.25, 0.25, 0.25]),
        ({"weights": [3, 1]}, [0.25, 0.25, 0.25, 0.25]),  # an entry of three data sets shares its weight
        ({"weights": [1, 1]}, [1 / 6, 1 / 6, 1 / 6, 1 / 2]),
        ({"weights": [4, 3, 2, 1]}, [0.4, 0.3, 0.2, 0.1]),
        ({"by_size": 1.0}, [0.2, 0.2, 0.2, 0.4]),
    ],
)
def test_data_sets_are_drawn_by_their_weights(
    settings: dict[str, Any], expected: Sequence[float], tmp_path: Path
) -> None:
    paths = [written(tmp_path, name)["path"] for name in ("a", "b", "c")]
    short = {"source": "arrays", "path": paths, "standardize": False}
    many = opened(tmp_path, short, written(tmp_path, "big", each=14), **settings)
    counts = Counter(many.place_of("train", index)[0] for index in range(4000))
    found = np.array([counts[place] for place in range(4)]) / 4000
    assert np.abs(found - expected).max() < 4 * np.sqrt(0.25 / 4000)  # four deviations of a frequency at most


def test_held_out_data_sets_are_taken_as_a_whole(tmp_path: Path) -> None:
    names = ("one", "two", "three")
    train, validation, test = (written(tmp_path, name, classes=2 + n) for n, name in enumerate(names))
    many = opened(tmp_path, train, validation=[validation], test=[test])
    classes = {split: set[int]() for split in SPLITS}
    for split in SPLITS:
        for index in range(40):
            drawn = many.episode(split, index)
            classes[split] |= set(drawn.class_ids)
    assert classes == {"train": {0, 1}, "validation": {2, 3, 4}, "test": {5, 6, 7, 8}}
    assert many.shape.groups == (2,)
    test_ids = many.episode("test", 0).episode.class_ids
    assert test_ids is not None and int(test_ids.max()) < 4  # numbered within the split


def test_a_test_alone_leaves_the_others_their_splits(tmp_path: Path) -> None:
    many = opened(tmp_path, written(tmp_path, "one"), test=[written(tmp_path, "other", classes=2)])
    assert {many.episode("validation", index).source for index in range(3)} == {"arrays:one"}
    drawn = {split: {one for i in range(30) for one in many.episode(split, i).class_ids} for split in SPLITS}
    assert not drawn["train"] & drawn["validation"] and drawn["test"] == {8, 9}


def test_fractions_hold_out_whole_data_sets(tmp_path: Path) -> None:
    sections = [written(tmp_path, f"set{number}", classes=2) for number in range(5)]
    many = opened(tmp_path, *sections, validation_fraction=0.2, test_fraction=0.4, weights=[1, 0, 1, 1, 1])
    names = {split: {many.episode(split, index).source for index in range(30)} for split in SPLITS}
    assert len(names["test"]) == 2 and len(names["validation"]) == 1 and not names["train"] & names["test"]
    assert set.union(*names.values()) | {"arrays:set1"} == {f"arrays:set{number}" for number in range(5)}
    assert sum("as a whole" in note for note in many.notes) == 2


def test_an_outer_step_is_of_one_data_set_where_sizes_differ(tmp_path: Path) -> None:
    sections = [{**written(tmp_path, name), "shots": shots} for name, shots in (("one", 1), ("two", 3))]
    given = {"source": "many", "sources": sections, "ways": 2, "queries": 2, "evaluation": {"shots": 2}}
    many = open_source(given, seed=0, cache=tmp_path / "cache")
    assert isinstance(many, Many) and not many.mixes and many.shape.varying
    many.meta_batch = 4
    for first in (0, REPEAT_EPISODES):
        steps = [{many.episode("train", first + 4 * step + i).source for i in range(4)} for step in range(12)]
        assert all(len(one) == 1 for one in steps) and len(set.union(*steps)) == 2
    assert len(many.episode("validation", 0).episode.support_y) == 4


def test_the_episodes_of_one_outer_step_have_one_number_in_every_repeat() -> None:
    for repeat in range(3):
        first = repeat * REPEAT_EPISODES
        steps = [outer_step_of(first + index, 4) for index in range(12)]
        assert steps == [steps[0] + index // 4 for index in range(12)]
    assert outer_step_of(7, 4) == 1  # as before there were repeats
    assert outer_step_of(REPEAT_EPISODES, 4) > outer_step_of(REPEAT_EPISODES - 1, 4)


def test_ways_vary_over_data_sets(tmp_path: Path) -> None:
    sections = [{**written(tmp_path, name), "ways": ways} for name, ways in (("one", 2), ("two", 4))]
    given = {"source": "many", "sources": sections, "shots": 1, "queries": 2, "evaluation": {"ways": 2}}
    many = open_source(given, seed=0, cache=tmp_path / "cache")
    assert many.shape.outputs == 4 and many.shape.varying
    assert {len(many.episode("train", index).class_ids) for index in range(9)} == {2, 4}
    assert {len(many.episode("test", index).class_ids) for index in range(4)} == {2}


def test_series_of_other_lengths_say_what_was_observed() -> None:
    short, long = (TaskShape("classification", (1, length), 2) for length in (4, 6))
    made = fitting(["short", "long"], [short, long], size=None, grey=False)
    assert made.inputs == (2, 6) and made.observed and "1 of 2 data sets are padded to length 6" in made.told[0]
    for task, length in ((short, 4), (long, 6)):
        fit, x = made.of(task), torch.randn(3, 1, length)
        assert fit is not None
        seen = fit(x)
        assert torch.equal(seen[:, :1, :length], x) and not seen[:, :, length:].any()
        assert torch.equal(seen[:, 1], (torch.arange(6) < length).float().expand(3, 6))
    with pytest.raises(DataError, match=r"\[1, 4\], and other .* \[2, 4\]: series of one number of channels"):
        fitting(["short", "other"], [short, TaskShape("classification", (2, 4), 2)], size=None, grey=False)


def test_a_series_that_says_what_was_observed_keeps_saying_it() -> None:
    plain, marked = (TaskShape("classification", (c, 5), 2, observed=c == 3) for c in (2, 3))
    made = fitting(["plain", "marked"], [plain, marked], size=None, grey=False)
    assert made.inputs == (3, 5) and made.observed and made.of(marked) is None and not made.told
    fit = made.of(plain)
    assert fit is not None and fit(torch.zeros(1, 2, 5))[0, 2].tolist() == [1.0] * 5


def test_images_are_resized_and_greyed_on_request(tmp_path: Path) -> None:
    small, large = written(tmp_path, "small", inputs=(1, 4, 4)), written(tmp_path, "large", inputs=(3, 8, 8))
    with pytest.raises(DataError, match=r"shape \[1, 4, 4\], and .* \[3, 8, 8\]; tasks.size and tasks.grey make"):
        opened(tmp_path, small, large)
    many = opened(tmp_path, small, large, size=4, grey=True)
    assert many.shape.inputs == (1, 4, 4)
    alone = open_source({**large, **SIZES}, seed=0, cache=tmp_path / "cache")
    index = next(index for index in range(20) if many.episode("train", index).source == "arrays:large")
    x = alone.episode("train", index).episode.support_x
    grey = 0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2]
    expected = torch.nn.functional.interpolate(grey[:, None], (4, 4), mode="bilinear", antialias=True)
    torch.testing.assert_close(many.episode("train", index).episode.support_x, expected)


def test_tasks_without_end_are_mixed_with_ids_of_their_own(tmp_path: Path) -> None:
    sources: list[dict[str, Any]] = [{"source": "sinusoid"}, {"source": "sinusoid", "noise": 0.5}]
    many = opened(tmp_path, *sources, ways=None, shots=5, queries=5)
    assert many.shape.kind == "regression" and many.shape.groups == () and many.mixes
    drawn = [many.episode("train", index) for index in range(30)]
    assert {one.source for one in drawn} == {"sinusoid", "sinusoid-2"}
    assert len({one.class_ids for one in drawn}) == 30


def test_the_digest_is_of_all_data_sets(tmp_path: Path) -> None:
    sections = [written(tmp_path, "one"), written(tmp_path, "two")]
    before = opened(tmp_path, *sections).digest
    assert before == opened(tmp_path, *sections).digest
    written(tmp_path, "two", each=9)
    assert opened(tmp_path, *sections).digest != before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sources": [{"source": "glyphs"}, {"source": "sinusoid"}]},
         r"tasks.sources\[1\]: sinusoid has another kind of task \(regression\) than glyphs \(classification\)"),
        ({"sources": [{"source": "glyphs"}, {"source": "digits"}]},
         r"tasks.sources\[1\]: the episodes of digits are batches of one task"),
        ({"sources": [{"source": "glyphs"}, {"source": "omniglot"}]}, r"tasks.sources\[1\].path: omniglot needs"),
        ({"sources": [{"source": "glyphs"}, {"source": "glyphs", "wayz": 3}]},
         r"tasks.sources\[1\].wayz: no setting of glyphs is named 'wayz'; did you mean 'ways'"),
        ({"sources": [{"source": "signals"}], "ways": 99}, r"tasks\.ways: in tasks\.sources\[0\], 99 ways need"),
        ({"sources": [{"source": "signals", "ways": 99}], "ways": None}, r"^tasks\.sources\[0\]\.ways: 99 ways need"),
        ({"sources": [{"source": "signals"}], "evaluation": {"ways": 99}},
         r"tasks\.evaluation: in tasks\.sources\[0\], 99 ways need"),
        ({"sources": [{"source": "signals", "evaluation": {"ways": 99}}]}, r"tasks\.sources\[0\]\.evaluation: 99 ways"),
        ({"sources": [{"source": "glyphs"}], "weights": [0.0]}, "tasks.weights: all are 0"),
        ({"sources": [{"source": "glyphs"}], "weights": [1.0, 2.0]}, "tasks.weights: got 2 numbers; give 1, one for"),
        ({"sources": []}, "tasks.sources: got an empty list"),
        ({"sources": [{"source": "sinusoid"}], "by_size": 1.0, "ways": None}, "tasks.by_size: sinusoid draws tasks"),
        ({"sources": [{"source": "sinusoid"}], "size": 8, "ways": None}, "tasks.size: sinusoid has .* no images"),
        ({"sources": [{"source": "glyphs"}], "test_fraction": 0.5}, "tasks.validation_fraction: .* neither does"),
        ({"sources": [{"source": "glyphs"}], "validation_fraction": 0.5, "test_fraction": 0.4}, "of 1 data sets leave"),
        ({"sources": [{"source": "glyphs"}], "test": [{"source": "glyphs"}], "test_fraction": 0.5},
         "tasks.test_fraction: tasks.test lists its data sets; remove one"),
        ({"sources": [{"source": "folder", "path": []}]}, r"tasks.sources\[0\]: path is an empty list"),
        ({"sources": [{"source": "glyphs", "evaluation": {"ways": 3}}, {"source": "glyphs"}]},
         "tasks.evaluation: validation episodes of glyphs have 3 ways and those of glyphs-2 2|"
         "validation episodes of glyphs have 3 ways and those of glyphs-2 2"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], message: str, cache: Path) -> None:
    with pytest.raises(DataError, match=message):
        open_source({"source": "many", **SIZES, **changes}, seed=0, cache=cache)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"validation": [{"source": "signals", "shots": 3}]},
            r"tasks\.validation\[0\]: signals is trained on too, by tasks\.s",
        ),
        (
            {"sources": [{"source": "signals"}] * 3, "validation_fraction": 0.3, "test_fraction": 0.3},
            "is trained on too",
        ),
    ],
)
def test_a_data_set_is_not_trained_on_and_held_out(settings: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        open_source({"source": "many", "sources": [{"source": "signals"}], **settings}, seed=0, cache=tmp_path)
