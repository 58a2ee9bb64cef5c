r"""The head of EASY: augmented shots, centred on the unit sphere, and compared with class means.

Bendou, Hu, Lafargue, Lioi, Pasdeloup, Pateux and Gripon, 2022, https://arxiv.org/abs/2201.09699, section 3:

    f(x)  = mean over crops of the network's features of x                        (augmented shots)
    f    <- (f - mean of f over the base classes) / |f - mean of f over them|       (centre, sphere)
    p(k | x) = softmax_k(-T |f(x) - c_k|^2),   c_k = mean of f over the support of k   (nearest class mean)

With ``soft_k_means`` the queries refine the means, in 30 steps with T = 5: transductive. As in the paper each class
then takes an equal part of the queries (``balanced``); without it each takes as much as its shares add up to.

The mean over the base classes is a running one of meta-training, or is measured on meta-train episodes, under
``inner.batch_norm: frozen``; under ``support`` and ``batch`` it is that of the episode. Cost: as many passes of the
network as crops.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.domains import Int, Learned, Real
from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.networks.base import Network
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.solvers.amortized import AmortizedSolver, Embedding, Outputs
from metaloom.learners.solvers.base import SOLVERS, TRANSDUCTIVE
from metaloom.learners.solvers.metric.comparisons import kept
from metaloom.learners.solvers.metric.crops import crops
from metaloom.learners.solvers.transductive.balancing import BalanceConfig, among
from metaloom.learners.solvers.transductive.preparing import TINY, class_means, squared_distances
from metaloom.learners.solvers.transductive.soft_k_means import refined
from metaloom.learners.tensors import Tensors

Placed = Callable[[Tensor], tuple[Tensor, Tensor]]  # queries to features of the support set and of them
CENTRE = "centre"  # the layer whose running mean is that of the features


@dataclass(frozen=True)
class AugmentedShotsConfig:
    """Which parts of the head are there.

    Attributes:
        crops: Crops of each support image, whose features are averaged; 0 takes the image itself. The paper has 30.
        crop_area: The least area of a crop, as a fraction of the image.
        crop_queries: Whether queries are cropped too, at the same cost each.
        centre: Whether the mean feature of the base classes is subtracted.
        sphere: Whether features are scaled to length 1.
        classifier: Nearest class mean, or soft k-means over the queries too.
        sharpness: What squared distances are multiplied by before the softmax: the paper's temperature T.
        iterations: Steps of soft k-means.
        balanced: Whether each class takes an equal part of the queries in soft k-means, as in the paper.
    """

    crops: Annotated[int, Int(0, 100)] = 30
    crop_area: Annotated[float, Real(0.02, 1.0, per=())] = 0.08
    crop_queries: bool = False
    centre: bool = True
    sphere: bool = True
    classifier: Literal["ncm", "soft_k_means"] = "ncm"
    sharpness: Annotated[float | Learned, Real(0.01, 100.0, log=True, positive=True)] = 5.0
    iterations: Annotated[int, Int(0, 100)] = 30
    balanced: bool = True


@SOLVERS.register("augmented_shots")
class AugmentedShots(AmortizedSolver):
    """Class means of augmented shots, centred and on the unit sphere."""

    config: AugmentedShotsConfig
    needs_classes = True
    reads_support = frozenset({"mask"})

    def __init__(self, config: AugmentedShotsConfig, task: TaskShape) -> None:
        super().__init__(config, task)
        if config.crops and len(task.inputs) != 3:
            raise LearnerError(
                f"learner.prediction.crops: only images [channels, height, width] can be cropped, and this task's "
                f"examples have shape {task.inputs}; use 0"
            )
        if config.classifier == "soft_k_means":
            self.setting = TRANSDUCTIVE
        self.takes_features = config.crops == 0

    def has_batch_norm(self, network: Network | None) -> bool:
        return self.config.centre

    def adapt(self, phi: Tensors, embed: Embedding, support: Support) -> Outputs:
        given = kept(support)
        both = self.placed(embed, given)

        def outputs(query_x: Tensor) -> Tensor:
            return self.scores(phi, *both(query_x), given.y)

        return outputs

    def placed(self, embed: Embedding, support: Support) -> Placed:
        """Return queries to the features of support set and queries on the sphere, of augmented shots."""
        if not embed.together:
            features = self._features(embed, support.x, cropped=True)
            return lambda query_x: self._on_sphere(embed, features, self._features(embed, query_x, cropped=False))
        return lambda query_x: self._on_sphere(embed, *self._in_one_batch(embed, support.x, query_x))

    def _versions(self, x: Tensor, *, cropped: bool) -> Tensor:
        """Return the versions [versions, n, *features] of examples whose features are averaged."""
        taken = self.config.crops if cropped or self.config.crop_queries else 0
        return crops(x, taken, self.config.crop_area) if taken else x.unsqueeze(0)

    def _features(self, embed: Embedding, x: Tensor, *, cropped: bool) -> Tensor:
        versions = self._versions(x, cropped=cropped)
        return embed(versions.flatten(0, 1)).view(*versions.shape[:2], -1).mean(0)

    def _in_one_batch(self, embed: Embedding, support_x: Tensor, query_x: Tensor) -> tuple[Tensor, Tensor]:
        shots, asked = self._versions(support_x, cropped=True), self._versions(query_x, cropped=False)
        passed, count = embed(torch.cat([shots.flatten(0, 1), asked.flatten(0, 1)])), len(shots) * shots.shape[1]
        support, queries = passed[:count].view(*shots.shape[:2], -1), passed[count:].view(*asked.shape[:2], -1)
        return support.mean(0), queries.mean(0)

    def _on_sphere(self, embed: Embedding, support: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        if self.config.centre:
            norm = embed.own_norm(partial(centre_of, x=support))
            mean = centre_of(norm, torch.cat([support, queries]))
            support, queries = support - mean, queries - mean
        if self.config.sphere:
            support, queries = F.normalize(support, dim=-1), F.normalize(queries, dim=-1)
        return support, queries

    def scores(self, phi: Tensors, support: Tensor, queries: Tensor, labels: Tensor) -> Tensor:
        """Return the logits [q, ways] of queries [q, d] beside a support set [s, d] with labels [s]."""
        members = F.one_hot(labels, self.task.outputs).to(support.dtype)[None]
        sharpness, present = self.knob(phi, "sharpness"), members.sum(1) > 0
        means = self._means(support[None], members, queries[None], sharpness)
        return among(-squared_distances(queries[None], means) * sharpness, present)[0]

    def _means(self, support: Tensor, members: Tensor, queries: Tensor, sharpness: float | Tensor) -> Tensor:
        """Return the class means [1, ways, d], refined by the queries where soft k-means does so."""
        if self.config.classifier == "ncm":
            return class_means(support, members)
        steps = self.config.iterations
        if self.config.balanced:
            return equally_refined(support, members, queries, steps=steps, sharpness=sharpness)
        free = BalanceConfig(marginal="none")
        return refined(support, members, queries, free, iterations=steps, temperature=1 / sharpness)

    def inspect(self, phi: Tensors, embed: Embedding, episode: Episode) -> Tensors:
        """Show the class means among the features on the sphere."""
        given = kept(episode.support)
        support, queries = self.placed(embed, given)(episode.query_x)
        members = F.one_hot(given.y, self.task.outputs).to(support.dtype)[None]
        means = self._means(support[None], members, queries[None], self.knob(phi, "sharpness"))[0]
        return {"support": support, "queries": queries, "prototypes": means}


def centre_of(norm: Normalization, x: Tensor) -> Tensor:
    """Return the mean feature [d] that a norm was given, or of the features x [n, d], which it collects."""
    if norm.given is None:
        norm(CENTRE, x, x.new_ones(x.shape[1]), x.new_zeros(x.shape[1]))
    return (norm.collected if norm.given is None else norm.given)[f"{CENTRE}.mean"]


def equally_refined(
    support: Tensor, members: Tensor, queries: Tensor, *, steps: int, sharpness: float | Tensor
) -> Tensor:
    """Refine the class means [e, ways, d] by soft k-means in which every class weighs an equal part of the queries.

    A class's mean is that of its n_k shots, and of q / ways queries: those weighted by their shares in it.
    """
    shots, part = members.sum(1).unsqueeze(-1), queries.shape[1] / members.shape[-1]
    present = shots.squeeze(-1) > 0
    start = means = class_means(support, members)
    for _ in range(steps if queries.shape[1] else 0):
        shares = torch.softmax(among(-squared_distances(queries, means) * sharpness, present), -1)
        weighed = shares.mT @ queries / shares.sum(1).clamp_min(TINY).unsqueeze(-1)
        means = torch.where(shots > 0, (shots * start + part * weighed) / (shots + part), start)
    return means
