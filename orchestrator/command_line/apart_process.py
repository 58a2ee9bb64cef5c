"""The process that answers what imports much for the pages: started when it is needed, ended when it is idle."""

import base64
import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from metaloom.dashboards.pages.services import ApartAnswer
from metaloom.learners.errors import BadEnvironment

MODULE = "metaloom.orchestrator.command_line.apart_main"
READ_ONLY, TORCH = "read-only", "torch"
IDLE_S = 60.0  # then it ends
MOST_S = 120.0  # of one request, with the start of the process
LARGEST = 64 * 2**20  # characters of an answer


class LocalApartProcess:
    """Asks one process, one request after another; implements ``dashboards.pages.services.ApartProcess``.

    Args:
        store: Folder of all records.
        read_only: Whether the pages change nothing.
    """

    def __init__(self, store: Path, *, read_only: bool, idle_s: float = IDLE_S, most_s: float = MOST_S) -> None:
        self._command = [sys.executable, "-m", MODULE, str(store.absolute()), *([READ_ONLY] if read_only else [])]
        self._idle_s, self._most_s = idle_s, most_s
        self._turn, self._lock = threading.Lock(), threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._idle: threading.Timer | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The process; None if there is none."""
        with self._lock:
            return None if self._process is None else self._process.pid

    def answer(self, path: str, query: str, *, is_fragment: bool) -> ApartAnswer:
        """Return the answer to a GET request; raises BadEnvironment if the process gives none."""
        request = json.dumps({"path": path, "query": query, "is_fragment": is_fragment})
        with self._turn:
            answer = json.loads(self._asked(request))
            self._rest()
        return ApartAnswer(int(answer["status"]), answer["headers"], base64.b64decode(answer["body"]))

    def begin(self) -> None:
        """Start the process and let it import torch, unless it runs."""
        if self._turn.acquire(blocking=False):
            try:
                self._running(TORCH)
                self._rest()
            finally:
                self._turn.release()

    def close(self) -> None:
        """End the process; none is started any more."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()  # so that the one that waits for an answer gives up the turn
        with self._turn:
            self._end()

    def _asked(self, request: str) -> str:
        """Send a request to the process and return its line."""
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        late = threading.Timer(self._most_s, process.kill)
        late.start()
        try:
            process.stdin.write(f"{request}\n")
            process.stdin.flush()
            line = process.stdout.readline(LARGEST)
        except BrokenPipeError:
            line = ""
        finally:
            late.cancel()
        if not line.endswith("\n"):
            self._end()
            limits = f"it has at most {self._most_s:g} s and {LARGEST // 2**20} MB for an answer"
            raise BadEnvironment(f"the process that works this out gave no answer: {limits}; try it again")
        return line

    def _running(self, *options: str) -> "subprocess.Popen[str]":
        with self._lock:
            if self._idle is not None:
                self._idle.cancel()
            if self._closed:
                raise BadEnvironment("the pages were closed")
            if self._process is not None and self._process.poll() is None:
                return self._process
            self._process = subprocess.Popen(
                [*self._command, *options],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            return self._process

    def _rest(self) -> None:
        """Let the process end if nothing is asked of it for a while."""
        with self._lock:
            self._idle = threading.Timer(self._idle_s, self._end_idle)
            self._idle.daemon = True
            self._idle.start()

    def _end_idle(self) -> None:
        if self._turn.acquire(blocking=False):  # else it is asked just now
            try:
                self._end()
            finally:
                self._turn.release()

    def _end(self) -> None:
        """End the process; its caller has the turn."""
        with self._lock:
            process, self._process = self._process, None
            if self._idle is not None:
                self._idle.cancel()
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with suppress(BrokenPipeError):
                        stream.close()
