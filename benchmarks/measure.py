"""Correctness first, then time, then memory.

* Right: the whole gradient's relative error against the plain loop in float64.
* Time: implementations take turns, each in its own process on one thread; process CPU time beside wall time, and
  the ratio of each to ours within the same turn, so that a busy machine moves both. On CPU each peer is there twice:
  as it comes, and with our allocator settings.
* Memory: each implementation alone in a child process, its peak above what it held before the step.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import median

import torch

from benchmarks.bilevel import Bilevel
from benchmarks.implementations import Run, Step, bilevel_plain, metric_learners, plain, relational_learners
from benchmarks.preparation import Timed, materials, prepared
from benchmarks.registry import APPROXIMATE, OURS, is_ours, places
from benchmarks.resident import Resident
from benchmarks.row import Row
from benchmarks.workloads import WORKLOADS

ROUND_S = 0.2  # a quick step is repeated up to this long within a turn, to be above the clock's grain

Times = list[tuple[float, float]]  # (CPU, wall) seconds of a step, by turn
Runner = tuple[str, bool]  # an implementation, and whether its process keeps freed pages


def relative_errors(step: Step, truth: Step) -> tuple[float, float]:
    """Return the relative errors of the whole gradient and of the loss."""
    wrong = sum(float((step.gradient[n].double() - g).square().sum()) for n, g in truth.gradient.items())
    size = sum(float(g.square().sum()) for g in truth.gradient.values())
    return (wrong / size) ** 0.5, abs(step.loss - truth.loss) / abs(truth.loss)


def has_own_statistics(name: str, workload: Timed) -> bool:
    """Whether an implementation embeds support and query apart, which is another mathematics."""
    return workload.method == "prototypical" and name.startswith("parallel-metalearn")


def check(runs: Mapping[str, Run], workload: Timed, device: torch.device) -> dict[str, tuple[float, float]]:
    """Return every implementation's errors against the float64 reference of its mathematics."""
    parameters, episodes = materials(workload, device, torch.float64)
    if isinstance(workload, Bilevel):
        exact = bilevel_plain.prepare(workload, parameters, episodes)()
        return {name: relative_errors(run(), exact) for name, run in runs.items()}
    if workload.metric or workload.relational:
        module = metric_learners if workload.metric else relational_learners
        exact = module.prepare_plain(workload, parameters, episodes)()
        return {name: relative_errors(run(), exact) for name, run in runs.items()}
    kinds = {has_own_statistics(name, workload) for name in runs}
    truth = {kind: plain.prepare(workload, parameters, episodes, separate=kind)() for kind in kinds}
    return {name: relative_errors(run(), truth[has_own_statistics(name, workload)]) for name, run in runs.items()}


def turns(runners: Mapping[Runner, Callable[[int], tuple[float, float]]], repeats: int) -> dict[Runner, Times]:
    """Time the implementations in turns, each turn beginning with another one."""
    counts: dict[Runner, int] = {}
    times: dict[Runner, Times] = {runner: [] for runner in runners}
    order = list(runners)
    for turn in range(repeats):
        for runner in order[turn % len(order) :] + order[: turn % len(order)]:
            if runner not in counts:
                once = runners[runner](1)
                counts[runner] = max(1, int(ROUND_S / once[1]))
                if counts[runner] == 1:  # one step was the turn
                    times[runner].append(once)
                    continue
            times[runner].append(runners[runner](counts[runner]))
    return times


def timed(workload: Timed, names: Sequence[str], device: torch.device, repeats: int) -> dict[Runner, Times]:
    """Time each implementation in its own process: ours keeps freed pages, as trials do; peers with and without."""
    peers = [name for name in names if not is_ours(name)]
    runners = [(name, is_ours(name)) for name in names]
    if device.type == "cpu":
        runners += [(name, True) for name in peers]
    with ExitStack() as stack:
        residents = {
            (name, kept): stack.enter_context(Resident(workload, name, device, kept=kept)) for name, kept in runners
        }
        return turns({runner: resident.time for runner, resident in residents.items()}, repeats)


def ratio(one: Times, ours: Times) -> float:
    """Return the median over turns of the CPU time over ours."""
    return median(first[0] / second[0] for first, second in zip(one, ours, strict=True))


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
    names = [name for name in places(workload) if not left_out or left_out not in name]
    errors = check(prepared(names, workload, device, workload.checked_in), workload, device)
    times = timed(workload, list(errors), device, repeats)
    ours = times[OURS, True]
    rows = []
    for name in errors:
        seen, kept = times[name, is_ours(name)], times.get((name, True))
        cpu, wall = (1e3 * median(one[index] for one in seen) for index in (0, 1))
        memory = peak_mb(workload, name, device) if workload.classification else None
        times_ours, times_kept = ratio(seen, ours), None if kept is None else ratio(kept, ours)
        rows.append(
            Row(workload.name, name, *errors[name], cpu, wall, times_ours, memory, name in APPROXIMATE, times_kept)
        )
    return rows


def as_documents(rows: Sequence[Row]) -> list[dict[str, object]]:
    """Return the rows as JSON values."""
    return [asdict(row) | {"is_right": row.is_right} for row in rows]


if __name__ == "__main__":
    torch.set_num_threads(1)
    _workload, _name, _device = sys.argv[1:]
    print(json.dumps(peak_of_this_process(WORKLOADS[_workload], _name, torch.device(_device))))
