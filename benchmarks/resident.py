"""An implementation alone in a process that stays, and times its steps when it is asked to.

So each runs under the allocator that its users have: a trial of ours keeps freed pages (``workers.device.keep_pages``),
a peer hands them back to the kernel unless its user does the same.
"""

import json
import os
import subprocess
import sys
from types import TracebackType
from typing import Self

import torch

from benchmarks.clock import Clock
from benchmarks.preparation import Timed, prepared
from benchmarks.workloads import WORKLOADS
from metaloom.workers.device import keep_pages


class Resident:
    """One implementation of a workload in its own process, warm; used as a context.

    Args:
        workload: What it computes.
        name: The implementation.
        device: Where.
        kept: Whether its process keeps freed pages.
    """

    def __init__(self, workload: Timed, name: str, device: torch.device, *, kept: bool) -> None:
        self.name = name
        command = [sys.executable, "-m", "benchmarks.resident", workload.name, name, device.type, str(int(kept))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def time(self, count: int) -> tuple[float, float]:
        """Return the (CPU, wall) seconds of one of ``count`` steps.

        Raises:
            SystemExit: The process has ended; what it said is on stderr.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            print(count, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            answer = ""
        else:
            answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"benchmarks: {self.name} ended with exit code {self._process.wait()}; see above")
        cpu, wall = json.loads(answer)
        return cpu, wall


def serve(workload: Timed, name: str, device: torch.device) -> None:
    """Answer each number of steps on stdin by their times on stdout, where nothing else is written."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    run, clock = prepared([name], workload, device)[name], Clock(device)
    run()
    for line in sys.stdin:
        print(json.dumps(clock.time(run, int(line))), file=answers, flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    _workload, _name, _device, _kept = sys.argv[1:]
    if _kept == "1":
        keep_pages()
    serve(WORKLOADS[_workload], _name, torch.device(_device))
