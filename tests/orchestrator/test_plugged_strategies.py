"""A sampler and a scheduler of an installed package, each one file, run in a search that is stopped and resumed."""

import json
import os
import sys
from typing import Any

import pytest

from tests.support import processes

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
        if os.environ.get("STOP_AT_SUGGESTION") == str(suggested):
            os.kill(os.getpid(), signal.SIGINT)
        return RandomSampler(seed=seed + self.shift)
'''
SCHEDULER = '''
"""A scheduler that stops every second trial."""

from dataclasses import dataclass

from metaloom.orchestrator.scheduling.base import STOP, Scheduler, Steps, Verdict, first_steps
from metaloom.workers.records.search import SearchRecord, TrialRecord
from metaloom.search_spaces.sections.strategies import SCHEDULERS


@SCHEDULERS.register("every_other")
@dataclass(frozen=True)
class EveryOther(Scheduler):
    """Every second trial stops."""

    grace_steps: Steps = None

    def judge(self, state: SearchRecord, trial: TrialRecord) -> Verdict:
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


WRONG = [
    ["search.sampler.shift=10"],
    ["search.sampler.shfit=1"],
    ["search.scheduler=every_othr"],
    ["search.objectives=[validation_loss, seconds]"],
]
CHILD = """
import json, os, sys

from metaloom.orchestrator import api
from metaloom.orchestrator.journal import Journal
from metaloom.orchestrator.store import Store
from metaloom.workers.records.search import SearchRecord
from metaloom.search_spaces.errors import ExperimentError
from metaloom.search_spaces.loading import load_experiment

experiment, wrong = json.load(open("given.json"))


def trials(name):
    journal = Journal(Store("store").existing_folder(name), read_only=True)
    return [(one.params, one.state) for one in SearchRecord.replay(journal.events()).trials.values()]


def refused(changes):
    try:
        return load_experiment(experiment, changes).name
    except ExperimentError as error:
        return str(error)


shown = {"refused": [refused(changes) for changes in wrong]}
shown["whole"] = api.search(experiment, store="store", name="whole", executor="inline").state, trials("whole")
os.environ["STOP_AT_SUGGESTION"] = "7"
shown["stopped"] = api.search(experiment, store="store", name="stopped", executor="inline").state, trials("stopped")
shown["resumed"] = api.resume("stopped", "store", executor="inline").state, trials("stopped")
print("SHOWN" + json.dumps(shown))
"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Lay a package out as pip would, and return what a process that has it does."""
    folder = tmp_path_factory.mktemp("packages")
    package, facts = folder / "own_strategies", folder / "own_strategies-1.0.dist-info"
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
    (folder / "given.json").write_text(json.dumps([EXPERIMENT, WRONG]))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    done = processes.run("-c", CHILD, environment=environment, folder=folder)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.partition("SHOWN")[2])
    return found


@pytest.mark.timeout(900)
def test_a_search_with_both_that_was_stopped_goes_on_as_the_uninterrupted_one(shown: dict[str, Any]) -> None:
    state, whole = shown["whole"]
    assert (state, [end for _, end in whole]) == ("finished", ["finished", "stopped"] * 2)
    state, before = shown["stopped"]
    assert state == "interrupted" and len(before) < len(whole)
    assert shown["resumed"] == ["finished", whole]


def test_their_settings_are_checked_as_those_of_the_built_in_ones(shown: dict[str, Any]) -> None:
    for found, words in zip(
        shown["refused"],
        (
            "search.sampler.shift: got 10; allowed: a whole number, at least 1 and at most 9",
            "search.sampler.shfit: no setting of shifted is named 'shfit'; did you mean 'shift'?",
            "search.scheduler: no scheduler is named 'every_othr'; did you mean 'every_other'?",
            "search.sampler: shifted takes one objective; use gp, nsga2",
        ),
        strict=True,
    ):
        assert words in found
