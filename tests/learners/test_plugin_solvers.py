"""A solver and a network of an installed package, from an experiment's file to a bundle that adapts."""

import json
from pathlib import Path

import pytest

from tests.support.packages import install, python

SOLVER = '''
from dataclasses import dataclass
from typing import Annotated

import torch

from metaloom.learners.base import METHODS, Recipe
from metaloom.learners.domains import Learned, Real
from metaloom.learners.solvers.amortized import AmortizedSolver
from metaloom.learners.solvers.base import SOLVERS


@dataclass(frozen=True)
class RidgeConfig:
    """The penalty of the head."""

    penalty: Annotated[float | Learned, Real(1e-4, 100.0, log=True, positive=True)] = 1.0


@SOLVERS.register("normal_equations")
class Ridge(AmortizedSolver):
    """Closed form: W = (X'X + penalty I)^-1 X'Y over the embedding."""

    Config = RidgeConfig

    def adapt(self, phi, embed, support):
        both = embed.beside(support.x)

        def outputs(query_x):
            features, queries = both(query_x)
            gram = features.T @ features + self.knob(phi, "penalty") * torch.eye(features.shape[1])
            return queries @ torch.linalg.solve(gram, features.T @ support.y)

        return outputs


METHODS.add(
    "closed_form",
    Recipe(
        summary="learns features for a ridge regression",
        paper="none",
        learner={
            "initialization": {"kind": "learned"},
            "prediction": {"kind": "normal_equations", "penalty": {"learn": {"start": 0.5}}},
        },
    ),
)
'''
NETWORK = """
from torch import nn


class Sines(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Linear(1, width)
        self.head = nn.Linear(width, 1)

    def forward(self, x):
        return self.head(self.body(x).sin())
"""
EXPERIMENT = """
name: own
tasks: {source: sinusoid, shots: 5, queries: 5}
learner:
  method: closed_form
  architecture: {kind: module, of: "ridge_package.network:Sines", settings: {width: 8}}
outer: {steps: 2, meta_batch: 2, validate_every: 2, validation_episodes: 2, test_episodes: 2}
"""
SCRIPT = """
import json

import torch

import metaloom

trained = metaloom.train("own.yaml", store="store")
tested = metaloom.evaluate("own", store="store", episodes=3)
bundle = metaloom.export("own", "bundle", store="store")
again = metaloom.evaluate(bundle, store="store", episodes=3)
adapted = metaloom.load_bundle(bundle).adapt(torch.rand(5, 1), torch.rand(5, 1))
answers = adapted.predict(torch.rand(3, 1))
print(json.dumps([trained.state, tested.mean, again.mean, list(answers.shape), bool(answers.isfinite().all())]))
"""


def lay_out(folder: Path, group: str) -> Path:
    named = {group: {"ridge": "ridge_package.solver"}}
    install(folder, "ridge-package", {"solver": SOLVER, "network": NETWORK}, named)
    (folder / "own.yaml").write_text(EXPERIMENT)
    (folder / "run.py").write_text(SCRIPT)
    return folder


def test_a_solver_of_a_package_is_trained_evaluated_exported_and_adapted(tmp_path: Path) -> None:
    """Its entry point vouches for its network's class too: nothing else trusts the code."""
    ran = python(lay_out(tmp_path, "metaloom.learners"), "run.py")
    assert ran.returncode == 0, ran.stderr
    state, tested, again, shape, finite = json.loads(ran.stdout.splitlines()[-1])
    assert (state, shape, finite) == ("finished", [3, 1], True)
    assert tested == pytest.approx(again, rel=1e-12)


def test_the_class_of_a_package_without_an_entry_point_is_not_imported(tmp_path: Path) -> None:
    (lay_out(tmp_path, "another.group") / "own.yaml").write_text(EXPERIMENT.replace("closed_form", "maml"))
    refused = python(tmp_path, "run.py")
    assert refused.returncode == 1
    assert "ridge_package.network:Sines is code that would run on this machine" in refused.stderr
