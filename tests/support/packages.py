"""Small packages, laid out as pip installs them, and the command line in a process that has them."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support import processes


def install(folder: Path, name: str, modules: Mapping[str, str], entry_points: Mapping[str, Mapping[str, str]]) -> None:
    """Install a package of version 1.2 in ``folder``.

    Args:
        name: Of the package; its import name has underscores.
        modules: Module name to source.
        entry_points: Group to names and what each names.
    """
    package, facts = folder / name.replace("-", "_"), folder / f"{name.replace('-', '_')}-1.2.dist-info"
    package.mkdir()
    facts.mkdir()
    (package / "__init__.py").write_text("")
    for module, source in modules.items():
        (package / f"{module}.py").write_text(source)
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    groups = (
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in named.items())
        for group, named in entry_points.items()
    )
    (facts / "entry_points.txt").write_text("\n".join(groups))


def python(packages: Path, *arguments: str, given: str = "", fresh: bool = False) -> "subprocess.CompletedProcess[str]":
    """Run Python in ``packages``, with what is installed there.

    Args:
        given: Its standard input.
        fresh: Begin without a library imported.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(packages), *sys.path])}
    if not fresh:
        return processes.run(*arguments, folder=packages, environment=environment, given=given, timeout=None)
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=packages, input=given, check=False
    )


def metaloom(packages: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the command line in ``packages``, with what is installed there."""
    return python(packages, "-m", "metaloom", *arguments)
