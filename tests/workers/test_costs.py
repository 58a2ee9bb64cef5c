"""What a trial costs, by its parts, and what its process has held."""

import dataclasses
import json

import torch

from metaloom.workers import device
from metaloom.workers.progress import Progress
from metaloom.workers.records import names
from metaloom.workers.records.trial import Report
from metaloom.workers.trial import laps
from metaloom.workers.trial.laps import Laps
from tests.support.closed_form import Ridge, config
from tests.workers.test_trial import open_trial, run, timeless


def test_laps_divide_the_time(monkeypatch):
    times = iter([10.0, 11.0, 13.0, 20.0, 21.0])
    monkeypatch.setattr(laps.time, "perf_counter", lambda: next(times))
    spent = {"sampling": 100.0}
    one = Laps(spent)
    one.end("sampling")
    one.end("inner")
    assert (spent, one.seconds) == ({"sampling": 101.0, "inner": 2.0}, 3.0)
    other = Laps(spent)
    other.end("inner")
    assert (spent, other.seconds) == ({"sampling": 101.0, "inner": 3.0}, 1.0)


class Slow(Ridge):
    """Takes its time for one part."""

    def __init__(self, part, seconds=0.004):
        super().__init__(online=True)
        self.part, self.seconds = part, seconds

    def wait(self, part):
        if part == self.part:
            laps.time.sleep(self.seconds)

    def meta_step(self, *given):
        self.wait(names.INNER_SECONDS)
        return super().meta_step(*given)

    def advance(self, *given):
        self.wait(names.OUTER_SECONDS)
        return super().advance(*given)

    def evaluate(self, *given):
        self.wait(names.VALIDATING_SECONDS)
        return super().evaluate(*given)


def test_the_parts_are_those_that_take_the_time(tmp_path):
    waits = {names.INNER_SECONDS: 60, names.OUTER_SECONDS: 60, names.VALIDATING_SECONDS: 30}
    for part, calls in waits.items():
        last = run(open_trial(tmp_path / part, learner=Slow(part)))[-1].metrics
        parts = {name: last[name] for name in names.PARTS_OF_SECONDS}
        assert parts[part] >= 0.004 * calls
        assert all(seconds > 0 for seconds in parts.values())
        assert sum(parts.values()) <= last["seconds"]


def test_a_resumed_trial_goes_on_counting(tmp_path):
    before = open_trial(tmp_path).advance().metrics
    after = open_trial(tmp_path).advance().metrics
    assert all(after[name] > before[name] for name in names.PARTS_OF_SECONDS)


def test_a_checkpoint_of_an_earlier_version_has_no_parts(tmp_path):
    trial = open_trial(tmp_path)
    document = {**Progress().to_json(), "last": trial.advance().to_json()}
    del document["costs"], document["last"]["device"]
    read = Progress.from_json(json.loads(json.dumps(document)))
    assert (read.costs, read.last.device) == ({}, "")
    assert "device" not in read.last.to_json()


def test_costs_do_not_make_reports_differ(tmp_path):
    one, other = (run(open_trial(tmp_path / name, config()))[-1] for name in ("one", "other"))
    assert one.device == "cpu"
    assert timeless(one) == timeless(other)
    assert dataclasses.replace(one, device="cuda:0") == one
    assert Report.from_json(one.to_json()).device == "cpu"


def test_the_peak_is_of_what_was_held_and_can_be_forgotten():
    device.forget_peak(torch.device("cpu"))
    before = device.peak_memory(torch.device("cpu"))[names.PEAK_BYTES]
    held = torch.ones(2**24)  # 64 MiB, each page written
    after = device.peak_memory(torch.device("cpu"))
    assert after.keys() == {names.PEAK_BYTES}
    assert after[names.PEAK_BYTES] - before > 0.7 * held.nbytes
