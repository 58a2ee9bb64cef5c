"""Reads the files and commands of a page of the documentation, so that they are run as they are printed."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"# (\S+\.(?:py|yaml))\n")


@dataclass(frozen=True)
class Step:
    """A file to write, or a command to run, in the order of the page.

    Attributes:
        file: The file's name; empty for a command.
        text: Its content, or the command.
    """

    file: str
    text: str


def steps(page: Path) -> list[Step]:
    """Return the files (blocks that begin with a comment of the file's name) and commands (``$`` in console blocks)."""
    found = list[Step]()
    for language, text in BLOCK.findall(page.read_text()):
        if named := NAMED.match(text):
            found.append(Step(named[1], text))
        elif language == "console":
            found += [Step("", line[2:]) for line in text.splitlines() if line.startswith("$ ")]
    return found


def run(page: Path, folder: Path, environment: Mapping[str, str]) -> Iterator[tuple[str, float]]:
    """Run a page's files and commands in a folder; yield each command and its seconds.

    A command that ends in ``&`` runs beside the others, and is ended with the page. Raises AssertionError with what a
    command printed if it fails.
    """
    beside = list[subprocess.Popen[bytes]]()
    try:
        for step in steps(page):
            if step.file:
                (folder / step.file).write_text(step.text)
                continue
            begun, command = time.monotonic(), ["bash", "-c", step.text.removesuffix("&")]
            if step.text.endswith("&"):
                quiet = subprocess.DEVNULL
                beside.append(
                    subprocess.Popen(
                        command, cwd=folder, env=environment, stdout=quiet, stderr=quiet, start_new_session=True
                    )
                )
                continue
            ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
            assert ended.returncode == 0, f"{step.text}\n{ended.stdout}\n{ended.stderr}"
            yield step.text, time.monotonic() - begun
    finally:
        for process in beside:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(timeout=60)
