"""A sampler and a scheduler of an installed package, each one file, run in a search that is killed and resumed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from metaloom.orchestrator.journal import Journal
from metaloom.orchestrator.state import SearchState

SAMPLER = '''
"""A sampler that alternates between two seeds."""

import os
import signal
from dataclasses import dataclass
from typing import Annotated, ClassVar

from optuna.samplers import BaseSampler, RandomSampler

from metaloom.learners.domains import Bounds, Int
from metaloom.orchestrator.proposing.samplers.base import Define, Sampler
from metaloom.search_spaces.sections.strategies import SAMPLERS

suggested = 0


@SAMPLERS.register("shifted")
@dataclass(frozen=True)
class Shifted(Sampler):
    """Random draws from a shifted seed."""

    one_objective: ClassVar[bool] = True
    shift: Annotated[int, Int(1, 9), Bounds(at_least=1, at_most=9)] = 1

    def build(self, seed: int, define: Define) -> BaseSampler:
        global suggested
        suggested += 1
        if os.environ.get("KILL_AT_SUGGESTION") == str(suggested):
            os.kill(os.getpid(), signal.SIGKILL)
        return RandomSampler(seed=seed + self.shift)
'''
SCHEDULER = '''
"""A scheduler that stops every second trial."""

from dataclasses import dataclass

from metaloom.orchestrator.scheduling.base import STOP, Scheduler, Steps, Verdict, first_steps
from metaloom.orchestrator.state import SearchState, TrialRecord
from metaloom.search_spaces.sections.strategies import SCHEDULERS


@SCHEDULERS.register("every_other")
@dataclass(frozen=True)
class EveryOther(Scheduler):
    """Every second trial stops."""

    grace_steps: Steps = None

    def judge(self, state: SearchState, trial: TrialRecord) -> Verdict:
        odd = trial.number % 2 == 1 and trial.step >= first_steps(self.grace_steps, trial)
        return Verdict(STOP, "its number is odd") if odd else Verdict()
'''
EXPERIMENT: dict[str, Any] = {
    "tasks": {"source": "sinusoid", "shots": 5, "queries": 5},
    "learner": {
        "method": "maml",
        "architecture": {"kind": "mlp", "hidden": [4]},
        "update": {"steps": 1, "rate": "search"},
    },
    "outer": {"steps": 4, "validate_every": 2, "validation_episodes": 4, "test_episodes": 4},
    "search": {"trials": 4, "sampler": {"kind": "shifted", "shift": 3}, "scheduler": "every_other"},
}


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """Lay a package out as pip would."""
    package, facts = tmp_path / "own_strategies", tmp_path / "own_strategies-1.0.dist-info"
    package.mkdir()
    facts.mkdir()
    (package / "__init__.py").write_text("")
    (package / "sampler.py").write_text(SAMPLER)
    (package / "scheduler.py").write_text(SCHEDULER)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: own-strategies\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(
        "[metaloom.samplers]\nshifted = own_strategies.sampler\n\n"
        "[metaloom.schedulers]\nevery_other = own_strategies.scheduler\n"
    )
    (tmp_path / "own.yaml").write_text(json.dumps(EXPERIMENT))
    return tmp_path


def metaloom(packages: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "metaloom", *arguments, "--store", "store"]
    path = os.pathsep.join([str(packages), *sys.path])
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, **environment},
        cwd=packages,
        check=False,
    )


def trials(packages: Path, name: str) -> list[tuple[dict[str, Any], str]]:
    journal = Journal(packages / "store" / "searches" / name, read_only=True)
    try:
        return [(one.params, one.state) for one in SearchState.replay(journal.events()).trials.values()]
    finally:
        journal.close()


def test_a_search_with_both_that_was_killed_goes_on_as_the_uninterrupted_one(packages: Path) -> None:
    search = ("search", "own.yaml", "--executor", "inline", "--name")
    whole = metaloom(packages, *search, "whole")
    assert whole.returncode == 0, whole.stderr
    killed = metaloom(packages, *search, "killed", KILL_AT_SUGGESTION="3")
    assert killed.returncode == -signal.SIGKILL
    assert len(trials(packages, "killed")) == 2
    resumed = metaloom(packages, "resume", "killed")
    assert resumed.returncode == 0, resumed.stderr
    assert trials(packages, "killed") == trials(packages, "whole")
    assert [state for _, state in trials(packages, "whole")] == ["finished", "stopped"] * 2


def test_their_settings_are_checked_and_in_the_schema(packages: Path) -> None:
    for change, message in (
        ("search.sampler.shift=10", "search.sampler.shift: got 10; allowed: a whole number, at least 1 and at most 9"),
        (
            "search.sampler.shfit=1",
            "search.sampler.shfit: no setting of shifted is named 'shfit'; did you mean",
        ),
        (
            "search.scheduler=every_othr",
            "search.scheduler: no scheduler is named 'every_othr'; did you mean 'every",
        ),
        ("search.objectives=[validation_loss, seconds]", "search.sampler: shifted takes one objective; use gp, nsga2"),
    ):
        refused = metaloom(packages, "check", "own.yaml", "--set", change)
        assert refused.returncode == 2 and message in refused.stderr, refused.stderr
