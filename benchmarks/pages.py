"""Reads the files and commands of a page of the documentation, so that they are run as they are printed."""

import re
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
