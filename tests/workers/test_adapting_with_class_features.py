"""``Bundle.adapt`` with what is known of each class, and with examples without labels."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.build import build_learner
from metaloom.learners.episode import Support, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.solvers.amortized import AmortizedSolver, Embedding, Outputs
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.tensors import Tensors
from metaloom.workers.bundle import Bundle
from metaloom.workers.checkpoint import Knowledge
from metaloom.workers.device import CPU
from metaloom.workers.errors import BundleError
from metaloom.workers.records.trial import TrialConfig

TASK = TaskShape("classification", (4,), 3, classes=9)
ATTRIBUTES = torch.eye(3, 4) * 5


class ByAttributes(AmortizedSolver):
    """A query's outputs are its inner products with each class's attributes, plus those with the support's means."""

    reads = frozenset()
    reads_support = frozenset({"class_features", "unlabelled"})
    needs_classes = True

    def adapt(self, phi: Tensors, embed: Embedding, support: Support) -> Outputs:
        if support.class_features is None:
            raise LearnerError("support.class_features: by_attributes needs the features of each class")
        classes: Tensor = support.class_features
        if len(support.y):
            members = F.one_hot(support.y, len(classes)).to(support.x)
            classes = classes + members.T @ support.x
        if support.unlabelled is not None:
            classes = classes - support.unlabelled.mean(0)
        return lambda query_x: query_x @ classes.T


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Bundle]:
    SOLVERS.add("by_attributes", ByAttributes)
    yield opened(tmp_path, "by_attributes")
    SOLVERS.remove("by_attributes")


def opened(path: Path, prediction: str) -> Bundle:
    section = {"prediction": {"kind": prediction}}
    learner = build_learner(learner=section, inner={}, outer={}, task=TASK)
    generator = torch.Generator().manual_seed(0)
    phi = learner.init(generator)
    config = TrialConfig("own", 0, 0, {"source": "own"}, section, {}, {}, {})
    return Bundle(path, config, TASK, {}, "", learner, Knowledge(phi, learner.begin(phi, generator), 0), CPU)


def test_class_features_alone_are_a_task(bundle: Bundle) -> None:
    adapted = bundle.adapt(class_features=ATTRIBUTES)
    assert adapted.labels.tolist() == [0, 1, 2]
    assert adapted.predict(torch.eye(3, 4)).tolist() == [0, 1, 2]
    expected = torch.softmax(torch.eye(3, 4) @ ATTRIBUTES.T, -1)
    torch.testing.assert_close(adapted.probabilities(torch.eye(3, 4)), expected)


def test_class_features_stand_in_the_order_of_the_sorted_labels(bundle: Bundle) -> None:
    x, labels = np.zeros((3, 4), np.float32), np.array(["cat", "ant", "bee"])
    adapted = bundle.adapt(x, labels, class_features=ATTRIBUTES.numpy())
    assert adapted.predict(np.eye(3, 4, dtype=np.float32)).tolist() == ["ant", "bee", "cat"]


def test_whole_numbers_are_class_features_too(bundle: Bundle) -> None:
    adapted = bundle.adapt(class_features=np.eye(3, 4, dtype=np.int64) * 5)
    assert adapted.predict(np.eye(3, 4, dtype=np.float32)).tolist() == [0, 1, 2]


def test_examples_without_labels_reach_the_solver(bundle: Bundle) -> None:
    queries, free = torch.randn(6, 4), torch.randn(5, 4)
    found = bundle.adapt(class_features=ATTRIBUTES, unlabelled=free).probabilities(queries)
    torch.testing.assert_close(found, torch.softmax(queries @ (ATTRIBUTES - free.mean(0)).T, -1))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"class_features": np.ones((2, 4))}, r"class_features: got 2 rows for 3 classes"),
        ({"class_features": np.ones(3)}, r"class_features: finite numbers \[ways, features\] are needed, got \(3,\)"),
        ({"class_features": np.full((3, 4), np.nan)}, r"class_features: finite numbers"),
        ({"class_features": np.ones((3, 4)), "unlabelled": np.ones((2, 5))}, "unlabelled"),
    ],
)
def test_what_does_not_fit_is_refused(bundle: Bundle, given: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        bundle.adapt(np.zeros((3, 4)), [0, 1, 2], **given)


def test_no_task_at_all_is_refused(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="give support_x and support_y, or class_features alone"):
        bundle.adapt(np.zeros((3, 4)))
    with pytest.raises(LearnerError, match="by_attributes needs the features of each class"):
        bundle.adapt(np.zeros((3, 4)), [0, 1, 2])


@pytest.mark.parametrize("name", ["class_features", "unlabelled"])
def test_a_learner_that_does_not_use_them_refuses_them(tmp_path: Path, name: str) -> None:
    with pytest.raises(LearnerError, match=rf"support\.{name}: prediction nearest_neighbour does not use it"):
        opened(tmp_path, "nearest_neighbour").adapt(np.zeros((3, 4)), [0, 1, 2], **{name: np.ones((3, 4))})
