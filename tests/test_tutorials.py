"""The README and the tutorials: each file and command of a page, in the page's order, as printed."""

import os
import sys
from pathlib import Path

import pytest

from benchmarks.pages import ROOT, run

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "tutorials").glob("*.md"))]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs_as_printed(page: Path, tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {name: value for name, value in os.environ.items() if name != "METALOOM_STORE"} | {"PATH": path}
    assert list(run(page, tmp_path, environment)), "the page has no command"
