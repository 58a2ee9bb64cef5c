"""Run the benchmarks: ``python -m benchmarks --workloads W1-8,W2-1 --repeats 5``."""

import argparse
import json
import sys
from pathlib import Path

import torch

from benchmarks.measure import Row, as_documents, measure
from benchmarks.report import page, section
from benchmarks.workloads import WORKLOADS
from metaloom.workers.device import choose_device, keep_pages


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help=f"any of {', '.join(WORKLOADS)}")
    parser.add_argument("--repeats", type=int, default=7, help="turns (default 7)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks.md"), help="the page to write")
    parsed = parser.parse_args()
    unknown = [name for name in parsed.workloads.split(",") if name not in WORKLOADS]
    if unknown or parsed.repeats < 1:
        parser.error(
            f"unknown workloads {unknown}; known: {', '.join(WORKLOADS)}" if unknown else "--repeats must be 1 or more"
        )
    return parsed


def main() -> None:
    """Measure, say how it went on stderr, and write the page."""
    parsed = arguments()
    device = choose_device(parsed.device)
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    keep_pages()  # for all implementations alike
    rows: list[Row] = []
    for name in parsed.workloads.split(","):
        measured = measure(WORKLOADS[name], device, parsed.repeats)
        rows += measured
        print(section(WORKLOADS[name], measured), file=sys.stderr)
    if parsed.json:
        print(json.dumps(as_documents(rows), indent=1))
    whole = set(parsed.workloads.split(",")) == set(WORKLOADS)
    if whole or parsed.out != Path("docs/benchmarks.md"):  # a part of the table does not replace the whole
        parsed.out.parent.mkdir(parents=True, exist_ok=True)
        parsed.out.write_text(page(rows, device=str(device), repeats=parsed.repeats), encoding="utf-8")


if __name__ == "__main__":
    main()
