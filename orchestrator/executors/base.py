"""What an executor is: it runs the trials that the Director hands out, wherever its workers are."""

from typing import Protocol

from metaloom.orchestrator.director import Director
from metaloom.orchestrator.executors.hosting import OpenTrial


class Executor(Protocol):
    """Runs trials: one after another in this process (inline.py), or on Ray (ray_tune.py)."""

    name: str

    def run(self, director: Director, open_trial: OpenTrial, *, concurrency: int = 1) -> None:
        """Run trials until the Director has none left."""
        ...
