"""Searches on tables: the simulated clock and workers, the rules of the schedulers, grids and lists."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pytest

from metaloom.learners.domains import Choice, Int, Real
from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.simulation.candidates import Candidates
from metaloom.orchestrator.simulation.running import Simulation, simulate
from metaloom.orchestrator.simulation.settings import table_settings
from metaloom.search_spaces.errors import ExperimentError
from metaloom.workers.data.result_tables import RowTable, curve_of, domain_of
from metaloom.workers.records import names as records

GRID = [
    {"rate": rate, "width": width, "kind": kind}
    for rate, width, kind in itertools.product((0.001, 0.01, 0.1, 1.0), (16, 32, 64), ("relu", "tanh"))
]


def worth(row: dict[str, Any]) -> float:
    return (math.log10(row["rate"]) + 2) ** 2 + abs(row["width"] - 32) / 32 + (row["kind"] == "tanh")


def grid(steps: int = 4) -> RowTable:
    """A grid whose curves fall to the worth, a report every ``width`` seconds."""
    curves = [
        [
            curve_of(
                "minimize",
                [worth(row) + steps - step for step in range(1, steps + 1)],
                seconds=[float(row["width"] * step) for step in range(1, steps + 1)],
            )
        ]
        for row in GRID
    ]
    return RowTable("grid", measure="loss", direction="minimize", configurations=GRID, curves=curves)


def listed(curves: Sequence[Sequence[tuple[float, float]]], *, length: int | None = None) -> RowTable:
    """A list of configurations by number, each with (seconds, accuracy) at steps 1, 2, ..."""
    made = [
        [
            curve_of(
                "maximize",
                [value for _, value in curve],
                seconds=[at_s for at_s, _ in curve],
                length=length or max(map(len, curves)),
            )
        ]
        for curve in curves
    ]
    return RowTable(
        "list",
        measure="accuracy",
        direction="maximize",
        configurations=[{"number": number} for number in range(len(curves))],
        curves=made,
        domains={"number": Choice(tuple(map(str, range(len(curves)))))},
    )


def in_order(curves: Sequence[Sequence[tuple[float, float]]], *, workers: int = 1, **section: Any) -> Simulation:
    """Run the configurations of a list in their order: all are given as the first trials."""
    table = listed(curves)
    starts = [{"origin": "enqueued", "params": dict(one)} for one in table.configurations]
    settings = table_settings(table, sampler="random", trials=len(curves), **section)
    return simulate(table, settings, workers=workers, warm_start=starts)


def ends(found: Simulation) -> list[tuple[int, float]]:
    return [(one.trial, one.at_s) for one in found.ends]


def test_one_worker_takes_the_sum_of_all_times() -> None:
    found = in_order([[(3.0, 0.1), (5.0, 0.2)], [(1.0, 0.3), (2.0, 0.4)], [(4.0, 0.3), (6.0, 0.3)]])
    assert ends(found) == [(0, 5.0), (1, 7.0), (2, 13.0)]
    assert [one.best for one in found.ends] == [0, 1, 1]
    assert [one.worth for one in found.ends] == [0.2, 0.4, 0.4]


def test_two_workers_begin_the_next_trial_when_one_is_free() -> None:
    curves = [[(3.0, 0.1), (5.0, 0.2)], [(1.0, 0.3), (2.0, 0.4)], [(4.0, 0.3), (7.0, 0.5)], [(1.0, 0.1), (6.0, 0.1)]]
    found = in_order(curves, workers=2)
    # B takes trial 2 at 2 and ends it at 9; A takes trial 3 at 5 and ends it at 11
    assert ends(found) == [(1, 2.0), (0, 5.0), (2, 9.0), (3, 11.0)]
    assert ends(in_order(curves, workers=9)) == [(1, 2.0), (0, 5.0), (3, 6.0), (2, 7.0)]


def test_reports_at_the_same_time_are_heard_in_the_order_of_the_trials() -> None:
    found = in_order([[(2.0, 0.1)], [(2.0, 0.2)], [(2.0, 0.3)]], workers=3)
    assert ends(found) == [(0, 2.0), (1, 2.0), (2, 2.0)]


def test_asha_keeps_the_best_third_at_each_rung() -> None:
    good, bad = [(1.0, 0.9), (2.0, 0.9), (3.0, 0.9)], [(1.0, 0.1), (2.0, 0.1), (3.0, 0.1)]
    middle = [(1.0, 0.5), (2.0, 0.95), (3.0, 0.99)]
    section = {"scheduler": {"kind": "asha", "grace_steps": 1, "reduction_factor": 3}}
    found = in_order([good, bad, middle, good], **section)
    trials = found.record.trials
    assert [trials[number].state for number in range(4)] == ["finished", "stopped", "stopped", "finished"]
    assert [trials[number].step for number in range(4)] == [3, 1, 1, 3]
    assert trials[2].reason == "not in the best 1/3 of 3 trials at rung 1"
    assert ends(found) == [(0, 3.0), (1, 4.0), (2, 5.0), (3, 8.0)]  # a stopped trial's time is that of its last report
    assert not found.unseen


def test_with_several_workers_asha_judges_by_what_has_been_reported_by_then() -> None:
    slow_good, fast_bad = [(5.0, 0.9), (6.0, 0.9)], [(1.0, 0.1), (2.0, 0.1)]
    section = {"scheduler": {"kind": "asha", "grace_steps": 1, "reduction_factor": 2}}
    assert in_order([slow_good, fast_bad], **section).record.trials[1].state == records.STOPPED
    both = in_order([slow_good, fast_bad], workers=2, **section)  # the bad one is first at the rung
    assert both.record.trials[1].state == records.FINISHED


def test_hyperband_spares_the_patient_bracket_its_first_rung() -> None:
    good, bad = [(1.0, 0.9), (2.0, 0.9), (3.0, 0.9)], [(1.0, 0.1), (2.0, 0.1), (3.0, 0.1)]
    section = {"scheduler": {"kind": "hyperband", "grace_steps": 1, "reduction_factor": 2, "brackets": 2}}
    found = in_order([good, good, bad, bad], **section)
    trials = found.record.trials
    assert [(trials[number].state, trials[number].step) for number in (2, 3)] == [("stopped", 1), ("stopped", 2)]


def test_the_time_budget_ends_a_search_at_its_simulated_time() -> None:
    found = in_order([[(4.0, 0.1)], [(4.0, 0.2)], [(4.0, 0.3)]], time_budget_s=6.0)
    assert ends(found) == [(0, 4.0), (1, 8.0)]
    assert found.record.out_of_time


def test_a_grid_may_be_asked_again_and_a_list_once() -> None:
    table = grid()
    assert not table.once
    found = simulate(table, table_settings(table, sampler="random", trials=60), seed=2)
    assert len(found.ends) == 60 > len(set(found.places.values()))
    assert not found.exhausted
    some = RowTable(
        "some",
        measure="loss",
        direction="minimize",
        configurations=GRID[:-1],
        curves=[[curve_of("minimize", [worth(row)])] for row in GRID[:-1]],
    )
    assert some.once
    found = simulate(some, table_settings(some, sampler="tpe", trials=60), seed=2)
    assert found.exhausted and sorted(found.places.values()) == list(range(len(GRID) - 1))
    assert found.ends[-1].worth == some.best


def test_equal_seeds_give_equal_searches_and_others_do_not() -> None:
    table = grid()
    settings = table_settings(table, sampler="tpe", scheduler="asha", trials=30)
    first, again, other = (simulate(table, settings, seed=seed, workers=3) for seed in (4, 4, 5))
    assert first == again
    assert first.ends != other.ends


def test_a_model_finds_the_lowest_of_the_grid_sooner_than_random_draws() -> None:
    table = grid(1)
    reached = {"tpe": 0, "random": 0}
    for sampler in reached:
        for seed in range(6):
            settings = table_settings(table, sampler=sampler, trials=40)
            path = [one.worth for one in simulate(table, settings, seed=seed).ends]
            reached[sampler] += path.index(table.best) if table.best in path else len(path)
    assert reached["tpe"] < reached["random"]


def test_the_nearest_configuration_is_that_of_the_least_distance_in_the_unit_cube() -> None:
    table = grid()
    assert table.domains == {
        "rate": Real(0.001, 1.0, log=True),
        "width": Int(16, 64, log=True),
        "kind": Choice(("relu", "tanh")),
    }
    candidates = Candidates(table)
    for rate, width, kind in itertools.product((0.0029, 0.0035, 0.5), (16, 22, 23, 50), ("relu", "tanh")):
        params = {"rate": rate, "width": width, "kind": kind}

        def distance(row: dict[str, Any], to: dict[str, Any] = params) -> float:
            across = math.log(row["rate"] / to["rate"]) / math.log(1000)
            return across**2 + (math.log(row["width"] / to["width"]) / math.log(4)) ** 2 + (row["kind"] != to["kind"])

        expected = min(range(len(GRID)), key=lambda place: distance(GRID[place]))
        assert candidates.nearest(params, ()) == expected
        table.once = True
        listed_ones = Candidates(table)
        order = sorted(range(len(GRID)), key=lambda place: (round(distance(GRID[place]), 12), place))
        taken: list[int] = []
        for _ in range(5):
            taken.append(listed_ones.nearest(params, taken) or 0)
        assert taken == order[:5]
        table.once = False


def test_truth_values_and_a_number_that_never_changes_are_options() -> None:
    rows = [{"on": on, "rate": rate, "depth": 3} for on in (True, False) for rate in (0.1, 0.2)]
    curves = [[curve_of("minimize", [row["rate"] + row["on"]])] for row in rows]
    table = RowTable("some", measure="loss", direction="minimize", configurations=rows, curves=curves)
    found = simulate(table, table_settings(table, sampler="tpe", trials=20))
    assert {tuple(one.params.values()) for one in found.record.trials.values()} == {
        (on, rate, "3") for on in ("True", "False") for rate in (0.1, 0.2)
    }


def test_recorded_runs_follow_each_other_and_the_seed_draws_the_first() -> None:
    runs = [curve_of("minimize", [float(value)]) for value in (1, 2, 4)]
    table = RowTable(
        "runs", measure="loss", direction="minimize", configurations=[{"a": 1, "b": 2}], curves=[runs], once=False
    )
    seen = {
        tuple(table.curve(0, run=run, seed=seed).reports[0].metrics[records.VALIDATION_LOSS] for run in range(4))
        for seed in range(20)
    }
    assert seen == {(1.0, 2.0, 4.0, 1.0), (2.0, 4.0, 1.0, 2.0), (4.0, 1.0, 2.0, 4.0)}
    assert table.value(0) == pytest.approx(7 / 3)


@pytest.mark.parametrize(
    ("values", "domain"),
    [
        (["relu", "tanh", "relu"], Choice(("relu", "tanh"))),
        ([True, False], Choice(("True", "False"))),
        ([3, 3], Choice(("3",))),
        ([1, 2, 3], Int(1, 3)),
        ([16, 32, 64, 128], Int(16, 128, log=True)),
        ([0.0, 0.3, 0.6], Real(0.0, 0.6)),
        ([0.0005, 0.001, 0.005, 0.01, 0.05, 0.1], Real(0.0005, 0.1, log=True)),
        ([0.1, 0.3, 0.5, 0.7], Real(0.1, 0.7)),
    ],
)
def test_domains_are_found_from_values(values: list[Any], domain: Any) -> None:
    assert domain_of(values) == domain


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"sampler": "tpi"}, "no sampler is named 'tpi'; did you mean 'tpe'?"),
        ({"sampler": {"kind": "tpe", "startup": 3}}, "startup_trials"),
        ({"sampler": "grid"}, "a grid cannot hold every value of a continuous knob"),
        ({"scheduler": "pbt"}, "pbt needs at least 4 trials, got 3"),
    ],
)
def test_what_does_not_fit_a_table_is_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ExperimentError, match=message.replace("?", r"\?")):
        table_settings(grid(), trials=3, **section)


def test_a_table_without_scores_of_episodes_cannot_answer_paired() -> None:
    with pytest.raises(SearchError, match="compares trials on the same episodes, which grid has not; use asha"):
        simulate(grid(), table_settings(grid(), scheduler="paired", trials=3))
