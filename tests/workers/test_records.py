"""Records survive JSON, and names that are stored agree with each other."""

import dataclasses
import inspect
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaloom.learners.errors import BadInput
from metaloom.search_spaces.sections.settings import SearchSettings
from metaloom.workers.records import names as records
from metaloom.workers.records.episode import EPISODE_COLUMNS, EPISODE_COLUMNS_SHOWN, Column
from metaloom.workers.records.episode_schema import EPISODE_SCHEMA
from metaloom.workers.records.journal import Event, RecordsError
from metaloom.workers.records.names import is_better
from metaloom.workers.records.search import SearchRecord, TrialRecord
from metaloom.workers.records.trial import Report, TrialConfig, read_config

NUMBERS = st.floats(allow_nan=False)
SECTIONS = st.dictionaries(
    st.text(max_size=5), st.recursive(st.none() | st.integers() | NUMBERS | st.text(), st.lists, max_leaves=4)
)


@given(SECTIONS, SECTIONS, st.integers(0), st.integers(0, 2**62))
def test_a_configuration_survives_json(tasks, learner, trial, seed):
    config = TrialConfig("a", trial, seed, tasks, learner)
    assert TrialConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@given(st.dictionaries(st.text(), NUMBERS), st.lists(NUMBERS), NUMBERS, st.lists(st.text()))
def test_a_report_survives_json(metrics, scores, number, notes):
    report = Report(3, metrics, (number, number), tuple(scores), 4, number, True, tuple(notes))
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_tuples_become_lists_on_the_way():
    config = TrialConfig("a", 0, 0, {"source": "x"}, {"update": {"rates": (0.1, 0.2)}})
    assert config.to_json()["learner"] == {"update": {"rates": [0.1, 0.2]}}


def test_an_unknown_field_is_not_passed_over():
    with pytest.raises(TypeError):
        TrialConfig.from_json({**TrialConfig("a", 0, 0, {}, {}).to_json(), "more": 1})


def test_the_schema_has_the_declared_columns():
    assert tuple(EPISODE_SCHEMA.names) == EPISODE_COLUMNS
    assert len(set(EPISODE_COLUMNS)) == len(EPISODE_COLUMNS) == 23
    assert set(EPISODE_COLUMNS_SHOWN) < set(EPISODE_COLUMNS)


def test_every_kind_of_event_has_a_meaning():
    texts = {name: value for name, value in vars(records).items() if isinstance(value, str)}
    kinds = {value for name, value in texts.items() if name.startswith(("SEARCH_", "TRIAL_")) and "_" in value}
    kinds |= {records.BASELINE, records.BEST_TESTED}
    assert len(kinds) == 16
    for kind in kinds - {records.BEST_TESTED}:  # a known kind reads its payload
        with pytest.raises(RecordsError, match=kind):
            SearchRecord.replay([Event(1, 0.0, 0 if kind.startswith("trial") else None, kind, None)])
    assert SearchRecord.replay([Event(1, 0.0, 0, "unknown", None)]).trials == {}


def test_better_means_more_accuracy_or_less_loss():
    assert is_better("validation_accuracy", 0.6, 0.5)
    assert not is_better("validation_accuracy", 0.5, 0.5)
    assert is_better("validation_loss", 0.4, 0.5)
    assert is_better("validation_loss", 9.0, None)
    assert not is_better("validation_loss", float("nan"), None)


def test_a_folder_without_a_trial_is_named(tmp_path):
    with pytest.raises(BadInput, match="no trial is here"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text('{"search": "a"}')
    with pytest.raises(BadInput, match="no trial is here"):
        read_config(tmp_path)


def test_reading_records_needs_no_torch():
    code = "import sys, metaloom.workers.records.names as r; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def test_a_records_fields_are_documented():
    for one in (TrialConfig, Report, TrialRecord, Event, SearchSettings, Column):
        for name in one.model_fields if one is SearchSettings else (field.name for field in dataclasses.fields(one)):
            assert f"    {name}: " in (inspect.getdoc(one) or ""), (one, name)
