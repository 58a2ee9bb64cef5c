"""Imports that wait until a command runs, so that its help needs nothing heavy.

::

    with deferred():
        from metaloom.orchestrator import api  # a module of metaloom; a name in a module is loaded at once

All that waits is loaded by ``load_deferred``, in the main thread, before the command does anything. Type checkers and
import-linter see ordinary imports.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType

PACKAGE = "metaloom."


class _Finder(MetaPathFinder):
    """Finds modules of metaloom as Python does, and has them loaded at the first use of an attribute."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the specification of a module that waits; None leaves a package, or another's module, to Python."""
        spec = PathFinder.find_spec(fullname, path) if fullname.startswith(PACKAGE) else None
        if spec is None or spec.loader is None or spec.submodule_search_locations is not None:
            return None
        spec.loader = LazyLoader(spec.loader)
        self.found.append(fullname)
        return spec


_FINDER = _Finder()


@contextmanager
def deferred() -> Iterator[None]:
    """Let the modules that are imported within wait."""
    sys.meta_path.insert(0, _FINDER)
    try:
        yield
    finally:
        sys.meta_path.remove(_FINDER)


def load_deferred() -> None:
    """Load every module that waits."""
    while _FINDER.found:
        vars(sys.modules[_FINDER.found.pop()])
