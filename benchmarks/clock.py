"""CPU and wall time of a step."""

import time

import torch

from benchmarks.implementations import Run


class Clock:
    """Reads CPU and wall time after the device's work is done."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def read(self) -> tuple[float, float]:
        """Return (CPU, wall) seconds; on a GPU both are wall time, for the CPU only waits."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            return (time.perf_counter(),) * 2
        return time.process_time(), time.perf_counter()

    def time(self, run: Run, count: int) -> tuple[float, float]:
        """Return the (CPU, wall) seconds of one of ``count`` steps."""
        before = self.read()
        for _ in range(count):
            run()
        after = self.read()
        return (after[0] - before[0]) / count, (after[1] - before[1]) / count
