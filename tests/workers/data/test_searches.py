"""Searches as tasks: what is tried first on a table is learned from others alone."""

import pytest

from metaloom.workers.data import DataError, open_source
from metaloom.workers.data.result_tables.opening import open_table
from metaloom.workers.data.result_tables.portfolio import learned_portfolio

TABLES = ["bowls/1", "bowls/2", "bowls/3"]


def opened(tmp_path, **settings):
    return open_source({"source": "searches", "tables": TABLES, **settings}, seed=3, cache=tmp_path)


def test_the_portfolio_of_a_table_is_that_of_the_others(tmp_path):
    source = opened(tmp_path, test=["bowls/9"], portfolio=4)
    columns = source.shape.columns
    assert [one.get("table") for one in columns] == [*TABLES, "bowls/9", None]
    tables = {name: open_table(name) for name in (*TABLES, "bowls/9")}
    for column in columns[:-1]:
        others = [tables[name] for name in TABLES if name != column["table"]]
        assert column["starts"] == [dict(one) for one in learned_portfolio(others, 4)]
    assert columns[-1]["portfolio"] == [dict(one) for one in learned_portfolio([tables[name] for name in TABLES], 4)]
    assert columns[-1]["learned_on"] == TABLES
    assert columns[-1]["knobs"]["width"] == {"low": 4, "high": 256, "log": True, "step": None}


def test_tables_are_searched_in_turn_each_time_from_another_seed(tmp_path):
    source = opened(tmp_path, validation=["bowls/5", "bowls/6"], searches=3)
    sampled = [source.episode("validation", index) for index in range(6)]
    assert [one.class_ids[0] for one in sampled] == [3, 4, 3, 4, 3, 4]
    assert all(int(one.episode.query_x[0, 0]) == one.class_ids[0] for one in sampled)
    assert (
        all(int(one.episode.query_x[0, 1]) == one.seed for one in sampled) and len({one.seed for one in sampled}) == 6
    )
    assert source.available("validation") == 6 and source.available("train") == 9 and source.available("test") == 6
    with pytest.raises(DataError, match="validation episode 6"):
        source.episode("validation", 6)


def test_by_default_each_table_is_judged_with_the_portfolio_of_the_others(tmp_path):
    source = opened(tmp_path, searches=1)
    assert [source.episode("test", index).class_ids[0] for index in range(3)] == [0, 1, 2]
    assert source.digest == opened(tmp_path, searches=2).digest != opened(tmp_path, validation=["bowls/7"]).digest


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"tables": []}, "tasks.tables: got an empty list; give at least one table"),
        ({"tables": ["bowl/1"]}, "tasks.tables: 'bowl/1' names no table of results"),
        ({"validation": []}, "tasks.validation: got an empty list; give at least one table"),
        ({"test": []}, "tasks.test: got an empty list; give at least one table"),
        ({"tables": ["bowls/1", "bowls/2", "bowls/1"]}, r"tasks.tables\[2\]: bowls/1 stands in tasks.tables\[0\] too"),
        ({"validation": ["bowls/5"] * 2}, r"tasks.validation\[1\]: bowls/5 stands in tasks.validation\[0\] too"),
        ({"test": ["bowls/9", "bowls/9"]}, r"tasks.test\[1\]: bowls/9 stands in tasks.test\[0\] too"),
        ({"test": ["bowls/9", "bowls/2"]}, r"tasks.test\[1\]: bowls/2 is learned from too, by tasks.tables\[1\]; list"),
        ({"test": ["bowls/x"]}, "tasks.test: 'bowls/x': these tables have numbers"),
        ({"budgets": 3}, "did you mean 'budget'"),
    ],
)
def test_wrong_settings_are_told(tmp_path, settings, told):
    with pytest.raises(DataError, match=told):
        opened(tmp_path, **settings)
