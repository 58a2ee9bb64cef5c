"""The README and the tutorials: each file and command of a page, in the page's order, as printed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.pages import ROOT, steps

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "tutorials").glob("*.md"))]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs_as_printed(page: Path, tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {name: value for name, value in os.environ.items() if name != "METALOOM_STORE"} | {"PATH": path}
    commands = 0
    for step in steps(page):
        if step.file:
            (tmp_path / step.file).write_text(step.text)
            continue
        ended = subprocess.run(
            ["bash", "-c", step.text], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert ended.returncode == 0, f"{step.text}\n{ended.stdout}\n{ended.stderr}"
        commands += 1
    assert commands, "the page has no command"
