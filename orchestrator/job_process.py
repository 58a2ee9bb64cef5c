"""The process of a job: runs its commands one after another, apart from the process that has begun it.

``python -m metaloom.orchestrator.job_process FOLDER LOCK``: LOCK is the file descriptor of the job's lock, which this
process holds until its end. See jobs.py.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

JOB_FILE, OUTPUT_FILE, END_FILE = "job.json", "output.txt", "end.json"


def main(arguments: Sequence[str]) -> None:
    """Leave the parent's session and its children, and run the commands."""
    if os.fork():
        os._exit(0)  # the parent of what runs is init: the pages may end, and end their children
    os.setsid()
    run(Path(arguments[0]))


def run(folder: Path) -> None:
    """Run the commands of a job until one fails; write down what they print and how they end."""
    job: dict[str, Any] = json.loads((folder / JOB_FILE).read_text())
    codes: list[int] = []
    with (folder / OUTPUT_FILE).open("ab", buffering=0) as output:
        for command in job["commands"]:
            output.write(f"$ {command['shown']}\n".encode())
            done = subprocess.run(
                [sys.executable, "-m", "metaloom", *command["arguments"]],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
            codes.append(done.returncode)
            if done.returncode:
                break
    aside = folder / f"{END_FILE}.aside"
    aside.write_text(json.dumps({"codes": codes, "time": time.time()}))
    aside.replace(folder / END_FILE)


if __name__ == "__main__":
    main(sys.argv[1:])
