"""The measured rows as a page of docs/."""

import platform
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.measure import TOLERANCE, Row
from benchmarks.registry import OURS
from benchmarks.workloads import WORKLOADS, Workload

HEADER = """# Benchmarks

`make bench` writes this page. One program times the engine (`build_learner(...).meta_step`, what a trial calls) and
the peers that install on Python 3.11 beside torch 2.13: in turns, in one process, on one thread, on the same network,
data and mathematics. Every network lacks the bias before its batch norm, for all alike, and all have the same allocator
settings (`workers.device.keep_pages`).

First each loss and whole gradient is compared with a plain loop in float64: a relative error above {tolerance:g} is
marked **wrong**, and a row with a wrong gradient is not raced against. Times are medians; ratios are medians of the
ratios within a turn. The plain loop is what learn2learn's MAML does inside (learn2learn itself does not build here).
Peak memory is of one implementation alone in a child process, above the resting process.

`parallel-metalearn` embeds ProtoNet's support and query apart, each with its own batch statistics; its error is against
a reference that does so too.

Machine: {machine}; torch {torch}; device {device}; {repeats} turns.
"""


def machine() -> str:
    """Name the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{model or platform.processor()}, {torch.backends.cpu.get_cpu_capability()}"


def fastest_peer(rows: Sequence[Row]) -> Row:
    """Return the fastest of the right implementations that are not ours."""
    return min((row for row in rows if row.implementation != OURS and row.is_right), key=lambda row: row.times_ours)


def verdict(workload: Workload, rows: Sequence[Row]) -> str:
    """Say how many times the fastest right peer's speed ours is, and whether the target is met."""
    peer = fastest_peer(rows)
    met = "reached" if peer.times_ours >= workload.target else "not reached"
    text = (
        f"**{peer.times_ours:.2f}x** the fastest right peer ({peer.implementation}); target {workload.target}x: {met}."
    )
    higher = next((row for row in rows if row.implementation == "higher"), None)
    if higher is not None and not workload.classification:
        text += (
            f" {higher.times_ours:.1f}x higher; target 10x: {'reached' if higher.times_ours >= 10 else 'not reached'}."
        )
    return text


def section(workload: Workload, rows: Sequence[Row]) -> str:
    """Write one workload's table."""
    lines = [
        f"## {workload.name}: {workload.title}",
        "",
        verdict(workload, rows),
        "",
        "| implementation | CPU ms | wall ms | times ours | loss error | gradient error | peak MB |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        wrong = "" if row.is_right else " **wrong**"
        loss_wrong = "" if row.loss_error <= TOLERANCE else " **wrong**"
        memory = "-" if row.peak_mb is None else f"{row.peak_mb:.0f}"
        lines.append(
            f"| {row.implementation} | {row.cpu_ms:.4g} | {row.wall_ms:.4g} | {row.times_ours:.2f} | "
            f"{row.loss_error:.0e}{loss_wrong} | {row.error:.0e}{wrong} | {memory} |"
        )
    return "\n".join(lines) + "\n"


def page(rows: Sequence[Row], *, device: str, repeats: int) -> str:
    """Write the whole page."""
    header = HEADER.format(
        tolerance=TOLERANCE, machine=machine(), torch=torch.__version__, device=device, repeats=repeats
    )
    names = dict.fromkeys(row.workload for row in rows)
    parts = [section(WORKLOADS[name], [row for row in rows if row.workload == name]) for name in names]
    return "\n".join([header, *parts])
