"""Records survive JSON, and names that are stored agree with each other."""

import dataclasses
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaloom.learners.errors import BadInput
from metaloom.workers.records import names as records
from metaloom.workers.records.episode_files import EPISODE_SCHEMA
from metaloom.workers.records.names import Report, TrialConfig, is_better, read_config

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


def test_the_columns_are_the_records_fields():
    assert tuple(EPISODE_SCHEMA.names) == records.EPISODE_COLUMNS
    assert len(set(records.EVENT_KINDS)) == len(records.EVENT_KINDS) == 14
    assert set(records.METRICS) >= records.TIMINGS | records.MAXIMIZED


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
    for one in (records.TrialConfig, records.Report, records.TrialResult, records.EpisodeRecord):
        for field in dataclasses.fields(one):
            assert f"        {field.name}: " in (one.__doc__ or ""), (one, field.name)
