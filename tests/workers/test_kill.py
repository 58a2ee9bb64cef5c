"""kill -9 at random instants: what comes out is the uninterrupted trial, every row once."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from closed_form import CACHE, Ridge, assembly, config
from metaloom.workers.records import Report
from metaloom.workers.trial import Trial
from test_trial import assert_same, timeless

PROGRAM = str(Path(__file__).parent / "run_trial.py")


def start(directory):
    process = subprocess.Popen([sys.executable, PROGRAM, str(directory)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def opened(directory):
    one = config(steps=400, validate_every=20)
    return Trial(one, directory, cache=CACHE, assembly=assembly(one, learner=Ridge(online=True)))


def reported(directory):
    lines = (directory / "reports.jsonl").read_text().splitlines()
    return {
        report.step: timeless(report) for report in (Report.from_json(json.loads(line)) for line in lines)
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted trial, and how long it took."""
    directory = tmp_path_factory.mktemp("whole")
    process = start(directory)
    started = time.monotonic()
    assert process.wait(60) == 0
    return opened(directory), time.monotonic() - started


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_instants(tmp_path, whole, seed):
    uninterrupted, seconds = whole
    instants = random.Random(seed)
    for _ in range(3):
        process = start(tmp_path)
        time.sleep(instants.uniform(0, seconds / 3))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start(tmp_path).wait(60) == 0
    assert_same(uninterrupted, opened(tmp_path))
    steps = reported(tmp_path)
    expected = reported(uninterrupted.directory)
    # A report whose checkpoint was written may be lost to the journal: at most one a kill; it is then
    # the resumed trial's last_report. Those that were journaled are the uninterrupted trial's own.
    assert len(expected) - 3 <= len(steps)
    assert all(expected[step] == report for step, report in steps.items())
    leftovers = [path.name for path in tmp_path.rglob(".aside*")]
    assert leftovers == []
