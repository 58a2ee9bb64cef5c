"""What a trial's code prints is kept beside its records."""

import sys
from pathlib import Path

import pytest

from metaloom.orchestrator.executors import output
from metaloom.orchestrator.executors.hosting import TrialHost
from metaloom.orchestrator.executors.output import TrialOutput
from metaloom.orchestrator.messages import Assignment
from metaloom.testing import toy
from metaloom.workers.records.trial import Report, TrialConfig, TrialRunner


class Talking(toy.ToyTrial):
    """Prints in each step, as a user's own network may."""

    def advance(self) -> Report:
        print("step", self.step)
        print("<script>alert(1)</script> password=hunter22", file=sys.stderr)
        return super().advance()


def open_talking(config: TrialConfig, directory: Path) -> TrialRunner:
    return Talking(config, directory)


def config(**outer: float) -> TrialConfig:
    return TrialConfig("s", 0, 0, {}, {"rate": 0.1}, outer={"steps": 3, "every": 1, **outer})


def test_it_is_kept_and_still_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for known_step in (-1, 1):
        host = TrialHost(open_talking)
        host.begin(Assignment(config(), tmp_path / "0000", known_step))
        assert host.step().report is not None
        host.close()
    kept = (tmp_path / "0000" / "output.log").read_text()
    lines = kept.splitlines()
    assert [line.split(",")[0] for line in lines if line.startswith("---")] == [f"--- on {host.worker}"] * 2
    assert [line for line in lines if line.startswith("step")] == ["step 0", "step 1"]
    assert kept.count("<script>alert(1)</script> password=***\n") == 2
    assert (tmp_path / "0000" / "output.log").stat().st_mode & 0o777 == 0o600
    printed = capsys.readouterr()
    assert printed.out == "step 0\nstep 1\n" and printed.err.count("<script>") == 2


def test_there_is_no_file_where_nothing_is_printed(tmp_path: Path) -> None:
    host = TrialHost(toy.open_toy)
    host.begin(Assignment(config(fail_at=2), tmp_path / "0000", -1))
    while host.step().report is not None:
        pass
    assert not (tmp_path / "0000" / "output.log").exists()


def test_the_streams_are_given_back_after_a_failure(tmp_path: Path) -> None:
    before = sys.stdout, sys.stderr
    kept = TrialOutput(tmp_path, "host:1")
    with pytest.raises(ZeroDivisionError), kept.kept():
        assert sys.stdout is not before[0]
        assert sys.stdout.encoding == before[0].encoding
        print("odd", file=sys.stderr)
        raise ZeroDivisionError
    assert (sys.stdout, sys.stderr) == before
    assert "\nodd\n" in (tmp_path / "output.log").read_text()


def test_it_ends_at_its_limit_and_never_ends_the_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "MOST_BYTES", 200)
    kept = TrialOutput(tmp_path, "host:1")
    for _ in range(100):
        kept.add("0123456789")
    content = (tmp_path / "output.log").read_text()
    assert len(content) < 300
    assert content.endswith("\n--- more was printed, which is not kept\n") and content.count("more was") == 1
    TrialOutput(tmp_path / "absent", "host:1").add("text")
    assert not (tmp_path / "absent").exists()
