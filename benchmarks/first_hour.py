"""Times a new user's first hour: an own picture folder to a served model, from an empty environment.

    python -m benchmarks.first_hour

It makes a virtual environment in a temporary folder, installs the project into it, and runs the files and commands of
``docs/tutorials/own_pictures.md`` in order. A command that ends in ``&`` is ended when the page is done.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.pages import ROOT, run

PAGE = ROOT / "docs" / "tutorials" / "own_pictures.md"
CONSTRAINTS = ROOT / "constraints.txt"


def install(folder: Path) -> dict[str, str]:
    """Make an environment and install the project; return the variables under which its commands are found."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    for what in (["torch"], [str(ROOT)]):
        subprocess.run([*pip, *what, "-c", str(CONSTRAINTS)], check=True, stderr=subprocess.DEVNULL)
    hidden = ("METALOOM_STORE", "PYTHONPATH", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    return {**kept, "PATH": os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])}


def main() -> None:
    """Install, run the page, and print the seconds of each command."""
    argparse.ArgumentParser(prog="python -m benchmarks.first_hour", description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        begun = time.monotonic()
        environment = install(Path(temporary) / "environment")
        taken = [("pip install", time.monotonic() - begun)]
        work = Path(temporary) / "work"
        work.mkdir()
        taken += run(PAGE, work, environment)
    for command, seconds in (*taken, ("in all", sum(seconds for _, seconds in taken))):
        print(f"{seconds:7.1f} s  {command}")


if __name__ == "__main__":
    main()
