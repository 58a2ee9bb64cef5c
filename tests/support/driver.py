"""A real driver process over toy trials: begins the search in a folder, or goes on with it.

Usage: driver.py FOLDER EXECUTOR JSON, where JSON has ``outer`` and ``settings``, and may have ``address``,
``concurrency`` and ``resources``. Its exit code is the search's.
"""

import json
import logging
import signal
import sys
from pathlib import Path
from typing import Any

from metaloom.learners.errors import BadEnvironment
from metaloom.orchestrator.director import Director
from metaloom.orchestrator.executors.inline import InlineExecutor
from metaloom.orchestrator.interruption import Interruption, Stopped
from metaloom.orchestrator.journal import Journal, writer_lock
from metaloom.testing import toy


def run(director: Director, executor: str, interruption: Interruption, options: dict[str, Any]) -> None:
    """Run the trials by one of the executors."""
    address, concurrency = options.get("address"), options.get("concurrency", 1)
    if executor == "inline":
        InlineExecutor(interruption).run(director, toy.open_toy)
        return
    from metaloom.orchestrator.executors.ray_cluster import environment as ray_environment

    ray_environment.prepare()
    from metaloom.orchestrator.executors.ray_cluster.connection import connected
    from metaloom.orchestrator.executors.ray_cluster.tune import RayExecutor

    with connected(interruption, address=address, cpus=None if address else 2) as connection:
        print("up", flush=True)
        ray = RayExecutor(interruption, connection, resources=options.get("resources"))
        ray.run(director, toy.open_toy, concurrency=concurrency)


def main() -> int:
    """Run the search; say on stdout when Ray is up."""
    logging.basicConfig(level=logging.WARNING)
    folder, executor, options = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    with writer_lock(folder):
        journal = Journal(folder)
        if not journal.events(limit=1):
            toy.create(folder, **options["settings"]).close()
        director = Director(journal, toy.ToySpace(options["outer"]))
        interruption = Interruption()
        with interruption.installed():
            director.start()
            try:
                run(director, executor, interruption, options)
                director.end()
            except Stopped:
                number = signal.Signals(interruption.signal_number or signal.SIGINT)
                director.interrupt(f"{number.name} was received")
                return 128 + number
            except BadEnvironment as error:
                director.interrupt(str(error))
                print(error, file=sys.stderr)
                return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
