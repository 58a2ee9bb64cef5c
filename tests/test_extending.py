"""The examples of docs/extending.md, installed with pip as one package: each runs, and keeps its contract."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from metaloom.testing import SamplerContract
from tests.support.packages import metaloom, python

ROOT = Path(__file__).resolve().parents[1]
PARTS = {
    "method",
    "component",
    "penalty",
    "estimator",
    "network",
    "source",
    "sampler",
    "scheduler",
    "executor",
}  # with a contract
CONTRACTS = PARTS | {"solvers"}
KINDS = PARTS | {"metric", "transductive", "closed_form", "kind", "figure", "count"}
BLOCKS = re.findall(r"```(?:python|toml)\n# (\S+)\n(.*?)```", (ROOT / "docs" / "extending.md").read_text(), flags=re.S)
IGNORED = [
    option for kind in ("Deprecation", "PendingDeprecation", "Resource") for option in ("-W", f"ignore::{kind}Warning")
]
IGNORED += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # the process has imported the libraries already
OUTER: dict[str, Any] = {
    "strategy": "loop",  # tracing takes longer than two steps
    "steps": 2,
    "meta_batch": 2,
    "validate_every": 2,
    "validation_episodes": 4,
    "test_episodes": 4,
}
MLP = {"architecture": {"kind": "mlp", "hidden": [4]}}
DIGITS = {"source": "glyphs", "ways": 3, "shots": 1, "queries": 2}
# a trial each: its tasks, its learner, and its estimator
TRIALS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "method": ({"source": "arrivals"}, {"method": "momentum_maml", **MLP}, "unroll"),
    "network": ({"source": "sinusoid"}, {"method": "maml", "architecture": {"kind": "sines", "width": 6}}, "unroll"),
    "component": (DIGITS, {"method": "maml", **MLP, "weighting": {"kind": "trust", "sharpness": "learn"}}, "unroll"),
    "penalty": (DIGITS, {"method": "maml", **MLP, "loss": ["cross_entropy", {"kind": "soft_l1"}]}, "unroll"),
    "estimator": (
        DIGITS,
        {"initialization": "random", **MLP, "update": {"steps": 3, "rate": {"learn": {"start": 0.1}}}},
        "two_steps",
    ),
    "metric": (DIGITS, {"method": "attention_head", **MLP}, "auto"),
    "transductive": (DIGITS, {"method": "moved_means", **MLP}, "auto"),
    "closed_form": ({"source": "sinusoid"}, {"method": "ridge_head", **MLP}, "auto"),
}
SEARCH = {
    "tasks": {"source": "sinusoid"},
    "learner": {"method": "maml", **MLP, "update": {"steps": 1, "rate": "search"}},
    "outer": {**OUTER, "steps": 4},
    "search": {"trials": 4, "sampler": {"kind": "shifted", "shift": 3}, "scheduler": "every_other"},
}
# all in one process: torch and what the package brings are imported once
PROGRAM = """
import json, sys
import metaloom
from metaloom.dashboards.knowledge_figures import pictures, read_knowledge
from metaloom.orchestrator.store import Store

trials, search = json.load(sys.stdin)
for name, experiment in trials.items():
    metaloom.train(experiment, name=name, store="store")
metaloom.search(search, name="first", store="store", executor="in_turns")
records = {name: metaloom.load_search(name, store="store").trials for name in [*trials, "first"]}
drawn = pictures(read_knowledge(Store("store").existing_folder("method") / "trials" / "0000"))
print(json.dumps({
    "states": {name: record["state"].tolist() for name, record in records.items()},
    "captions": {picture.name: picture.caption for picture in drawn},
}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the package from the page, and install it with pip into a folder of its own."""
    source, target = tmp_path_factory.mktemp("loom-extras"), tmp_path_factory.mktemp("installed")
    for name, text in BLOCKS:
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(text)
    (source / "loom_extras" / "__init__.py").touch()
    options = ["-q", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    pip = [sys.executable, "-m", "pip", "install", *options, str(source)]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (target / "loom_extras-1.0.dist-info" / "RECORD").is_file()
    shutil.copytree(source / "tests", target / "tests")
    return target


def test_every_kind_has_an_example_of_at_most_40_lines_and_a_contract_of_three() -> None:
    assert {name for name, _ in BLOCKS} == {
        "pyproject.toml",
        *(f"loom_extras/{kind}.py" for kind in KINDS),
        *(f"tests/test_{kind}.py" for kind in CONTRACTS),
    }
    for name, text in BLOCKS:
        lines = text.splitlines()
        if name.startswith("tests/"):
            assert len([line for line in lines if line]) == 3, name
        else:
            assert name == "pyproject.toml" or len(lines) <= 40, (name, len(lines))


def test_a_suite_leaves_out_the_tests_that_none_of_its_rows_is_a_case_of() -> None:
    class TestOne(SamplerContract):
        rows = {"shifted": {}}

    class TestMore(TestOne):
        learning = ("shifted",)

    name = "test_samplers_that_learn_come_to_the_best_point_under_the_best_choice"
    assert [callable(getattr(suite, name)) for suite in (SamplerContract, TestOne, TestMore)] == [True, False, True]
    assert callable(TestOne.test_a_setting_that_does_not_exist_is_refused)


@pytest.mark.timeout(600)
def test_the_package_keeps_the_contracts(installed: Path) -> None:
    options = ["-q", "-rA", "-W", "error", *IGNORED, "-p", "no:cacheprovider", "--rootdir", "."]
    done = python(installed, "-m", "pytest", *options, "tests", fresh=True)  # pytest rewrites what is not yet imported
    assert done.returncode == 0, done.stdout + done.stderr
    for contract in CONTRACTS:
        assert f"PASSED tests/test_{contract}.py" in done.stdout, contract
    assert " skipped" not in done.stdout.splitlines()[-1], done.stdout


@pytest.mark.timeout(600)
def test_trials_and_a_search_run_with_what_the_package_brings(installed: Path) -> None:
    trials = {
        kind: {"tasks": tasks, "learner": learner, "outer": {**OUTER, "hypergradient": estimator}}
        for kind, (tasks, learner, estimator) in TRIALS.items()
    }
    done = python(installed, "-c", PROGRAM, given=json.dumps([trials, SEARCH]))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["states"] == {
        **{kind: ["finished"] for kind in TRIALS},
        "first": ["finished", "stopped", "finished", "stopped"],  # by the scheduler
    }
    assert found["captions"]["sizes"] == "The initialization holds 13 learned numbers."
    counted = metaloom(installed, "count", "first", "--store", "store", "--json")
    assert (counted.returncode, json.loads(counted.stdout)) == (0, {"trials": 4}), counted.stderr
