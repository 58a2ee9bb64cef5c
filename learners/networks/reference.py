"""Import paths of a user's own code, such as ``package.module:Class``: written, checked, imported once trusted.

Importing a path runs the code of its package, so that an experiment's file could run any code. It is therefore done
only where the user allows it, or where an installed package names itself under our entry points.
"""

import difflib
import functools
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points, packages_distributions, version
from typing import Any

from torch import nn

from metaloom.learners.errors import LearnerError, unknown
from metaloom.learners.plugins import LEARNERS

OF = "learner.architecture.of"
MODULE = "module"  # the kind of architecture that names a user's own code


def split_reference(reference: str) -> tuple[str, str]:
    """Split ``package.module:Class`` in two; raises LearnerError if it is not of this form."""
    module, colon, name = reference.partition(":")
    parts = [*module.split("."), *name.split(".")]
    if not colon or not all(part.isidentifier() for part in parts):
        raise LearnerError(f"{OF}: got '{reference}'; give an import path such as package.module:Class")
    return module, name


def check_trusted(references: Sequence[str], trust_code: bool) -> None:
    """Refuse import paths outside of packages under our entry points, unless the user trusts all code.

    Raises LearnerError, which names the path and the two ways to trust it.
    """
    for reference in dict.fromkeys([] if trust_code else references):
        packages = {one.module.partition(".")[0] for one in entry_points(group=LEARNERS)}
        if split_reference(reference)[0].partition(".")[0] not in packages:
            raise LearnerError(
                f"{OF}: {reference} is code that would run on this machine; if you trust it, pass --trust-code "
                f"(trust_code=True in Python), or have its package declare an entry point in the group {LEARNERS}"
            )


def packages_of(references: Iterable[str]) -> dict[str, str]:
    """Return, for each import path, the installed package that brings it (``name==version``), or an empty text."""
    owners = packages_distributions()
    found = {}
    for reference in references:
        names = owners.get(split_reference(reference)[0].partition(".")[0], [])
        found[reference] = f"{names[0]}=={version(names[0])}" if names else ""
    return found


def references_in(document: Any) -> Iterator[str]:
    """Yield every import path of an architecture that a document may choose, searched ones among them."""
    if isinstance(document, Mapping):
        yield from _texts(document.get("of"))
    for value in _members(document):
        yield from references_in(value)


def _members(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for member in _members(value):
        yield from _texts(member)


def imported(reference: str) -> Any:
    """Import what a path names; raises LearnerError with the nearest name if there is no such module or name."""
    module, name = split_reference(reference)
    try:
        found: Any = import_module(module)
    except Exception as error:  # a user's own code may raise anything
        absent = isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}.")
        advice = "; put the folder that holds it on the import path (PYTHONPATH), or install its package" * bool(absent)
        raise LearnerError(f"{OF}: cannot import {module}: {type(error).__name__}: {error}{advice}") from error
    for part in name.split("."):
        names = [one for one in dir(found) if not one.startswith("_")]
        if not hasattr(found, part):
            raise LearnerError(f"{OF}: {unknown(f'object of {module}', part, difflib.get_close_matches(part, names))}")
        found = getattr(found, part)
    return found


def settings_of(network: Any) -> dict[str, Any]:
    """Write a network that was given from Python as settings of ``learner.architecture``.

    It is an import path; a class of ``nn.Module`` or a function that makes one, or either in a ``functools.partial``
    with keyword arguments; or a module at the top level of a Python file. Raises LearnerError if no other process could
    import it.
    """
    if isinstance(network, str):
        split_reference(network)
        return {"kind": MODULE, "of": network}
    if isinstance(network, functools.partial):
        if network.args:
            raise LearnerError(f"network: a partial takes keyword arguments alone, got {network.args}")
        return {**settings_of(network.func), "settings": dict(network.keywords)}
    if isinstance(network, nn.Module):
        return {"kind": MODULE, "of": _place_of(network)}
    if not (inspect.isclass(network) or inspect.isfunction(network)):
        raise LearnerError(f"network: got {type(network).__name__}; give a class or function that makes an nn.Module")
    if network.__module__ == "__main__" or "<" in network.__qualname__:
        raise LearnerError(
            f"network: {network.__qualname__} is defined in {network.__module__}, where no other process can import "
            "it; move it to the top level of a Python file beside your script and import it from there"
        )
    return {"kind": MODULE, "of": f"{network.__module__}:{network.__qualname__}"}


def _place_of(network: nn.Module) -> str:
    """Return the import path of a module object that has a name at the top level of a Python file."""
    for module, contents in list(sys.modules.items()):
        if module != "__main__":
            for name, value in list(getattr(contents, "__dict__", {}).items()):
                if value is network:
                    return f"{module}:{name}"
    raise LearnerError(
        f"network: this {type(network).__name__} is an object that no other process can import; give its class, a "
        "function that makes it, functools.partial(Class, setting=...), or define it at the top level of a Python file"
    )
