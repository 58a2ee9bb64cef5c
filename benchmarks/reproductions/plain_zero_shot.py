"""The controls of M9 in plain torch, of ours only the data."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.reproductions.harness import TEST_EPISODES
from benchmarks.reproductions.written_out import Scores
from metaloom.workers.data.base import TaskSource
from metaloom.workers.data.sampler import FewShotSource


def unseen(source: FewShotSource) -> tuple[Tensor, list[Tensor]]:
    """Return the features of each test class [classes, features], and all its images [images, features]."""
    first, last = source.table.ends["test"]
    held = source.class_features
    assert held is not None
    spans = zip(source.table.starts[first:last].tolist(), source.table.counts[first:last].tolist(), strict=True)
    images = [
        torch.from_numpy(np.array(source.stored[start : start + count], dtype=np.float32)) for start, count in spans
    ]
    return torch.from_numpy(held.values[first:last]), images


def plain_eszsl(source: FewShotSource) -> float:
    """Compute the paper's formula over all examples of the training classes, with the floor's penalties (100, 0.1)."""
    first, last = source.table.ends["train"]
    classes, images = unseen(source)
    assert source.class_features is not None
    known = F.normalize(torch.from_numpy(source.class_features.values[first:last]).double(), dim=1)
    rows, _ = source.examples("train")
    x = F.normalize(torch.from_numpy(np.array(source.stored[rows], dtype=np.float64)), dim=1)
    labels = torch.arange(last - first).repeat_interleave(torch.from_numpy(source.table.counts[first:last]))
    signs = 2 * F.one_hot(labels, last - first).double() - 1
    left = torch.linalg.solve(x.T @ x + 100 * torch.eye(x.shape[1]).double(), x.T @ signs @ known)
    weights = left @ torch.linalg.inv(known.T @ known + 0.1 * torch.eye(known.shape[1]).double())
    scores = [F.normalize(x.double(), dim=1) @ weights @ F.normalize(classes.double(), dim=1).T for x in images]
    return sum(float((one.argmax(1) == place).float().mean()) for place, one in enumerate(scores)) / len(scores)


def nearest_name(source: TaskSource) -> Scores:
    """Return the accuracy of the nearest name, by the cosine on the embeddings themselves, on each test episode."""
    scores = []
    for index in range(TEST_EPISODES):
        episode = source.episode("test", index).episode
        assert episode.support.class_features is not None
        cosines = F.normalize(episode.query_x, dim=1) @ F.normalize(episode.support.class_features, dim=1).T
        scores.append(float((cosines.argmax(1) == episode.query_y).float().mean()))
    return tuple(scores)
