r"""The assignment of queries to classes under what is known of the classes' shares of them: Sinkhorn's iteration.

Cuturi, 2013, https://arxiv.org/abs/1306.0895: of all plans P with given row and column sums, the one that maximizes
<P, scores> + entropy(P) is

    P = diag(u) exp(scores) diag(v)

which is reached by scaling the rows to their sums, then the columns to theirs, again and again.

Most transductive heads assume equally many queries of each class (``uniform``). Veilleux et al., 2021,
https://arxiv.org/abs/2204.11181, draw the classes' shares from a Dirichlet distribution with alpha 2 and show that
those heads then lose most of their lead. ``estimated`` finds the shares that are most likely under the scores, as
mixing weights by expectation maximization; ``none`` leaves each query to its own softmax.

All is batched over episodes e, and differentiable: the gradient goes through every iteration.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from metaloom.learners.domains import Bounds, Int, Real

Marginal = Literal["uniform", "estimated", "none"]
FLOOR = -40.0  # of a score below the best of its query: no product of two such factors leaves float32
SMALLEST = 1e-18  # its square is within float32 too, and a slope divides by it
LEAST = 1e-12  # the probability whose logarithm stands for none


@dataclass(frozen=True)
class BalanceConfig:
    """What is assumed of the classes' shares of the queries.

    Attributes:
        marginal: ``uniform`` gives every class equally many queries, ``estimated`` as many as the queries themselves
            make likely, ``none`` assigns each query on its own.
        prior: Queries that each class is taken to have before any is seen, where the shares are estimated.
        estimate_steps: Steps of the estimate.
        balance_steps: Most steps of the balancing.
        tolerance: The change of a query's sum at which the balancing ends.
    """

    marginal: Marginal = "uniform"
    prior: Annotated[float, Real(0.0, 100.0, per=())] = 1.0
    estimate_steps: Annotated[int, Int(1, 1000, log=True)] = 20
    balance_steps: Annotated[int, Int(1, 10_000, log=True)] = 1000
    tolerance: Annotated[float, Real(1e-9, 1e-2, log=True, per=()), Bounds(at_least=0)] = 1e-6


def sinkhorn(scores: Tensor, rows: Tensor, columns: Tensor, *, steps: int, tolerance: float) -> Tensor:
    """Return the plan [e, n, ways] with these row sums [e, n] and column sums [e, ways]; the columns' are exact.

    An episode stops when no row sum has changed by ``tolerance`` in a step, whatever the others of its batch do, so
    that it is the same alone and in a batch. It leaves the batch then: a few slow ones do not hold up the others.
    """
    scores = scores.mT.contiguous()  # [e, ways, n]: sums over n are then along the memory
    plan = (scores - scores.detach().amax(1, keepdim=True)).clamp_min(FLOOR).exp()
    sums, left = plan.sum(1), torch.arange(len(plan), device=plan.device)
    ended: list[tuple[Tensor, Tensor]] = []
    for _ in range(steps):
        plan = _scaled(plan, (rows / sums.clamp_min(SMALLEST)).unsqueeze(1))
        plan = _scaled(plan, (columns / plan.sum(2).clamp_min(SMALLEST)).unsqueeze(-1))
        found = plan.sum(1)
        going = (found - sums).detach().abs().amax(1) >= tolerance
        sums = found
        if bool(going.all()):
            continue
        ended.append((left[~going], plan[~going]))
        left, plan, sums, rows, columns = left[going], plan[going], sums[going], rows[going], columns[going]
        if not len(left):
            break
    ended.append((left, plan))
    places, plans = (torch.cat(parts) for parts in zip(*ended, strict=True))
    return plans[places.argsort()].mT


def _scaled(plan: Tensor, factors: Tensor) -> Tensor:
    return plan * factors if plan.requires_grad or factors.requires_grad else plan.mul_(factors)


def among(scores: Tensor, present: Tensor) -> Tensor:
    """Put the scores [e, n, ways] of classes that are not ``present`` [e, ways] far below all others."""
    if bool(present.all()):
        return scores
    lowest = scores.detach().amin(-1, keepdim=True) + FLOOR
    return torch.where(present.unsqueeze(1), scores, lowest)


def estimated_shares(scores: Tensor, present: Tensor, config: BalanceConfig, rows: Tensor | None = None) -> Tensor:
    """Return the classes' shares [e, ways] of the queries with these scores, by expectation maximization.

    share_k <- (sum_i softmax_k(scores_i + log share) + prior) / (n + ways * prior): the mixing weights that are most
    likely a posteriori under a symmetric Dirichlet prior of concentration 1 + ``prior``. Of the queries those
    count that ``rows`` [e, n] weights; all, without it.
    """
    there = present.to(scores.dtype)
    shares = there / there.sum(-1, keepdim=True).clamp_min(1)
    for _ in range(config.estimate_steps):
        found = torch.softmax(scores + shares.clamp_min(LEAST).log().unsqueeze(1), -1)
        counts = (found if rows is None else found * rows.unsqueeze(-1)).sum(1) * there + config.prior * there
        shares = counts / counts.sum(-1, keepdim=True).clamp_min(LEAST)
    return shares


def balanced(scores: Tensor, present: Tensor, config: BalanceConfig) -> Tensor:
    """Return the soft assignment [e, n, ways] of queries with these scores; a row sums to 1.

    Fewer queries than classes cannot have equally many of each: each is then assigned on its own.

    Args:
        scores: [e, n, ways], unnormalized log probabilities.
        present: [e, ways], the classes that have a support example.
        config: What is assumed of the classes' shares.
    """
    scores = among(scores, present)
    n, ways = scores.shape[1:]
    if config.marginal == "none" or n < ways:
        return torch.softmax(scores, -1)
    if config.marginal == "estimated":
        shares = estimated_shares(scores, present, config)
    else:
        shares = present.to(scores.dtype) / present.sum(-1, keepdim=True).clamp_min(1)
    rows = scores.new_ones(scores.shape[:2])
    return sinkhorn(scores, rows, n * shares, steps=config.balance_steps, tolerance=config.tolerance)


def log_probabilities(plan: Tensor) -> Tensor:
    """Return the logarithm of an assignment, at least that of 1e-12, for a softmax that gives it back."""
    return plan.clamp_min(LEAST).log()
