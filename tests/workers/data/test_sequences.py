"""Sequences over few-shot sources: their examples, their order, their settings."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from metaloom.learners.errors import LearnerError
from metaloom.search_spaces.errors import ExperimentError
from metaloom.search_spaces.experiment import Experiment
from metaloom.search_spaces.sections.sequences import sequence_form
from metaloom.search_spaces.sections.tasks import TASK_SOURCES
from metaloom.testing import TaskSourceContract
from metaloom.workers.data import DataError, TaskSource, open_source
from tests.workers.data.test_episodes import MADE_HERE

TASKS: dict[str, Any] = {"episodes": "sequences", "ways": 4, "length": 20}


class TestSequences(TaskSourceContract):
    rows = {"glyphs": TASKS}

    @pytest.fixture
    def source_cache(self, cache: Path) -> Path:
        return cache


def opened(cache: Path, **settings: Any) -> TaskSource:
    return open_source({"source": "glyphs", **TASKS, **settings}, seed=3, cache=cache)


def test_a_sequence_is_a_few_shot_episode_in_another_order(cache: Path) -> None:
    few_shot = open_source({"source": "glyphs", "ways": 4, "shots": 4, "queries": 1}, seed=3, cache=cache)
    for split in ("train", "test"):
        sequence, plain = (source.episode(split, 5) for source in (opened(cache), few_shot))
        assert sequence.class_ids == plain.class_ids
        assert sequence.episode.support_x.shape == (0, 1, 28, 28) and sequence.episode.query_x.shape[0] == 20
        assert sequence.sample_ids != plain.sample_ids
        assert sorted(sequence.sample_ids) == sorted(plain.sample_ids) and len(set(plain.sample_ids)) == 20
        x = torch.cat([plain.episode.support_x, plain.episode.query_x])
        y = torch.cat([plain.episode.support_y, plain.episode.query_y])
        places = [plain.sample_ids.index(one) for one in sequence.sample_ids]
        assert torch.equal(sequence.episode.query_x, x[places])
        assert torch.equal(sequence.episode.query_y, y[places])
        assert torch.bincount(sequence.episode.query_y).tolist() == [5, 5, 5, 5]


def test_labels_and_order_are_drawn_for_each_sequence(cache: Path) -> None:
    """Else a learner could answer by the label or the place, without looking."""
    source = opened(cache)
    firsts = [source.episode("train", index) for index in range(200)]
    first = np.bincount([int(one.episode.query_y[0]) for one in firsts], minlength=4)
    assert first.min() > 30  # of 50 expected
    labels: dict[int, set[int]] = {}
    for one in firsts:
        for label, class_id in enumerate(one.class_ids):
            labels.setdefault(class_id, set()).add(label)
    assert max(len(seen) for seen in labels.values()) > 1


def test_a_folder_makes_sequences_too(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name in range(12):
        folder = tmp_path / "pictures" / f"class{name}"
        folder.mkdir(parents=True)
        for number in range(4):
            Image.fromarray(generator.integers(0, 255, (8, 8), dtype=np.uint8)).save(folder / f"{number}.png")
    tasks = {"source": "folder", "path": str(tmp_path / "pictures"), "episodes": "sequences", "ways": 2, "length": 8}
    source = open_source({**tasks, "size": 8}, seed=0, cache=tmp_path / "cache")
    assert source.episode("test", 0).episode.query_x.shape == (8, 1, 8, 8)
    assert source.shape.kind == "sequence" and source.name == "folder"
    with pytest.raises(DataError, match=r"tasks.length: 10 examples of 2 classes are 5 of each: tasks.shots"):
        open_source({**tasks, "length": 10}, seed=0, cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({**TASKS, "length": 18}, r"tasks.length: got 18; 4 classes have equally many .* take 16 or 20"),
        ({**TASKS, "length": 4}, r"take 8 or 12"),
        ({**TASKS, "shots": 5}, r"tasks.shots: a setting of few_shot episodes, .* tasks.episodes: few_shot"),
        ({"length": 20}, r"tasks.length: a setting of sequences episodes"),
        ({"episodes": "sequnces"}, r"did you mean 'sequences'"),
        ({**TASKS, "source": "digits"}, r"digits makes no sequences episodes; these are made by .*glyphs"),
    ],
)
def test_what_cannot_be_a_sequence_is_refused(tasks: dict[str, Any], message: str) -> None:
    with pytest.raises((ExperimentError, LearnerError), match=message):
        Experiment(tasks={"source": "glyphs", **tasks}, learner="mann")


def test_an_experiment_judges_sequences_by_their_accuracy_and_may_search_their_length() -> None:
    experiment = Experiment(tasks={"source": "glyphs", **TASKS, "length": {"search": [20, 40]}}, learner="mann")
    assert experiment.search.objectives[0].metric == "validation_accuracy"


def test_every_few_shot_source_of_classes_makes_sequences() -> None:
    able = {name for name, config in TASK_SOURCES.items() if sequence_form(config) is not None}
    assert {"glyphs", "omniglot", "folder", "arrays", "table", "cifar_fs"} <= able
    assert not able & {"sinusoid", "digits", "quadratics"}
    assert set(MADE_HERE) & able == {"glyphs", "signals"}
