"""A kind of task is one object: a package's own trains, is evaluated, exported and adapted like those built in."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch

from metaloom.learners.episode import TaskShape
from metaloom.learners.registry import NotRegistered
from metaloom.learners.task_kinds import TASK_KINDS
from tests.support import processes

KIND = '''
import torch

from metaloom.learners.task_kinds import TaskKind, register_task_kind


def poisson(outputs, targets):
    """exp(o) - y o, with o the logarithm of the rate."""
    return (outputs.exp() - targets * outputs).mean(-1)


COUNTS = register_task_kind(TaskKind("counts", poisson, predict=torch.exp))
'''
SOURCE = '''
from dataclasses import dataclass
from typing import ClassVar

from metaloom.learners.episode import Episode, Support
from metaloom.workers.data.base import SOURCES
from metaloom.workers.data.generated import SinusoidTasks


@dataclass(frozen=True)
class ArrivalTasks(SinusoidTasks):
    """Counts whose rate is the exponential of a sine."""

    task_kind: ClassVar[str] = "counts"


@SOURCES.register("arrivals")
class Arrivals(SOURCES["sinusoid"]):
    """Rounded exponentials of the sines."""

    name = "arrivals"
    Config = ArrivalTasks

    def draw(self, generator):
        one = super().draw(generator)
        support, query = ((y / 3).exp().round() for y in (one.support_y, one.query_y))
        return Episode(Support(one.support_x, support), one.query_x, query)
'''
EXPERIMENT = """
tasks: {source: arrivals, shots: 10, queries: 10}
learner: {method: maml, architecture: {kind: mlp, hidden: [16]}, update: {rate: 0.05, steps: 2}}
outer: {steps: 20, meta_batch: 4, validate_every: 10, validation_episodes: 20}
"""
JOURNEY = """
import json
import numpy as np
from metaloom import load_bundle
from metaloom.orchestrator.command_line.cli import run

for command in (
    "check counts.yaml",
    "train counts.yaml --name counts",
    "evaluate counts --episodes 20",
    "export counts --out bundle",
):
    print()
    assert not run([*command.split(), "--store", "store", "--json"], debug=True), command
bundle, x = load_bundle("bundle"), np.linspace(-2, 2, 8, dtype=np.float32)[:, None]
rates = bundle.adapt(x, np.full(8, 3.0)).predict(x).tolist()
print()
print(json.dumps({"rates": rates, "kind": bundle.task.kind, "card": bundle.card}))
"""


def test_a_kind_of_task_of_a_package_is_one_object(tmp_path: Path) -> None:
    package, facts = tmp_path / "own_kind", tmp_path / "own_kind-1.0.dist-info"
    package.mkdir()
    facts.mkdir()
    for name, text in (("__init__", ""), ("kind", KIND), ("source", SOURCE)):
        (package / f"{name}.py").write_text(text)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: own-kind\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(
        "[metaloom.learners]\nkind = own_kind.kind\n\n[metaloom.task_sources]\nsource = own_kind.source\n"
    )
    (tmp_path / "counts.yaml").write_text(EXPERIMENT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = processes.run("-c", JOURNEY, environment=environment, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    checked, _, scored, _, found = (json.loads(one) for one in done.stdout.strip().split("\n\n"))
    assert checked["knobs"]["learner.initialization"] < 1e-6
    assert scored["metric"] == "loss"
    assert scored["mean"] < 1.0  # which is the loss of a rate of 1 everywhere
    assert found["kind"] == "counts"
    assert "counts on arrivals" in found["card"]
    assert all(rate > 0 for rate in found["rates"])  # rates, not their logarithms


@pytest.mark.parametrize("name", sorted(TASK_KINDS))
def test_every_labelled_kind_averages_the_losses_of_its_examples(name: str) -> None:
    kind = TASK_KINDS[name]
    outputs = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(7) % 3 if kind.has_classes else 2 * outputs.flip(0)
    if kind.labelled:
        torch.testing.assert_close(kind.outer(outputs, targets), kind.losses(outputs, targets).mean())
    assert bool(torch.isnan(kind.score(outputs, targets))) == (kind.accuracy is None)
    assert kind.metric == ("loss" if kind.accuracy is None else "accuracy")


def test_an_unknown_kind_of_task_is_told_the_right_spelling() -> None:
    with pytest.raises(NotRegistered, match="no kind of task is named 'clasification'; did you mean 'classification'"):
        _ = TaskShape("clasification", (1,), 2).task_kind
