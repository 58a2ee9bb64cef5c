r"""Tables from a formula, which need no package: a bowl in three knobs, whose lowest point differs from table to table.

    loss = 0.1 + sum_k c_k (u_k - u*_k)^2 + 0.02 sin(6 pi u_rate) cos(4 pi u_width)

u are the knobs in a unit cube. The lowest points u* of all tables lie around one centre, so that what has been good on
some tables is a good start on another. ``bowls/7`` is the table of number 7; there is no end of them.
"""

import itertools
import math

import numpy as np

from metaloom.workers.data.base import DataError
from metaloom.workers.data.result_tables.base import ResultTable
from metaloom.workers.data.result_tables.grid import GridTable
from metaloom.workers.data.result_tables.opening import READERS, TableReader

FAMILY = "bowls"
CENTRE = (0.65, 0.4, 0.5)  # of the lowest points, as places of rate, width and depth in their ranges
SPREAD = 0.1  # the standard deviation of a lowest point about it
RATES = tuple(round(10.0 ** (power / 3), 6) for power in range(-12, 1))
WIDTHS = (4, 8, 16, 32, 64, 128, 256)
DEPTHS = (1, 2, 3, 4, 5)


def read_bowl(family: str, name: str) -> ResultTable:
    """Return the table of a number; raises DataError for anything else."""
    if not name.isdecimal():
        raise DataError(f"'{family}/{name}': these tables have numbers, such as {family}/1")
    generator = np.random.default_rng([int(name), 20_231])
    lowest = np.clip(np.array(CENTRE) + SPREAD * generator.standard_normal(3), 0.0, 1.0)
    steepness = generator.uniform(0.5, 2.0, 3)
    values, seconds = [], []
    for rate, width, depth in itertools.product(RATES, WIDTHS, DEPTHS):
        at = np.array([math.log10(rate) / 4 + 1, math.log2(width / 4) / 6, (depth - 1) / 4])
        ripple = 0.02 * math.sin(6 * math.pi * at[0]) * math.cos(4 * math.pi * at[1])
        values.append(0.1 + float((steepness * (at - lowest) ** 2).sum()) + ripple)
        seconds.append(depth * width / 4)
    levels = {"rate": RATES, "width": WIDTHS, "depth": DEPTHS}
    columns = np.array(values), np.array(seconds)
    return GridTable(f"{family}/{name}", levels, columns[0], seconds=columns[1], measure="loss", direction="minimize")


READERS.add(FAMILY, TableReader(FAMILY, read_bowl, lambda family: ["1", "2", "3"], "a formula, without end"))
