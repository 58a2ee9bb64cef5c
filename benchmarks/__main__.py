"""Run the benchmarks: ``python -m benchmarks --workloads W1-8,W2-1 --repeats 5``; the others' numbers stay."""

import argparse
import json
import sys
from pathlib import Path

import torch

from benchmarks.measure import as_documents, measure
from benchmarks.registry import OURS
from benchmarks.report import DOCS, Setting, keep, machine, record, section
from benchmarks.row import Row
from benchmarks.workloads import WORKLOADS
from metaloom.workers.device import choose_device


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help=f"any of {', '.join(WORKLOADS)}")
    parser.add_argument("--repeats", type=int, default=7, help="turns (default 7)")
    parser.add_argument("--leave-out", default="", help="skip the peers whose name contains this, such as vmap")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    parser.add_argument("--out", type=Path, default=DOCS, help="the folder of the page and its records")
    parsed = parser.parse_args()
    unknown = [name for name in parsed.workloads.split(",") if name not in WORKLOADS]
    if parsed.leave_out and parsed.leave_out in OURS:
        parser.error(f"--leave-out {parsed.leave_out} would leave out the engine itself")
    if unknown or parsed.repeats < 1:
        parser.error(
            f"unknown workloads {unknown}; known: {', '.join(WORKLOADS)}" if unknown else "--repeats must be 1 or more"
        )
    return parsed


def main() -> None:
    """Measure; after each workload say how it went on stderr, and write the page."""
    parsed = arguments()
    device = choose_device(parsed.device)
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    rows: list[Row] = []
    for name in parsed.workloads.split(","):
        measured = measure(WORKLOADS[name], device, parsed.repeats, parsed.leave_out)
        rows += measured
        setting = Setting(machine(), torch.__version__, str(device), parsed.repeats, parsed.leave_out)
        keep(parsed.out, {name: record(measured, setting)})
        print(section(WORKLOADS[name], measured, setting), file=sys.stderr)
    if parsed.json:
        print(json.dumps(as_documents(rows), indent=1))


if __name__ == "__main__":
    main()
