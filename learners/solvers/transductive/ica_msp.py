r"""ICA + MSP: the few directions in which an episode's features vary, and class means that move to confident queries.

Lichtenstein et al., 2020 (TAFSSL), https://arxiv.org/abs/2003.06670, sections 3.1 and 3.2: features are centred
(support and queries apart), reduced to some independent components, scaled to unit length, and class means are
recomputed with the queries that are confidently theirs, several times (mean-shift propagation).

Independent component analysis whitens the leading principal components, then turns them. The turn changes neither
lengths nor distances, hence no prediction: here the whitening is all that is computed. Its derivative is that of the
leading eigenvectors. The choice of confident queries is discrete: the gradient takes it as fixed. ``uniform`` takes
equally many of each class, as the paper does; ``none`` all that are confident; ``estimated`` weighs the classes by
their shares too. Cost: the eigenvectors of the n x n inner products.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.domains import Int, Learned, Real
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.solvers.transductive.balancing import BalanceConfig, among, estimated_shares
from metaloom.learners.solvers.transductive.base import TransductiveHead
from metaloom.learners.solvers.transductive.eigenvectors import leading_eigenvectors
from metaloom.learners.solvers.transductive.preparing import TINY, Centre, class_means, prepared, squared_distances
from metaloom.learners.tensors import Tensors

NO_VARIANCE = 1e-6  # of the largest variance: a direction below it is rounding and counts as none


@dataclass(frozen=True)
class IcaMspConfig(BalanceConfig):
    """The reduction, and the mean shift.

    Attributes:
        power: Of the power transform of the features; 1 leaves them as they are.
        centre: Whether support and queries are centred separately, together or not at all.
        dimensions: Components that are kept.
        scale: What squared distances are multiplied by before the softmax.
        confidence: The probability above which a query counts as confident.
        iterations: Shifts of the class means.
    """

    power: Annotated[float | Learned, Real(0.1, 1.0)] = 1.0
    centre: Centre = "separate"
    dimensions: Annotated[int, Int(1, 200, log=True)] = 10
    scale: Annotated[float | Learned, Real(0.1, 100.0, log=True, positive=True)] = 5.0
    confidence: Annotated[float, Real(0.0, 0.99, per=())] = 0.3
    iterations: Annotated[int, Int(0, 100)] = 4


def whitened(x: Tensor, dimensions: int) -> Tensor:
    """Return the leading principal components [e, n, k] of examples [e, n, d], each of variance 1, at unit length."""
    moved = x - x.mean(1, keepdim=True)
    gram = moved @ moved.mT
    count = min(dimensions, x.shape[1] - 1, x.shape[2])
    vectors = leading_eigenvectors(gram, count)
    variances = (vectors.detach() * (gram.detach() @ vectors.detach())).sum(1, keepdim=True)  # [e, 1, k]
    kept = vectors * (variances > NO_VARIANCE * variances[..., :1]).to(x.dtype)
    return F.normalize(kept * x.shape[1] ** 0.5, dim=-1)


def confident(scores: Tensor, present: Tensor, config: IcaMspConfig) -> Tensor:
    """Mark for each class the queries that are confidently its own: [e, q, ways] of 0 and 1."""
    chances = torch.softmax(scores.detach(), -1)
    own = F.one_hot(chances.argmax(-1), scores.shape[-1]).to(scores.dtype)
    sure = own * (chances > config.confidence)
    if config.marginal != "uniform" or scores.shape[1] < scores.shape[2]:
        return sure
    counts = torch.where(present, sure.sum(1), torch.inf)
    fewest = counts.amin(-1)  # [e]
    ranks = (-(chances * sure)).argsort(stable=True, dim=1).argsort(1)
    return sure * (ranks < fewest[:, None, None])


def shifted(support: Tensor, members: Tensor, queries: Tensor, config: IcaMspConfig, scale: float | Tensor) -> Tensor:
    """Return the queries' scores [e, q, ways] after the class means have moved to the confident queries."""
    present = members.sum(1) > 0
    everything = torch.cat([support, queries], 1)
    scores = _scores(class_means(support, members), queries, present, config, scale)
    for _ in range(config.iterations):
        chosen = confident(scores, present, config)
        scores = _scores(class_means(everything, torch.cat([members, chosen], 1)), queries, present, config, scale)
    return scores


def _scores(means: Tensor, queries: Tensor, present: Tensor, config: IcaMspConfig, scale: float | Tensor) -> Tensor:
    scores = among(-scale * squared_distances(queries, means), present)
    if config.marginal != "estimated" or scores.shape[1] < scores.shape[2]:
        return scores
    return scores + estimated_shares(scores, present, config).clamp_min(TINY).log().unsqueeze(1)


@SOLVERS.register("ica_msp")
class IcaMsp(TransductiveHead):
    """The leading whitened components, and class means that move to confident queries."""

    config: IcaMspConfig

    def scores(self, phi: Tensors, support: Tensor, members: Tensor, queries: Tensor) -> Tensor:
        moved = prepared(support, queries, power=self.knob(phi, "power"), centre=self.config.centre)
        x, shots = whitened(torch.cat(moved, 1), self.config.dimensions), support.shape[1]
        return shifted(x[:, :shots], members, x[:, shots:], self.config, self.knob(phi, "scale"))
