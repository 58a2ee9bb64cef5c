"""Which measured rows may no longer be true: those whose code has changed since the commit they were measured at."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.imports import ROOT, closure
from benchmarks.provenance import COMMIT, SHORT, git
from benchmarks.reproductions import CLAIMS


@dataclass(frozen=True)
class Stale:
    """A record whose code has changed.

    Attributes:
        name: The claim or workload.
        commit: Where it was measured; None if the code was not committed then.
        changed: The files that it imports and that differ now; empty where the commit is not known to git.
    """

    name: str
    commit: str | None
    changed: tuple[Path, ...]

    def __str__(self) -> str:
        if self.commit is None:
            return f"{self.name}: measured on code that was not committed"
        if not self.changed:
            return f"{self.name}: measured at {self.commit[:SHORT]}, which this clone does not have"
        shown = ", ".join(map(str, self.changed[:3])) + (", ..." if len(self.changed) > 3 else "")
        count = f"{len(self.changed)} file{'s' * (len(self.changed) > 1)}"
        return f"{self.name}: {count} changed since {self.commit[:SHORT]} ({shown})"


def changed_since(commit: str, root: Path) -> frozenset[Path] | None:
    """Return the files of HEAD whose content was not that of any file at the commit; None for an unknown commit.

    A file that was only moved has not changed. One that was moved and edited has, even if only its imports differ.
    """
    done = git(root, "diff", "--name-status", "-M", "-z", commit, "HEAD")
    if done.returncode:
        return None
    fields = iter(done.stdout.split("\0")[:-1])
    changed = set()
    for status in fields:
        path = next(fields)
        if status[0] in "RC":
            path = next(fields)  # the new name follows the old one
        if status not in ("D", "R100", "C100"):
            changed.add(Path(path))
    return frozenset(changed)


def stale(records: Mapping[str, Mapping[str, Any]], files: Mapping[str, Iterable[Path]], root: Path) -> Iterator[Stale]:
    """Yield the records whose code has changed.

    Args:
        records: Name to record, as the page's JSON file holds them.
        files: Name to the files that measure it; what they import is found from the sources.
        root: The repository.
    """
    since: dict[str, frozenset[Path] | None] = {}
    for name, record in records.items():
        commit = record.get(COMMIT)
        if commit is None:
            yield Stale(name, None, ())
            continue
        changed = since[commit] if commit in since else since.setdefault(commit, changed_since(commit, root))
        if changed is None:
            yield Stale(name, commit, ())
        elif touched := changed & closure(files[name], root):
            yield Stale(name, commit, tuple(sorted(touched)))


def stale_rows(root: Path = ROOT) -> list[Stale]:
    """Return the stale records of docs/reproductions.json and docs/benchmarks.json."""
    claims = json.loads((root / "docs" / "reproductions.json").read_text(encoding="utf-8"))
    timings = json.loads((root / "docs" / "benchmarks.json").read_text(encoding="utf-8"))
    places = {claim: [_place(measure.__module__)] for claim, measure in CLAIMS.items()}
    implementations = sorted((root / "benchmarks" / "implementations").glob("*.py"))
    timed = [_place("benchmarks.measure"), *(one.relative_to(root) for one in implementations)]
    own = {name: [Path("benchmarks", f"{name}.py")] for name in ("search_overhead", "small_costs", "shared_stages")}
    files = {name: own.get(name, timed) for name in timings}
    return [*stale(claims, places, root), *stale(timings, files, root)]


def _place(module: str) -> Path:
    return Path(*module.split(".")).with_suffix(".py")
