"""The problems of an experiment, each with its place and what to write instead."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from metaloom.learners.errors import BadInput

Path = tuple[str | int, ...]


def dotted(path: Path) -> str:
    """Write a path as ``learner.search[0].update.rate``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


@dataclass(frozen=True)
class InputProblem:
    """One thing that is wrong.

    Attributes:
        path: The field, as a path into the experiment.
        message: What was given, what is allowed, and the nearest right spelling.
        origin: Where it was given: ``search.yaml:12``, or ``--set PATH=VALUE``; empty for Python objects.
    """

    path: Path
    message: str
    origin: str = ""

    @property
    def line(self) -> int:
        """The line of the file, for sorting; problems without a file come last."""
        last = self.origin.rpartition(":")[2]
        return int(last) if last.isdecimal() else sys.maxsize

    def __str__(self) -> str:
        return ": ".join(part for part in (self.origin, dotted(self.path), self.message) if part)


class ExperimentError(BadInput):
    """An experiment that cannot run, with all its problems at once."""

    def __init__(self, problems: Sequence[InputProblem], source: str = "the experiment") -> None:
        self.problems = sorted(problems, key=lambda problem: problem.line)
        self.source = source
        if len(self.problems) == 1:
            super().__init__(str(self.problems[0]))
        else:
            lines = "".join(f"\n  {problem}" for problem in self.problems)
            super().__init__(f"{source} has {len(self.problems)} problems:{lines}")


class Problems:
    """Collects problems, so that all are reported at once.

    Args:
        origins: Where each path was given; a path that is not there has its nearest parent's.
    """

    def __init__(self, origins: dict[Path, str] | None = None) -> None:
        self.found: list[InputProblem] = []
        self.origins = origins or {}

    def add(self, path: Path, message: str) -> None:
        """Note a problem, once."""
        problem = InputProblem(path, message, self.origin(path))
        if problem not in self.found:
            self.found.append(problem)

    def origin(self, path: Path) -> str:
        """Return where the path, or its nearest parent, was given."""
        parents = (path[:length] for length in range(len(path), -1, -1))
        return next((self.origins[parent] for parent in parents if parent in self.origins), "")

    def __len__(self) -> int:
        return len(self.found)
