"""What a trial's code prints, such as a user's own network or task source, is kept beside its records."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any, TextIO

from metaloom.learners.redaction import redacted
from metaloom.workers.records.names import OUTPUT_FILE

MOST_BYTES = 1 << 20  # of a trial's file: more would be a progress bar, and no reader reaches it


class TrialOutput:
    """Appends to the file in a trial's directory; there is no file where nothing is printed.

    What is written past Python's own streams, as by a library in C, is not kept.

    Args:
        directory: The trial's, which may not exist yet: until it does, nothing is kept.
        worker: Host and process, for the line before what an attempt prints first.
    """

    def __init__(self, directory: Path, worker: str) -> None:
        self._path, self._worker, self._begun = directory / OUTPUT_FILE, worker, False

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep what is printed within this context, which still reaches the process's own streams."""
        with redirect_stdout(_Copied(sys.stdout, self)), redirect_stderr(_Copied(sys.stderr, self)):
            yield

    def add(self, text: str) -> None:
        """Append a text without its secrets. A disk that refuses it does not end the trial."""
        with suppress(OSError):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                size = os.fstat(descriptor).st_size
                if size < MOST_BYTES:
                    os.write(descriptor, f"{self._head()}{redacted(text)}".encode(errors="replace"))
                    if size + len(text) >= MOST_BYTES:
                        os.write(descriptor, b"\n--- more was printed, which is not kept\n")
            finally:
                os.close(descriptor)

    def _head(self) -> str:
        begun, self._begun = self._begun, True
        return "" if begun else f"--- on {self._worker}, {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime())}\n"


class _Copied:
    """A text stream that also goes to a trial's file."""

    def __init__(self, stream: TextIO, output: TrialOutput) -> None:
        self._stream, self._output = stream, output

    def write(self, text: str) -> int:
        """Write to both."""
        self._output.add(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
