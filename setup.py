"""Which folder each package is built from.

The five folders stand at the repository's root; ``src/metaloom/`` has links to them, so that a checkout
can be imported as it is. A zip archive and a clone without symbolic links have text files in place of the
links, and an sdist has none. Every build therefore reads the folders themselves.
"""

from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).resolve().parent
FOLDERS = ("learners", "search_spaces", "workers", "dashboards", "orchestrator")


def packages() -> list[str]:
    """Return ``metaloom`` and every package in the five folders."""
    missing = [folder for folder in FOLDERS if not (ROOT / folder / "__init__.py").is_file()]
    if missing:
        raise SystemExit(f"{ROOT}: no package in {', '.join(missing)}; a wheel without them would be empty")
    inner = [f"{folder}.{name}" for folder in FOLDERS for name in find_packages(str(ROOT / folder))]
    return ["metaloom", "metaloom.testing", *(f"metaloom.{name}" for name in sorted([*FOLDERS, *inner]))]


class EditableWheel(editable_wheel):
    """Puts ``src`` on the path where its links are whole, and a finder for each folder elsewhere.

    Type checkers follow a folder on the path; they do not follow setuptools' finder.
    """

    def finalize_options(self) -> None:
        """Choose the folders."""
        super().finalize_options()
        if all((ROOT / "src" / "metaloom" / folder).is_dir() for folder in FOLDERS):
            self.distribution.package_dir = {"": "src"}


setup(
    packages=packages(),
    # "" is where the metadata of a build goes: beside the folders it would be found by any program that runs here
    package_dir={"": "src", **{f"metaloom.{folder}": folder for folder in FOLDERS}},
    cmdclass={"editable_wheel": EditableWheel},
)
