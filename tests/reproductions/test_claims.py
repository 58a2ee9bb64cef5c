"""The published claims, measured again; each test runs the command of its rows and holds them to their gates."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CLAIMS = ("V1", "V2", "V3", "V4", "V5", "V6", "V7", "V8", "V9", "V10", "V12", "V13", "V14", "V15", "V17", "V20", "V21")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.reproductions", *arguments], cwd=ROOT, capture_output=True, text=True
    )


def test_every_claim_has_a_row_here():
    assert run("--list").stdout.split() == list(CLAIMS)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_reaches_its_gates(claim):
    done = run(claim)
    print(done.stdout)
    if "no Omniglot at" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stdout + done.stderr
