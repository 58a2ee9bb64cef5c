"""Imports that are deferred until a command runs, so that its help is fast.

::

    with deferred():
        from metaloom.orchestrator import api  # a module of metaloom, never a name in one

Each name is bound to a stand-in, which imports the module at the first access to an attribute. The stand-in is not in
``sys.modules``, because libraries inspect everything there and would load the module. Type checkers and import-linter
see ordinary imports.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

PACKAGE = "metaloom."


class _StandIn(ModuleType):
    """Has the attributes of the module of its name."""

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):  # Python's import tries some that a module need not have
            raise AttributeError(attribute)
        return getattr(import_module(self.__name__), attribute)


class _StandIns(MetaPathFinder, Loader):
    """Replaces each module of metaloom, but no package, by a stand-in."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the specification of a stand-in; None leaves a package, or a foreign module, to Python."""
        original = PathFinder.find_spec(fullname, path) if fullname.startswith(PACKAGE) else None
        is_module = original is not None and original.submodule_search_locations is None
        return ModuleSpec(fullname, self) if is_module else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Make the stand-in."""
        self.names.append(spec.name)
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Run nothing: this is deferred."""


@contextmanager
def deferred() -> Iterator[None]:
    """Bind the modules that are imported within to stand-ins, unless they are loaded already."""
    stand_ins = _StandIns()
    sys.meta_path.insert(0, stand_ins)
    try:
        yield
    finally:
        sys.meta_path.remove(stand_ins)
        for name in stand_ins.names:  # so that the next import finds the module itself
            package, _, module = name.rpartition(".")
            del sys.modules[name]
            delattr(sys.modules[package], module)
