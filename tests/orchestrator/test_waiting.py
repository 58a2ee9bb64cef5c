"""Waiting is visible: a piped stderr has a line every few seconds, and the first Ctrl-C says what it does."""

import io
import logging
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from metaloom.orchestrator.command_line import progress as showing
from metaloom.orchestrator.command_line.progress import LineProgress, LiveProgress, shown_progress
from metaloom.workers import activity
from metaloom.workers.activity import doing, note_elsewhere, present
from metaloom.workers.data.store import Arrays, cached
from tests.orchestrator.test_progress import STORY, drawn, follow
from tests.support import processes


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(showing, "SILENCE_S", 0.05)
    monkeypatch.setattr(showing, "LOOK_S", 0.02)


def lines_of(out: io.StringIO) -> list[str]:
    return [line.rpartition(", ")[0] for line in out.getvalue().splitlines()]


def test_a_line_is_never_longer_off_than_fifteen_seconds() -> None:
    assert showing.SILENCE_S + 2 * showing.LOOK_S < 15


@pytest.mark.usefixtures("quick")
def test_each_phase_of_a_search_is_told_while_nothing_else_is() -> None:
    out = io.StringIO()
    with shown_progress(Console(file=out, width=200)) as progress:
        time.sleep(0.15)
        assert set(lines_of(out)) == {"preparing the data and the learners"}
        with doing("starting Ray"):
            time.sleep(0.15)
        assert lines_of(out)[-1] == "starting Ray"
        follow(progress, STORY[:2])
        time.sleep(0.15)
        assert lines_of(out)[-1] == "waiting for a worker to begin a trial"
        follow(progress, STORY[:4])
        time.sleep(0.15)
        assert lines_of(out)[-1] == "trial 0: no report yet"
        follow(progress, STORY[:5])
        time.sleep(0.15)
        assert lines_of(out)[-1] == "trial 0: step 10 of 20, validation_accuracy 0.5"
    said = out.getvalue()
    time.sleep(0.1)
    assert out.getvalue() == said


@pytest.mark.usefixtures("quick")
def test_how_far_a_data_cache_is_is_told_from_another_thread(tmp_path: Path) -> None:
    out = io.StringIO()

    def build() -> Arrays:
        with doing("reading the images", total=60_000, noun="images") as reading:
            reading.done = 12_000
            time.sleep(0.2)
        time.sleep(0.2)
        import numpy as np

        return Arrays({"x": np.zeros(3)}, {})

    with shown_progress(Console(file=out, width=200)):
        cached(tmp_path, "folder", {}, build)
    lines = lines_of(out)
    assert "reading the images: 12,000 of 60,000 images" in lines and "building the data cache of folder" in lines
    assert present() is None


def test_a_terminal_has_a_bar_for_it() -> None:
    live = LiveProgress(Console(file=io.StringIO()))
    with doing("reading the images", total=4, noun="images") as reading:
        reading.done = 3
        text = drawn(live)
    assert "reading the images: 3 of 4 images" in text and "━" in text
    assert "reading" not in drawn(live)


def test_lines_of_warnings_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(showing, "LOOK_S", 1000.0)
    out = io.StringIO()
    with shown_progress(Console(file=out, width=200)) as progress:
        monkeypatch.setattr(showing, "SILENCE_S", 0.1)
        time.sleep(0.11)
        logging.getLogger("metaloom").warning("a word")
        progress.tell_waiting()
        assert out.getvalue() == "warning: a word\n"
        time.sleep(0.11)
        progress.tell_waiting()
    assert len(out.getvalue().splitlines()) == 2


def test_activities_end_also_by_errors_and_in_threads() -> None:
    with pytest.raises(ValueError, match="wrong"), doing("outer"):
        raise ValueError("wrong")
    held = threading.Event()

    def work() -> None:
        with doing("in a thread"):
            held.wait(5)

    thread = threading.Thread(target=work)
    with doing("outer"):
        thread.start()
        while len(activity._PRESENT) < 2:
            time.sleep(0.01)
    assert (now := present()) is not None and now.text == "in a thread"
    held.set()
    thread.join()
    assert present() is None


def test_work_that_goes_on_counts_the_time_of_its_earlier_parts() -> None:
    with doing("stage pretrain", spent=100.0) as going_on:
        assert 100 <= time.monotonic() - going_on.begun < 160
    note_elsewhere(0, "trial 0: stage pretrain: another trial trains it")
    note_elsewhere(0, "trial 0: stage pretrain: 443/1,500 outer steps", 100.0)
    now = present()
    note_elsewhere(0, None)
    assert now is not None and "443" in now.text and 100 <= time.monotonic() - now.begun < 160
    assert present() is None


EXPERIMENT = """\
name: slow
tasks: {source: sinusoid, shots: 5, queries: 5}
learner: {method: maml, architecture: {kind: mlp, hidden: [8]}, update: {rate: 0.01, steps: 1}}
outer: {steps: 1000000, meta_batch: 1, validate_every: 1000000, strategy: loop}
"""


def test_the_first_signal_says_at_once_what_follows(tmp_path: Path) -> None:
    (tmp_path / "slow.yaml").write_text(EXPERIMENT)
    code = "from metaloom.orchestrator.command_line import progress; progress.SILENCE_S = 0.5; progress.LOOK_S = 0.1; "
    code += "from metaloom.orchestrator.command_line import cli; cli.main()"
    command = ["-c", code, "train", str(tmp_path / "slow.yaml"), "--store", str(tmp_path / "store")]
    process = processes.Process(*command)
    sent = 0.0
    for line in process.stderr:
        if line.startswith("trial 0: ") and " of 1,000,000 outer steps" in line:
            sent = time.monotonic()
            process.send_signal(signal.SIGINT)
        if "completing the records" in line:
            break
    assert sent and time.monotonic() - sent < 1.5
    assert line.strip().endswith(
        "Ctrl-C: completing the records, which takes some seconds; a second Ctrl-C ends at once"
    )
    assert process.wait(60) == 130


@pytest.mark.parametrize(("number", "told"), [(signal.SIGTERM, "a second SIGTERM ends at once"), (signal.SIGHUP, "")])
def test_other_signals_have_their_own_names_and_a_closed_terminal_is_told_nothing(
    number: signal.Signals, told: str
) -> None:
    code = (
        "import os, signal; from metaloom.orchestrator.interruption import Interruption\n"
        "with Interruption('').installed() as one:\n"
        f"    os.kill(os.getpid(), {int(number)})\n"
        f"    assert one.signal_number == {int(number)}\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip().endswith(told) and bool(done.stderr) == bool(told)


def test_quiet_stays_quiet(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    token = showing.verbosity.set(showing.QUIET)
    try:
        with shown_progress(Console(file=out, width=200)) as progress, doing("starting Ray"):
            time.sleep(0.15)
            assert isinstance(progress, LineProgress)
            progress.tell_waiting()
    finally:
        showing.verbosity.reset(token)
    assert not out.getvalue()
