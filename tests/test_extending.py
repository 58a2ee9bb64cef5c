"""The examples of docs/extending.md, installed with pip as one package: each runs, and keeps its contract."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.packages import metaloom

ROOT = Path(__file__).resolve().parents[1]
PARTS = {"method", "component", "estimator", "network", "source", "sampler", "scheduler", "executor"}  # with a contract
CONTRACTS = PARTS | {"solvers"}
KINDS = PARTS | {"metric", "transductive", "closed_form", "kind", "figure", "count"}
BLOCKS = re.findall(r"```(?:python|toml)\n# (\S+)\n(.*?)```", (ROOT / "docs" / "extending.md").read_text(), flags=re.S)
OUTER = "{steps: 2, meta_batch: 2, validate_every: 2, validation_episodes: 4, test_episodes: 4}"
MLP = "architecture: {kind: mlp, hidden: [4]}"
DIGITS = "{source: glyphs, ways: 3, shots: 1, queries: 2}"
# a trial each: its tasks, its learner, and its estimator
TRIALS = {
    "method": ("{source: arrivals}", f"{{method: momentum_maml, {MLP}}}", "unroll"),
    "network": ("{source: sinusoid}", "{method: maml, architecture: {kind: sines, width: 6}}", "unroll"),
    "component": (DIGITS, f"{{method: maml, {MLP}, weighting: {{kind: trust, sharpness: learn}}}}", "unroll"),
    "estimator": (
        DIGITS,
        f"{{initialization: random, {MLP}, update: {{steps: 3, rate: {{learn: {{start: 0.1}}}}}}}}",
        "two_steps",
    ),
    "metric": (DIGITS, f"{{method: matching_networks, {MLP}}}", ""),
    "transductive": (DIGITS, f"{{method: soft_k_means, {MLP}}}", ""),
    "closed_form": ("{source: sinusoid}", f"{{method: ridge_head, {MLP}}}", ""),
}


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
        lines = len(text.splitlines())
        assert lines == 3 if name.startswith("tests/") else name == "pyproject.toml" or lines <= 40, (name, lines)


@pytest.mark.timeout(900)
def test_the_package_keeps_the_contracts(installed: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), *sys.path])}
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "--rootdir", ".", "tests"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=installed, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for contract in CONTRACTS:
        assert f"PASSED tests/test_{contract}.py" in done.stdout, contract
    assert " skipped" not in done.stdout.splitlines()[-1]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", TRIALS)
def test_each_part_of_a_learner_is_trained(installed: Path, kind: str) -> None:
    tasks, learner, estimator = TRIALS[kind]
    outer = OUTER.replace("}", f", hypergradient: {estimator}}}") if estimator else OUTER
    (installed / f"{kind}.yaml").write_text(f"tasks: {tasks}\nlearner: {learner}\nouter: {outer}\n")
    trained = metaloom(installed, "train", f"{kind}.yaml", "--name", kind, "--store", "store", "--json")
    assert trained.returncode == 0, trained.stderr
    shown = json.loads(metaloom(installed, "show", kind, "--store", "store", "--json").stdout)
    assert [trial["state"] for trial in shown["trials"]] == ["finished"]
    if kind == "method":  # the figure of what was learned, by the package too
        (drawn,) = (one for one in shown["learned"] if one["name"] == "sizes")
        assert drawn["caption"] == "The initialization holds 13 learned numbers."
        assert (installed / drawn["figure"]).is_file()


@pytest.mark.timeout(600)
def test_a_search_takes_its_sampler_scheduler_and_executor_and_its_command_counts_the_trials(installed: Path) -> None:
    section = "{trials: 4, sampler: {kind: shifted, shift: 3}, scheduler: every_other}"
    learner = f"{{method: maml, {MLP}, update: {{steps: 1, rate: search}}}}"
    outer = OUTER.replace("steps: 2, meta", "steps: 4, meta")
    (installed / "search.yaml").write_text(
        f"tasks: {{source: sinusoid}}\nlearner: {learner}\nouter: {outer}\nsearch: {section}\n"
    )
    arguments = ("--name", "first", "--store", "store", "--executor", "in_turns", "--json")
    searched = metaloom(installed, "search", "search.yaml", *arguments)
    assert searched.returncode == 0, searched.stderr
    shown = json.loads(metaloom(installed, "show", "first", "--store", "store", "--json").stdout)
    assert sorted((trial["number"], trial["state"]) for trial in shown["trials"]) == [
        (0, "finished"),
        (1, "stopped"),
        (2, "finished"),
        (3, "stopped"),
    ]
    counted = metaloom(installed, "count", "first", "--store", "store", "--json")
    assert (counted.returncode, json.loads(counted.stdout)) == (0, {"trials": 4}), counted.stderr
    assert "Count the trials of a search." in metaloom(installed, "count", "--help").stdout
