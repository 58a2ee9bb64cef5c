"""Plays recorded episodes again for the pages: one process at a time, each with a limited time."""

import json
import os
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from metaloom.dashboards.pages.services import ReplayState

MOST_S = 120.0  # of one request, from the start of its process
KEPT = 24  # results
TAIL = 400  # characters of what a process that failed has printed
RUNNING, DONE, FAILED = "running", "done", "failed"


class LocalReplays:
    """Runs requests one after another; ``close`` ends the process that runs."""

    def __init__(self, most_s: float = MOST_S) -> None:
        self._most_s = most_s
        self._states: OrderedDict[str, ReplayState] = OrderedDict()
        self._lock, self._turn = threading.Lock(), threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._closed = False

    def state(self, request: Mapping[str, Any]) -> ReplayState:
        """Return how far a request is; begin it if it is new."""
        key = json.dumps(request, sort_keys=True)
        with self._lock:
            found = self._states.pop(key, None)
            if found is None:
                found = ReplayState(RUNNING)
                threading.Thread(target=self._run, args=(key,), name="replay", daemon=True).start()
            self._states[key] = found
            done = [one for one, state in self._states.items() if state.state != RUNNING]
            for old in done[: max(0, len(self._states) - KEPT)]:
                del self._states[old]
        return found

    def close(self) -> None:
        """End what runs; nothing is begun any more."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()

    def _run(self, key: str) -> None:
        with self._turn:
            last = self._played(key)
        with self._lock:
            self._states[key] = last

    def _played(self, key: str) -> ReplayState:
        """Run the process of a request to its end, and return the last state."""
        command = [sys.executable, "-m", "metaloom.workers.replaying"]
        env, streams = {**os.environ, "OMP_NUM_THREADS": "1"}, {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with self._lock:
            if self._closed:
                return ReplayState(FAILED, problem="the pages were closed")
            process = subprocess.Popen(command, env=env, text=True, stderr=subprocess.PIPE, **streams)  # type: ignore[call-overload]
            self._process = process
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(self._most_s, end)
        timer.start()
        said: list[str] = []
        errors = threading.Thread(target=lambda: said.append(process.stderr.read()), daemon=True)
        errors.start()
        last = ReplayState(RUNNING)
        try:
            process.stdin.write(f"{key}\n")
            process.stdin.flush()
            for line in process.stdout:
                last = self._after(key, json.loads(line))
        except BrokenPipeError:
            last = ReplayState(RUNNING)  # it has ended before it read its request; below is why
        finally:
            timer.cancel()
            process.kill()
            process.wait()
            errors.join()
            process.stdin.close()
        if late.is_set():
            limit = f"it took longer than {self._most_s:g} s, the most that a page waits for"
            return ReplayState(FAILED, problem=limit)
        tail = "".join(said).strip()[-TAIL:]
        return last if last.state != RUNNING else ReplayState(FAILED, problem=f"its process ended: {tail}")

    def _after(self, key: str, answer: Mapping[str, Any]) -> ReplayState:
        """Return the state after a line of the process, and keep how far it is."""
        if "problem" in answer:
            return ReplayState(FAILED, problem=str(answer["problem"]))
        if "result" in answer:
            return ReplayState(DONE, result=answer["result"])
        with self._lock:
            self._states[key] = replace(self._states[key], done=int(answer["done"]), of=int(answer["of"]))
            return self._states[key]
