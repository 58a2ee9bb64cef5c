"""The published claims, measured again; each test runs the command of its rows and holds them to their gates."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15, 17, 20, 21, 24, 25)
MODELS = tuple(range(1, 13))  # of learners that build a model
PRETRAINING = tuple(range(1, 9))  # of networks that are handed on, of control and of many data sets
CLAIMS = (
    *(f"V{number}" for number in PUBLISHED),
    *(f"M{number}" for number in MODELS),
    *(f"P{number}" for number in PRETRAINING),
    "S1",
)


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
    if "no Omniglot at" in done.stderr or "no data at" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stdout + done.stderr
