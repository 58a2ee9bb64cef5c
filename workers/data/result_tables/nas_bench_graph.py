"""The tables of the package ``nas-bench-graph``: graph networks of four operations, on nine data sets.

Qin et al., 2022, https://arxiv.org/abs/2206.09166. A configuration is one of nine ways in which the operations are
linked, and the operations; different ones can be the same network, and then have the same row.
"""

import itertools

import numpy as np

from metaloom.workers.data.result_tables.base import ResultTable
from metaloom.workers.data.result_tables.grid import GridTable
from metaloom.workers.data.result_tables.opening import READERS, TableReader, needed_package, table_named

PACKAGE, EXTRA = "nas-bench-graph", "tables"
FAMILY = "nas-bench-graph"
NAMES = ("arxiv", "citeseer", "computers", "cora", "cs", "photo", "physics", "proteins", "pubmed")
FEWER = "proteins"  # its networks have fewer operations


def read_graph(family: str, name: str) -> ResultTable:
    """Return the table of a data set: the validation accuracy; raises DataError if it or the package is absent."""
    package = needed_package("nas_bench_graph", PACKAGE, EXTRA)
    table_named(family, name, NAMES)
    rows = package.light_read(name)
    operations = package.gnn_list_proteins if name == FEWER else package.gnn_list
    links = ["".join(map(str, one)) for one in package.link_list]
    levels = {"links": links, **{f"operation{place}": list(operations) for place in range(1, 5)}}
    values = np.full(len(links) * len(operations) ** 4, np.nan)
    for place, (link, *chosen) in enumerate(itertools.product(*levels.values())):
        row = rows.get(package.Arch([int(one) for one in link], list(chosen)).valid_hash())
        if row is not None:  # four times skip is no network
            values[place] = row["valid_perf"]
    table = f"{family}/{name}"
    return GridTable(table, levels, values, seconds=None, measure="valid_perf", direction="maximize")


READERS.add(FAMILY, TableReader(FAMILY, read_graph, lambda family: list(NAMES), f"the package {PACKAGE}"))
