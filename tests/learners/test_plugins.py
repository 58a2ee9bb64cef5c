"""Installed packages bring methods, components and task sources of their own."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.packages import metaloom

METHOD = '''
from dataclasses import dataclass

from metaloom.learners.base import METHODS, Recipe
from metaloom.learners.knowledge.initialization import INITIALIZATIONS

REGISTERED = INITIALIZATIONS["learned"]


@INITIALIZATIONS.register("shared_start")
class SharedStart(REGISTERED):
    """Another name for what is built in."""


METHODS.add(
    "{method}",
    Recipe(
        summary="learns where to start",
        paper="none",
        learner={{"initialization": {{"kind": "shared_start"}}}},
        outer={{"hypergradient": {{"kind": "unroll"}}}},
    ),
)
'''
SOURCE = '''
from dataclasses import dataclass
from typing import ClassVar

from metaloom.workers.data.base import SOURCES
from metaloom.workers.data.generated import SinusoidTasks


@dataclass(frozen=True)
class WaveTasks(SinusoidTasks):
    """Sines under another name."""

    octaves: int = 1


@SOURCES.register("waves")
class Waves(SOURCES["sinusoid"]):
    """Sines under another name."""

    name = "waves"
    Config = WaveTasks
'''
EXPERIMENT = """
tasks: {source: waves, shots: 5, queries: 5, octaves: 2}
learner: {method: start_together, architecture: {kind: mlp, hidden: [4]}, update: {rate: 0.01, steps: 1}}
outer: {steps: 2, meta_batch: 2}
"""


def installed(folder: Path, *, method: str = "start_together", broken: str = "", source: str = SOURCE) -> Path:
    """Lay a package out as pip would."""
    package, facts = folder / "bring_your_own", folder / "bring_your_own-1.2.dist-info"
    package.mkdir()
    facts.mkdir()
    (package / "__init__.py").write_text("")
    (package / "method.py").write_text(broken or METHOD.format(method=method))
    (package / "source.py").write_text(source)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: bring-your-own\nVersion: 1.2\n")
    (facts / "entry_points.txt").write_text(
        "[metaloom.learners]\nours = bring_your_own.method\n\n[metaloom.task_sources]\nwaves = bring_your_own.source\n"
    )
    return folder


def test_a_method_and_a_task_source_of_a_package_run_as_the_built_in_ones_do(tmp_path: Path) -> None:
    (installed(tmp_path) / "own.yaml").write_text(EXPERIMENT)
    checked = metaloom(tmp_path, "check", "own.yaml", "--json", "--store", str(tmp_path / "store"))
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["knobs"]["learner.initialization"] < 1e-6
    schema = metaloom(tmp_path, "schema").stdout
    assert '"start_together"' in schema
    assert '"octaves"' in schema


@pytest.mark.parametrize(
    ("broken", "method", "told"),
    [
        ("import nowhere_to_be_found", "", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("raise SystemExit('not on this machine')", "", "SystemExit: not on this machine"),
        ("", "maml", "two methods are named 'maml'"),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_named(tmp_path: Path, broken: str, method: str, told: str) -> None:
    installed(tmp_path, broken=broken, method=method)
    refused = metaloom(tmp_path, "check", "quick", "--store", str(tmp_path / "store"))
    assert refused.returncode == 3
    assert "the plugin 'ours' of bring-your-own 1.2 (metaloom.learners: bring_your_own.method)" in refused.stderr
    assert told in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("register", "exit_code"),
    [
        ("", 2),  # nothing is registered
        # a package written for version 0.1 registers the settings beside the source
        ('from metaloom.search_spaces.sections.tasks import TASK_SOURCES\n\nTASK_SOURCES.add("waves", WaveTasks)', 0),
    ],
)
def test_a_source_is_known_by_its_registration(tmp_path: Path, register: str, exit_code: int) -> None:
    decorator = '@SOURCES.register("waves")'
    source = SOURCE.replace(decorator, f"{register}\n\n\n{decorator}" if register else "")
    (installed(tmp_path, source=source) / "own.yaml").write_text(EXPERIMENT)
    checked = metaloom(tmp_path, "check", "own.yaml", "--store", str(tmp_path / "store"))
    assert (checked.returncode, "Traceback" in checked.stderr) == (exit_code, False), checked.stderr
    assert exit_code == 0 or "no task source is named 'waves'" in checked.stderr


def test_what_a_package_has_brought_is_missed_by_every_command_that_needs_it(tmp_path: Path) -> None:
    (installed(tmp_path) / "own.yaml").write_text(EXPERIMENT)
    (tmp_path / "sines.yaml").write_text(EXPERIMENT.replace("waves", "sinusoid").replace(", octaves: 2", ""))
    for file in ("own", "sines"):
        trained = metaloom(tmp_path, "train", f"{file}.yaml", "--name", file, "--store", "store")
        assert trained.returncode == 0, trained.stderr
    shutil.rmtree(tmp_path / "bring_your_own-1.2.dist-info")
    source, start = "no task source is named 'waves'", "no initialization is named 'shared_start'"
    for command, told in (
        (("check", "own.yaml"), source),
        (("check", "own.yaml"), "no method is named 'start_together'"),
        (("evaluate", "own"), source),
        (("export", "own", "--out", "bundle"), source),
        (("evaluate", "sines"), start),
        (("export", "sines", "--out", "bundle"), start),
    ):
        refused = metaloom(tmp_path, *command, "--store", "store")
        assert refused.returncode == 2
        (line,) = (one for one in refused.stderr.splitlines() if told in one)
        assert line.endswith("what a package has brought is needed here too: install it")
