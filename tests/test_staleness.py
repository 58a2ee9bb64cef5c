"""Which measured rows are stale: by git's history of the files that a protocol imports."""

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks.imports import ROOT, closure
from benchmarks.provenance import commit_of_code
from benchmarks.staleness import Stale, changed_since, stale

PROTOCOL, ENGINE, TENSORS = Path("benchmarks/protocol.py"), Path("learners/engine.py"), Path("learners/tensors.py")
FILES = {
    PROTOCOL: "from metaloom.learners.engine import run\n\nVALUE = run()\n",
    ENGINE: "from metaloom.learners import tensors\n\n\ndef run():\n    return tensors.ONE\n",
    TENSORS: "ONE = 1\n\n\ndef double(value):\n    return 2 * value\n\n\ndef half(value):\n    return value / 2\n",
    Path("learners/__init__.py"): "",
    Path("learners/aside.py"): "NOBODY_IMPORTS_THIS = True\n",
}


def git(root: Path, *arguments: str) -> str:
    names = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(root), *names, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(root: Path) -> str:
    git(root, "add", "-A")
    git(root, "commit", "-qm", "a change")
    return git(root, "rev-parse", "HEAD")


def write(root: Path, files: dict[Path, str]) -> None:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


@pytest.fixture
def repository(tmp_path: Path) -> tuple[Path, str]:
    git(tmp_path, "init", "-q", "-b", "main")
    write(tmp_path, FILES)
    return tmp_path, commit(tmp_path)


def found(root: Path, measured_at: str | None) -> list[Stale]:
    return list(stale({"V1": {"commit": measured_at}}, {"V1": [PROTOCOL]}, root))


def test_a_change_of_what_is_imported_indirectly_makes_a_row_stale(repository: tuple[Path, str]) -> None:
    root, measured_at = repository
    assert found(root, measured_at) == []
    write(root, {Path("learners/aside.py"): "CHANGED = True\n", Path("README.md"): "words\n"})
    commit(root)
    assert found(root, measured_at) == []
    write(root, {TENSORS: FILES[TENSORS].replace("2 *", "3 *")})
    now = commit(root)
    (one,) = found(root, measured_at)
    assert one == Stale("V1", measured_at, (TENSORS,))
    assert str(one) == f"V1: 1 file changed since {measured_at[:12]} (learners/tensors.py)"
    assert found(root, now) == []


def test_a_moved_file_has_not_changed_but_the_file_that_imports_it_has(repository: tuple[Path, str]) -> None:
    root, measured_at = repository
    write(root, {Path("learners/ground/__init__.py"): ""})
    git(root, "mv", str(TENSORS), "learners/ground/tensors.py")
    write(root, {ENGINE: FILES[ENGINE].replace("metaloom.learners import", "metaloom.learners.ground import")})
    commit(root)
    (one,) = found(root, measured_at)
    assert ENGINE in one.changed and Path("learners/ground/tensors.py") not in one.changed


def test_a_row_without_a_known_commit_is_stale(repository: tuple[Path, str]) -> None:
    root, _ = repository
    assert str(found(root, None)[0]) == "V1: measured on code that was not committed"
    assert changed_since("0" * 40, root) is None
    assert str(found(root, "0" * 40)[0]) == "V1: measured at 000000000000, which this clone does not have"


def test_numbers_of_changed_code_have_no_commit(repository: tuple[Path, str]) -> None:
    root, measured_at = repository
    assert commit_of_code(root) == measured_at
    write(root, {TENSORS: "ONE = 2\n"})
    assert commit_of_code(root) is None
    git(root, "checkout", "-q", ".")
    assert commit_of_code(root) == measured_at


def test_a_protocol_reaches_the_engine_and_no_other_protocol() -> None:
    files = closure([Path("benchmarks/reproductions/sinusoid.py")])
    assert {Path("learners/solvers/gradient.py"), Path("learners/methods/maml.py")} <= files
    assert Path("benchmarks/reproductions/omniglot.py") not in files
    assert not any(path.parts[0] == "orchestrator" for path in files)


@pytest.mark.parametrize("table", ["reproductions", "benchmarks"])
def test_every_row_carries_its_commit_and_the_page_shows_it(table: str) -> None:
    records = json.loads((ROOT / "docs" / f"{table}.json").read_text())
    page = (ROOT / "docs" / f"{table}.md").read_text()
    for name, record in records.items():
        assert record["commit"] is None or f"easured at {record['commit'][:12]}" in page, name
