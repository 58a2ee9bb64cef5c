"""How many queries of each class an episode has, where they are not equally many.

Veilleux et al., 2021, https://arxiv.org/abs/2204.11181, section 3: the classes' shares are drawn from a symmetric
Dirichlet distribution, of alpha 2 in their benchmark, and their numbers add up to a fixed total. A class cannot have
more queries than it has examples left: what it lacks, the others get. All is drawn from a stream of its own: classes,
support set and seed are those of the balanced episode, and so are the queries of a class as far as both have them.
"""

import numpy as np
from numpy.random import Generator

from metaloom.workers.data.class_table import Rows


def draw_counts(alpha: float, total: int, most: Rows, generator: Generator) -> Rows:
    """Draw the queries of each class [ways], which add up to ``total``, each at most ``most`` [ways]."""
    shares = np.maximum(generator.dirichlet(np.full(len(most), alpha)), np.finfo(float).tiny)
    counts = np.zeros(len(most), dtype=np.int64)
    while (left := total - int(counts.sum())) > 0:
        free = counts < most
        wanted = np.where(free, shares, 0.0)
        wanted /= wanted.max()  # a small alpha leaves shares whose inverse no float holds
        wanted *= left / wanted.sum()
        whole = np.floor(wanted).astype(np.int64)
        # what rounding left goes to the largest remainders, the first class of equal ones
        rest = max(left - int(whole.sum()), 0)
        whole[np.argsort(-(wanted - whole) + 2.0 * ~free, kind="stable")[:rest]] += 1
        counts = np.minimum(counts + whole, most)
    return counts


def draw_queries(rows: Rows, starts: Rows, sizes: Rows, counts: Rows, shots: int, generator: Generator) -> list[Rows]:
    """Return the rows of each class's queries.

    Args:
        rows: The balanced episode's [ways, shots + queries], the support set first.
        starts: The first row of each class [ways].
        sizes: The number of its rows [ways].
        counts: Its queries [ways].
        shots: Support examples of each class.
        generator: The stream of the episode's balance.
    """
    queries = []
    for own, start, size, count in zip(rows, starts, sizes, counts.tolist(), strict=True):
        kept = own[shots : shots + count]
        free = np.setdiff1d(start + np.arange(size), own)
        more = generator.choice(free, count - len(kept), replace=False)
        queries.append(np.concatenate([kept, more]))
    return queries
