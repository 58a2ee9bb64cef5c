"""kill -9 at random instants: what comes out is the uninterrupted trial, every row once."""

import json
import multiprocessing
import random
import time

import pytest

from metaloom.workers.records.trial import Report
from tests.support.killable import opened, run
from tests.workers.test_trial import assert_same, timeless

KILLS = 5


@pytest.fixture(scope="module")
def processes():
    """A server that has imported torch and forks: each trial is a process of its own, started at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["metaloom.workers.trial.runner"])
    return context


def reported(directory):
    lines = (directory / "reports.jsonl").read_text().splitlines()
    return [timeless(Report.from_json(json.loads(line))) for line in lines]


def wait_for_reports(directory, more, process):
    """Wait until the trial has reported ``more`` times since it was started, however busy the machine is."""
    path, deadline = directory / "reports.jsonl", time.monotonic() + 60
    before = len(reported(directory)) if path.exists() else 0
    while process.is_alive() and time.monotonic() < deadline:
        if path.exists() and path.read_bytes().count(b"\n") >= before + more:
            return
        time.sleep(0.001)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, processes):
    """The uninterrupted trial, and how long it took."""
    directory = tmp_path_factory.mktemp("whole")
    for name in ("warm", "timed"):
        started = time.monotonic()
        process = processes.Process(target=run, args=(directory / name,))
        process.start()
        process.join(60)
        assert process.exitcode == 0
    return opened(directory / "timed"), time.monotonic() - started


@pytest.mark.parametrize("seed", range(5))
def test_killed_at_random_instants(tmp_path, processes, whole, seed):
    uninterrupted, seconds = whole
    instants = random.Random(seed)
    killed = 0
    for _ in range(KILLS):
        process = processes.Process(target=run, args=(tmp_path,))
        process.start()
        wait_for_reports(tmp_path, instants.randrange(3), process)
        time.sleep(instants.uniform(0, seconds / 12))  # anywhere up to the next report
        process.kill()
        process.join(60)
        killed += process.exitcode != 0
    last = processes.Process(target=run, args=(tmp_path,))
    last.start()
    last.join(60)
    assert last.exitcode == 0
    assert killed > 0
    assert_same(uninterrupted, opened(tmp_path))
    # A kill between checkpoint and journal loses a report to the journal (a resumed trial has it as its
    # last_report), at most one a kill; the others are the uninterrupted trial's own, none twice.
    expected, found = reported(uninterrupted.directory), reported(tmp_path)
    assert len(expected) - killed <= len(found) <= len(expected)
    assert [one for one in expected if one in found] == found
    assert list(tmp_path.rglob(".aside*")) == []
