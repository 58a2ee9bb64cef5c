"""The doctor looks by trying, and leaves nothing behind."""

from pathlib import Path

import pytest

from metaloom.orchestrator.command_line import cli
from metaloom.orchestrator.commands import doctor


def test_everything_is_looked_at(tmp_path: Path) -> None:
    findings = {finding.check: finding for finding in doctor.examine(tmp_path / "store", try_ray=False)}
    assert {"python", *doctor.PACKAGES, "devices", "store", "disk"} <= set(findings)
    assert findings["devices"].found.startswith("cpu")
    assert list(tmp_path.iterdir()) == []
    assert all(finding.good for finding in findings.values())


def test_ray_is_started_for_real(tmp_path: Path) -> None:
    finding = doctor._ray()
    assert finding.good, finding.found
    assert "ports on 127.0.0.1 only; a random token (0600 in a folder 0700)" in finding.security


def test_what_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be written" in doctor._writing(tmp_path / "file" / "store").found
    assert not doctor._package("no-such-package").good
    monkeypatch.setattr(doctor, "RAY_TRIAL", "raise SystemExit('no port is free')")
    assert "no port is free" in doctor._ray().found


def test_a_finding_that_is_bad_exits_with_3(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert cli.run(["doctor", "--no-ray", "--store", str(tmp_path / "file" / "store")]) == 3
    assert "no   store" in capfd.readouterr().out
    assert cli.run(["doctor", "--no-ray", "--store", str(tmp_path)]) == 0
