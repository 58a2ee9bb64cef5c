"""Keep measured rows in docs/benchmarks.json, and write docs/benchmarks.md from them.

A run replaces the workloads that it measured and leaves the others, so that a long table can be measured in pieces.
"""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.bilevel import Bilevel
from benchmarks.pages_report import pages_section
from benchmarks.provenance import COMMIT, SHORT, commit_of_code
from benchmarks.registry import OURS
from benchmarks.row import TOLERANCE, Row
from benchmarks.workloads import WORKLOADS, Workload

DOCS = Path(__file__).resolve().parents[1] / "docs"
RECORDS = "benchmarks.json"
PAGE = "benchmarks.md"
# the records that are no workloads
OVERHEAD, COSTS, HEADS, STAGES = "search_overhead", "small_costs", "transductive_heads", "shared_stages"
PAGES = "pages_speed"
OVERHEAD_TARGET = 1.15

HEADER = f"""# Benchmarks

`make bench` measures all of this and writes this page; the command under each heading measures that part again. One
program times the engine (`build_learner(...).meta_step`, what a trial calls) and the peers that install on Python 3.11
beside torch 2.13: in turns, each in a process of its own, on one thread, on the same network, data and mathematics.
Every network lacks the bias before its batch norm, for all alike.

A trial's process tells the C library to keep freed memory (`workers.device.keep_pages`); without it, every large tensor
is mapped from the kernel again, page by page. So on CPU each peer runs in two processes: as it comes, which is what its
user gets, and with the same allocator settings ("with pages kept"), which is what the targets are judged by.

First each loss and whole gradient is compared with a plain loop in float64: a relative error above {TOLERANCE:g} is
marked **wrong**, and a row with a wrong gradient is not raced against. Times are medians; ratios are medians of the
ratios within a turn. The plain loop is what learn2learn's MAML does inside (learn2learn itself does not build here).
Peak memory is of one implementation alone in a child process, above the resting process; where the engine convolves
grey images (W1, W3), numba's compiler is part of it, once a process. A wall time far above the CPU time says that the
machine was busy: trust the ratio, not the time, and take a difference under 10% for a tie.

`parallel-metalearn` embeds ProtoNet's support and query apart, each with its own batch statistics; its error is against
a reference that does so too.

W4 to W6 differentiate by example weights, by an architecture and by distilled images; all take the gradient by these
alone. Beside the exact gradients there are finite differences, which say that they approximate. Betty, whose gradients
of W4 are approximate too, does not install on Python 3.11: the approximate peer is the DARTS repository's own loop.
`hypergrad` offers implicit gradients; its Neumann series of no terms is one inner step, exactly. The gradients of W6
are compared in float64: in float32 some ReLU or maximum of its 50 steps falls the other way, which makes 5%. So are
those of siamese networks, whose absolute differences have kinks.

The metric learners (W3-matching and the others), relation and graph networks and SNAIL have the plain loop of torch's
own modules as their peer. easyfsl, which has matching and relation networks, needs torchvision, which does not install
beside a CPU build of torch.
"""


IN_ONE_PROCESS = "An earlier record: all in one process, with our allocator settings."


@dataclass(frozen=True)
class Setting:
    """Under what a part of the page was measured."""

    machine: str
    torch: str
    device: str
    turns: int
    left_out: str = ""

    def note(self, workload: str) -> str:
        """Say how a workload was measured: the command, and where."""
        skip = f" --leave-out {self.left_out}" if self.left_out else ""
        command = f"python -m benchmarks --workloads {workload} --repeats {self.turns}{skip}"
        return f"`{command}` ({self.machine}; torch {self.torch}; {self.device})"


def machine() -> str:
    """Name the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{model or platform.processor()}, {torch.backends.cpu.get_cpu_capability()}"


def fastest_peer(rows: Sequence[Row]) -> Row:
    """Return the fastest of the right implementations that are not ours."""
    return min((row for row in rows if row.implementation != OURS and row.is_right), key=lambda row: row.judged)


def fastest_as_it_comes(rows: Sequence[Row]) -> str:
    """Say how the fastest right peer does with its own allocator settings; nothing where these were not measured."""
    peers = [row for row in rows if row.implementation != OURS and row.is_right and row.times_ours_kept is not None]
    return f" {min(row.times_ours for row in peers):.2f}x where each runs as it comes." if peers else ""


def verdict(workload: Workload | Bilevel, rows: Sequence[Row]) -> str:
    """Say how many times the fastest right peer's speed ours is, and whether the target is met."""
    if isinstance(workload, Bilevel):
        return "\n".join(f"- {target(rows)}" for target in workload.targets)
    peer = fastest_peer(rows)
    met = "reached" if peer.judged >= workload.target else "not reached"
    text = f"**{peer.judged:.2f}x** the fastest right peer ({peer.implementation}); target {workload.target}x: {met}."
    text += fastest_as_it_comes(rows)
    higher = next((row for row in rows if row.implementation == "higher"), None)
    if higher is not None and not workload.classification:
        text += f" {higher.judged:.1f}x higher; target 10x: {'reached' if higher.judged >= 10 else 'not reached'}."
    return text


def section(workload: Workload | Bilevel, rows: Sequence[Row], setting: Setting) -> str:
    """Write one workload's table."""
    shared = setting.device == "cpu" and all(row.times_ours_kept is None for row in rows)
    lines = [
        f"## {workload.name}: {workload.title}",
        "",
        setting.note(workload.name),
        *(["", IN_ONE_PROCESS] if shared else []),
        "",
        verdict(workload, rows),
        "",
        "| implementation | CPU ms | wall ms | times ours | with pages kept | loss error | gradient error | peak MB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        wrong = "" if row.is_right or row.approximate else " **wrong**"
        loss_wrong = "" if row.loss_error <= TOLERANCE else " **wrong**"
        memory = "-" if row.peak_mb is None else f"{row.peak_mb:.0f}"
        kept = "-" if row.times_ours_kept is None else f"{row.times_ours_kept:.2f}"
        lines.append(
            f"| {row.implementation} | {row.cpu_ms:.4g} | {row.wall_ms:.4g} | {row.times_ours:.2f} | {kept} | "
            f"{row.loss_error:.0e}{loss_wrong} | {row.error:.0e}{wrong} | {memory} |"
        )
    return "\n".join(lines) + "\n"


def keep(folder: Path, measured: Mapping[str, Any]) -> None:
    """Replace what was measured in the folder's records, and write its page again."""
    records = folder / RECORDS
    known: dict[str, Any] = json.loads(records.read_text(encoding="utf-8")) if records.exists() else {}
    known |= {name: {COMMIT: commit_of_code(), **one} for name, one in measured.items()}
    ordered = {name: known[name] for name in (*WORKLOADS, *SECTIONS) if name in known}
    folder.mkdir(parents=True, exist_ok=True)
    records.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
    (folder / PAGE).write_text(page(ordered), encoding="utf-8")


def record(rows: Sequence[Row], setting: Setting) -> dict[str, Any]:
    """Return one workload's rows as the records keep them."""
    return {"setting": asdict(setting), "rows": [asdict(row) for row in rows]}


def page(known: Mapping[str, Any]) -> str:
    """Write the whole page."""
    parts = [HEADER]
    for name, kept in known.items():
        if name in SECTIONS:
            parts.append(SECTIONS[name](kept))
        else:
            rows = [Row(**row) for row in kept["rows"]]
            parts.append(section(WORKLOADS[name], rows, Setting(**kept["setting"])))
        commit = kept.get(COMMIT)
        parts.append(f"Measured at {commit[:SHORT]}.\n" if commit else "Measured on code that was not committed.\n")
    missing = [name for name in (*WORKLOADS, *SECTIONS) if name not in known]
    if missing:
        parts.append(f"Not measured here yet: {', '.join(missing)}.\n")
    return "\n".join(parts)


def overhead_section(kept: Mapping[str, Any]) -> str:
    """Write what a search costs beside its trials."""
    met = "reached" if kept["ratio"] <= OVERHEAD_TARGET else "not reached"
    count, seconds, work = kept["trials"], kept["seconds"], kept["work"]
    command = f"python -m benchmarks.search_overhead --trials {count} --seconds {seconds:g} --work {work}"
    lines = [
        "## Search overhead",
        "",
        f"`{command}` ({kept['machine']})",
        "",
        f"**{kept['ratio']:.3f}x** the wall time of a bare loop over two processes, once Ray's workers are up; "
        f"target {OVERHEAD_TARGET}x: {met}. {count} trials of {seconds:g} s ({work}), two at a time.",
        "",
        "| what | s |",
        "|---|---:|",
        f"| bare loop over two processes | {kept['bare_s']:.2f} |",
        f"| search, from its first trial's start to its last one's end | {kept['search_s']:.2f} |",
        f"| the same, recorded in MLflow and Optuna's database ({kept['recorded_ratio']:.3f}x) "
        f"| {kept['recorded_search_s']:.2f} |",
        f"| start of Ray | {kept['ray_start_s']:.2f} |",
        f"| search with the start of its workers | {kept['search_with_start_of_workers_s']:.2f} |",
        f"| a fully recorded trial of no work, after the first | {kept['no_work_s_a_trial']:.3f} |",
    ]
    return "\n".join(lines) + "\n"


def costs_section(kept: Mapping[str, Any]) -> str:
    """Write what goes with the mathematics."""
    lines = ["## Small costs", "", f"`python -m benchmarks.small_costs` ({kept['machine']})", ""]
    lines += ["| what | costs | promised | reached |", "|---|---:|---:|---|"]
    for one in kept["rows"]:
        reached = "yes" if one["reached"] else "**no**"
        lines.append(f"| {one['what']} | {one['value']} | {one['target']} | {reached} |")
    return "\n".join(lines) + "\n"


def heads_section(kept: Mapping[str, Any]) -> str:
    """Write what PT+MAP costs, batched over episodes, beside loops over them."""
    lines = ["## Transductive heads", "", f"`python -m benchmarks.transductive_heads` ({kept['machine']})", ""]
    lines += [
        "PT+MAP on cached features of 640 numbers, 5-way 1-shot, 15 queries a class; CPU time of an episode, one "
        "thread.",
        "",
        "| beside | episodes | its ms | ours, ms | times ours | largest difference of an assignment | reached |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for one in kept["rows"]:
        reached = "yes" if one["reached"] else "**no**"
        lines.append(
            f"| {one['what']} | {one['episodes']:,} | {one['peer_ms']:.2f} | {one['ours_ms']:.3f} "
            f"| **{one['ratio']:.1f}x** | {one['difference']:.1e} | {reached} |"
        )
    return "\n".join(lines) + "\n\nPromised: at least 20 times, within 1e-5.\n"


def stages_section(kept: Mapping[str, Any]) -> str:
    """Write what trials after one shared pre-training cost."""
    met = "reached" if kept["ratio"] <= OVERHEAD_TARGET else "not reached"
    trials, steps, adapt_steps = kept["trials"], kept["steps"], kept["adapt_steps"]
    command = f"python -m benchmarks.shared_stages --trials {trials} --steps {steps} --adapt-steps {adapt_steps}"
    wall, apart = kept["wall_s"], trials * kept["before_s"] + kept["after_s"]
    lines = [
        "## Shared stages",
        "",
        f"`{command} --turns {kept['turns']}` ({kept['machine']})",
        "",
        f"**{kept['ratio']:.3f}x** one pre-training and {trials} adaptations ({kept['wall_ratio']:.3f}x by the wall "
        f"clock); target {OVERHEAD_TARGET}x: {met}. CPU time of the process, medians of {kept['turns']} turns.",
        "",
        "| what | CPU s | wall s |",
        "|---|---:|---:|",
        f"| one pre-training of {steps} steps, as a search of its own | {kept['before_s']:.2f} | {wall[0]:.2f} |",
        f"| {trials} trials of {adapt_steps} steps after its bundle | {kept['after_s']:.2f} | {wall[1]:.2f} |",
        f"| both as stages of one experiment | {kept['staged_s']:.2f} | {wall[2]:.2f} |",
        f"| a pre-training for each trial, by these times | {apart:.2f} | |",
    ]
    return "\n".join(lines) + "\n"


SECTIONS = {
    OVERHEAD: overhead_section,
    COSTS: costs_section,
    HEADS: heads_section,
    STAGES: stages_section,
    PAGES: pages_section,
}
