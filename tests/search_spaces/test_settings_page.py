"""The tables of all settings are those of the declarations, and leave no setting out."""

from pathlib import Path

from metaloom.learners.fields import fields_of
from metaloom.search_spaces.sections.loops import task_catalogue
from metaloom.search_spaces.sections.strategies import sampler_catalogue, scheduler_catalogue
from metaloom.search_spaces.settings_page import tables, with_tables

PAGE = Path(__file__).resolve().parents[2] / "docs" / "experiment.md"


def test_the_page_is_written_from_the_declarations():
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_tables(page), "run: python -m metaloom.search_spaces.settings_page docs/experiment.md"


def test_every_setting_of_every_source_sampler_and_scheduler_is_in_it():
    sections = dict(part.split("`", 1) for part in tables().removeprefix("### `").split("\n### `"))
    for place, catalogue in (
        ("tasks", task_catalogue()),
        ("search.sampler", sampler_catalogue()),
        ("search.scheduler", scheduler_catalogue()),
    ):
        for kind, config in catalogue.configs.items():
            start = sections[place].index(f"| **{kind}**")
            own = sections[place][start:].split("\n| **")[0]
            assert [name for name in fields_of(config) if f"| `{name}` |" not in own] == []


def test_every_setting_has_a_meaning():
    rows = [[cell.strip() for cell in row.split(" | ")] for row in tables().splitlines() if row.startswith("| `")]
    assert len(rows) > 150
    assert [name for name, meaning, *_ in rows if not meaning] == []
