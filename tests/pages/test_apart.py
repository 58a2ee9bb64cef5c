"""The process that answers what imports much: it ends when it is idle, and no request waits for it without end."""

import time
from pathlib import Path

import pytest

from metaloom.learners.errors import BadEnvironment
from metaloom.orchestrator.command_line.apart_process import LocalApartProcess


def test_a_process_answers_as_the_server_and_ends_when_it_is_idle(tmp_path: Path) -> None:
    apart = LocalApartProcess(tmp_path, read_only=True, idle_s=0.2)
    found = apart.answer("/searches/no%20such/charts/learned.json", "trial=1", is_fragment=False)
    assert found.status == 404 and b"no such" in found.body
    assert found.headers["content-type"] == "application/json"
    deadline = time.monotonic() + 10
    while apart.pid is not None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    apart.close()


def test_a_process_that_gives_no_answer_is_ended_and_none_follows_the_end_of_the_server(tmp_path: Path) -> None:
    apart = LocalApartProcess(tmp_path, read_only=True, most_s=0.05)  # it has not even started by then
    with pytest.raises(BadEnvironment, match=r"at most 0\.05 s"):
        apart.answer("/", "", is_fragment=False)
    assert apart.pid is None
    apart.close()
    with pytest.raises(BadEnvironment, match="closed"):
        apart.answer("/", "", is_fragment=False)
