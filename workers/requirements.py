"""Which packages a bundle needs: what loading it, adapting it and evaluating it import, and no more.

A search needs Ray, Optuna, MLflow and others; a bundle does not. ``pip install --no-deps metaloom`` and
``pip install -r BUNDLE/requirements.txt`` make a small environment that serves it.
"""

from importlib.metadata import packages_distributions, version

from metaloom.workers.data.base import SOURCES

REQUIREMENTS_FILE = "requirements.txt"
PACKAGES = ("filelock", "numpy", "pyarrow", "PyYAML", "safetensors", "torch")


def requirements(source: str) -> str:
    """Return the text of a requirements file, sorted by name.

    A package may be newer than the one here, up to its next major version.

    Args:
        source: The task source that the bundle was trained on; it names what reading its data takes.
    """
    names = sorted({*PACKAGES, *_packages_of(source)}, key=str.lower)
    return "".join(f"{name}{_range(version(name))}\n" for name in names)


def _range(installed: str) -> str:
    public = installed.partition("+")[0]  # without the mark of a build, as in 2.13.0+cpu
    return f">={public},<{int(public.partition('.')[0]) + 1}"


def _packages_of(source: str) -> list[str]:
    """Return what a source's data need, with the package that it comes from if that is a plugin's."""
    if source not in SOURCES:
        return []
    found = SOURCES[source]
    top = found.__module__.partition(".")[0]
    plugin = [] if top == "metaloom" else packages_distributions().get(top, [])
    return [*found.packages, *plugin]
