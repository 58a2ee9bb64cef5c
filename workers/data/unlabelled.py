"""An episode's examples without labels: Ren et al., 2018, https://arxiv.org/abs/1803.00676, section 2.2.

They are of the episode's classes, and of distractors: classes that the support set and the queries lack. They are drawn
from a stream of their own, so that support set, queries and seed are those of the episode without them: learners with
and without unlabelled examples are compared on the same queries.
"""

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from metaloom.search_spaces.sections.few_shot import Protocol
from metaloom.workers.data.class_table import ClassTable, Rows


def draw_unlabelled(
    table: ClassTable, ids: Rows, taken: Sequence[Rows], others: Rows, protocol: Protocol, generator: Generator
) -> tuple[Rows, Rows]:
    """Return a row and the quarter turns of each unlabelled example, each [n], in random order.

    Args:
        table: The source's classes.
        ids: The episode's classes [ways].
        taken: Rows of the support set and the queries of each class.
        others: The classes that distractors may be.
        protocol: How many examples, and of how many distractors.
        generator: The stream of the episode's unlabelled examples.
    """
    strange = generator.choice(np.setdiff1d(others, ids), protocol.distractors, replace=False)
    rows = []
    for place, one in enumerate([*ids.tolist(), *strange.tolist()]):
        own = table.starts[one] + np.arange(table.counts[one])
        free = np.setdiff1d(own, taken[place]) if place < len(ids) else own
        rows.append(generator.choice(free, protocol.unlabelled, replace=False))
    turns = table.turns[np.concatenate([ids, strange])].repeat(protocol.unlabelled)
    order = generator.permutation(len(turns))
    return np.concatenate(rows)[order], turns[order]
