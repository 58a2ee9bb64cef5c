"""What a file of this repository imports of it: read from the source, so that nothing is run."""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "metaloom"
FOLDERS = ("learners", "search_spaces", "workers", "dashboards", "orchestrator")  # each imports those before it


def file_of(module: str, root: Path) -> Path | None:
    """Return the file of a module, relative to the root; None where the repository has none.

    The folders stand at the root: ``metaloom.learners.base`` is ``learners/base.py``. ``metaloom`` is in ``src``.
    """
    parts = module.split(".")
    own = parts[0] == PACKAGE
    places = [Path(*parts[1:])] if own and len(parts) > 1 else []
    places += [Path("src", *parts)] if own else [Path(*parts)]
    for place in places:
        for candidate in (place.with_suffix(".py"), place / "__init__.py"):
            if (root / candidate).is_file():
                return candidate
    return None


def imported(path: Path, root: Path) -> frozenset[Path]:
    """Return the repository's files that a file imports, anywhere in it.

    A module named in a string (loaded on first use) counts, unless its folder is above the file's: that is a door for
    what stands there, which the file's own users do not open. A file that imports ``pkgutil`` finds the modules beside
    and below it, so that it counts as importing all of these.
    """
    tree = ast.parse((root / path).read_text(encoding="utf-8"))
    modules = {*_modules(tree), *(name for name in _named(tree) if not _is_above(name, path))}
    files = {file_of(module, root) for module in modules}
    if "pkgutil" in modules:
        files |= {one.relative_to(root) for one in (root / path).parent.rglob("*.py")}
    return frozenset(file for file in files if file is not None and file != path)


def _modules(tree: ast.Module) -> Iterator[str]:
    """Yield every module that is imported, or that may be: ``from a import b`` names a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            if node.module != PACKAGE:  # its public names stand for what is far above most files
                yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def _named(tree: ast.Module) -> Iterator[str]:
    """Yield every module of the package that a string names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(rf"^{PACKAGE}(?:\.\w+)+$", node.value)


def _is_above(module: str, path: Path) -> bool:
    folders = (module.split(".")[1], path.parts[0])
    return all(folder in FOLDERS for folder in folders) and FOLDERS.index(folders[0]) > FOLDERS.index(folders[1])


@cache
def _imported(path: Path, root: Path) -> frozenset[Path]:
    return imported(path, root)


def closure(paths: Iterable[Path], root: Path = ROOT) -> frozenset[Path]:
    """Return the files, and all of the repository that they import, directly or not; relative to the root."""
    seen: set[Path] = set()
    waiting = list(paths)
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            waiting += _imported(path, root)
    return frozenset(seen)


def circles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Return the groups of nodes that reach each other: the strongly connected components of more than one node."""
    import networkx

    directed = networkx.DiGraph([(node, other) for node, others in graph.items() for other in others])
    return sorted(sorted(group) for group in networkx.strongly_connected_components(directed) if len(group) > 1)
