"""The settings of Sphinx: Markdown pages by MyST, the API reference from the docstrings, furo's theme."""

import re
import sys
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

project = "Metaloom"
author = "Metaloom developers"
release = version = installed("metaloom")

extensions = ["myst_parser", "sphinx.ext.apidoc", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"Metaloom {release}"
# an annotation names a class by its bare name, and two modules may have one of that name
suppress_warnings = ["ref.python"]

# every module is found when the pages are built: no list is kept by hand
apidoc_modules = [
    {
        "path": str(ROOT / "src" / "metaloom"),
        "destination": "_api",
        "follow_links": True,
        "separate_modules": True,
        "module_first": True,
    }
]
autodoc_default_options = {"members": True, "show-inheritance": True, "ignore-module-all": True}
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # torch's own texts have links that lead nowhere here
autodoc_typehints = "description"
autodoc_class_signature = "separated"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Class attributes", "params_style")]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3


def plain_docstring(app: "Sphinx", what: str, name: str, place: object, options: object, lines: list[str]) -> None:
    """Let docstrings keep their plain notation: shapes ``[n, *features]``, norms ``|x|``, equations set apart."""
    for index, line in enumerate(lines):
        after = lines[index + 1 : index + 3]
        apart = len(after) == 2 and not after[0].strip() and after[1].startswith(" " * (_indent(line) + 4))
        if apart and line.rstrip().endswith(":") and not line.rstrip().endswith("::"):
            lines[index] = f"{line.rstrip()}:"  # what is indented after it is an equation or code, kept as it stands
    literal: int | None = None
    for index, line in enumerate(lines):
        if literal is not None and (not line.strip() or _indent(line) > literal):
            continue
        literal = _indent(line) if line.rstrip().endswith("::") else None
        parts = re.split(r"(``.*?``)", line)
        lines[index] = "".join(part if part.startswith("``") else _escaped(part) for part in parts)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _escaped(text: str) -> str:
    return re.sub(r"\*(?=\w)|\|", lambda mark: f"\\{mark.group()}", text)


def setup(app: "Sphinx") -> None:
    """Read docstrings before the extension that understands their sections."""
    app.connect("autodoc-process-docstring", plain_docstring, priority=400)
