"""Correctness first, then time, then memory.

* Right: the whole gradient's relative error against the plain loop in float64.
* Time: implementations take turns in one process on one thread; process CPU time beside wall time, and
  the ratio of each to ours within the same turn, so that a busy machine moves both.
* Memory: each implementation alone in a child process, its peak above what it held before the step.
"""

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

import torch

from benchmarks.bilevel import Bilevel
from benchmarks.implementations import Run, Step, bilevel_plain, plain
from benchmarks.registry import APPROXIMATE, OURS, implementation, places
from benchmarks.row import Row
from benchmarks.workloads import WORKLOADS, Parameters, Workload
from metaloom.learners.episode import Episode

ROUND_S = 0.2  # a quick step is repeated up to this long within a turn, to be above the clock's grain

Timed = Workload | Bilevel


def materials(workload: Timed, device: torch.device, dtype: torch.dtype) -> tuple[Parameters, list[Episode]]:
    """Return the starting parameters and the tasks."""
    parameters = {name: value.to(device, dtype) for name, value in workload.start().items()}
    episodes = [episode.to(device, dtype) for episode in workload.episodes(torch.Generator().manual_seed(1))]
    return parameters, episodes


def relative_errors(step: Step, truth: Step) -> tuple[float, float]:
    """Return the relative errors of the whole gradient and of the loss."""
    wrong = sum(float((step.gradient[n].double() - g).square().sum()) for n, g in truth.gradient.items())
    size = sum(float(g.square().sum()) for g in truth.gradient.values())
    return (wrong / size) ** 0.5, abs(step.loss - truth.loss) / abs(truth.loss)


def has_own_statistics(name: str, workload: Timed) -> bool:
    """Whether an implementation embeds support and query apart, which is another mathematics."""
    return workload.method == "prototypical" and name.startswith("parallel-metalearn")


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


def prepared(
    chosen: Sequence[str], workload: Timed, device: torch.device, dtype: torch.dtype = torch.float32
) -> dict[str, Run]:
    """Build every chosen implementation that offers the workload."""
    parameters, episodes = materials(workload, device, dtype)
    runs = {name: implementation(name, workload)(workload, parameters, episodes) for name in chosen}
    return {name: run for name, run in runs.items() if run is not None}


def check(runs: Mapping[str, Run], workload: Timed, device: torch.device) -> dict[str, tuple[float, float]]:
    """Return every implementation's errors against the float64 reference of its mathematics."""
    parameters, episodes = materials(workload, device, torch.float64)
    if isinstance(workload, Bilevel):
        exact = bilevel_plain.prepare(workload, parameters, episodes)()
        return {name: relative_errors(run(), exact) for name, run in runs.items()}
    kinds = {has_own_statistics(name, workload) for name in runs}
    truth = {kind: plain.prepare(workload, parameters, episodes, separate=kind)() for kind in kinds}
    return {name: relative_errors(run(), truth[has_own_statistics(name, workload)]) for name, run in runs.items()}


def turns(runs: Mapping[str, Run], clock: Clock, repeats: int) -> dict[str, list[tuple[float, float]]]:
    """Time the implementations in turns, each turn beginning with another one."""
    counts: dict[str, int] = {}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    names = list(runs)
    for turn in range(repeats):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            if name not in counts:
                once = clock.time(runs[name], 1)
                counts[name] = max(1, int(ROUND_S / once[1]))
                if counts[name] == 1:  # one step was the turn
                    times[name].append(once)
                    continue
            times[name].append(clock.time(runs[name], counts[name]))
    return times


def peak_mb(workload: Timed, name: str, device: torch.device) -> float:
    """Run one step alone in a child process and return its peak memory above the resting process."""
    command = [sys.executable, "-m", "benchmarks.measure", workload.name, name, device.type]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def peak_of_this_process(workload: Timed, name: str, device: torch.device) -> float:
    """Return the peak memory in MB that two steps add to this process."""
    run = prepared([name], workload, device)[name]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        held = torch.cuda.memory_allocated(device)
        run()
        return (torch.cuda.max_memory_allocated(device) - held) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far was that of the imports: start anew
    before = status_mb("VmRSS")
    run()
    run()
    return status_mb("VmHWM") - before


def status_mb(field: str) -> float:
    """Return a field of this process's memory status, in MB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(field + ":")) / 1024


def measure(workload: Timed, device: torch.device, repeats: int, left_out: str = "") -> list[Row]:
    """Measure every implementation on a workload, ours first, but those whose name contains ``left_out``."""
    runs = prepared([name for name in places(workload) if not left_out or left_out not in name], workload, device)
    checked = runs
    if isinstance(workload, Bilevel) and workload.checked_in != torch.float32:
        checked = prepared(list(runs), workload, device, workload.checked_in)
    errors = check(checked, workload, device)
    times = turns(runs, Clock(device), repeats)
    rows = []
    for name, seen in times.items():
        ratios = [one[0] / ours[0] for one, ours in zip(seen, times[OURS], strict=True)]
        cpu, wall = (1e3 * median(one[index] for one in seen) for index in (0, 1))
        memory = peak_mb(workload, name, device) if workload.classification else None
        approximate = name in APPROXIMATE
        rows.append(Row(workload.name, name, *errors[name], cpu, wall, median(ratios), memory, approximate))
    return rows


def as_documents(rows: Sequence[Row]) -> list[dict[str, object]]:
    """Return the rows as JSON values."""
    return [asdict(row) | {"is_right": row.is_right} for row in rows]


if __name__ == "__main__":
    torch.set_num_threads(1)
    _workload, _name, _device = sys.argv[1:]
    print(json.dumps(peak_of_this_process(WORKLOADS[_workload], _name, torch.device(_device))))
