"""``python -m benchmarks.reproductions [V2 V7 ...] [--seeds N]``: measure claims and keep their rows."""

import argparse
import sys
import time
from pathlib import Path

import torch

from benchmarks.reproductions import CLAIMS
from benchmarks.reproductions.report import PAGE, _line, keep, rewrite
from benchmarks.staleness import stale_rows


def arguments() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reproductions",
        description=__doc__,
        epilog="example: python -m benchmarks.reproductions V2 V10 --seeds 3",
    )
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help=f"of {', '.join(CLAIMS)}; none runs all")
    parser.add_argument("--seeds", type=int, default=3, help="training seeds, from 0 (default 3)")
    parser.add_argument(
        "--only", type=int, metavar="SEED", help="measure one seed and write no page, so that seeds run side by side"
    )
    parser.add_argument("--cache", type=Path, default=Path(".cache/metaloom"), help="where task data are kept")
    parser.add_argument("--list", action="store_true", help="print the claims, and measure nothing")
    parser.add_argument("--page", action="store_true", help="write the page from the records, and measure nothing")
    parser.add_argument(
        "--stale", action="store_true", help="list the rows of both tables whose code has changed, and measure nothing"
    )
    return parser


def main() -> int:
    """Run the claims named, or all; return 1 if one misses its gate, or if a row is stale."""
    parser = arguments()
    options = parser.parse_args()
    if options.stale:
        print(*(found := stale_rows()), sep="\n", end="\n" * bool(found))
        return int(bool(found))
    if options.list:
        print(*CLAIMS, sep="\n")
        return 0
    if options.page:
        rewrite()
        return 0
    unknown = [claim for claim in options.claims if claim not in CLAIMS]
    if unknown:
        parser.error(f"no claim is named {', '.join(unknown)} (allowed: {', '.join(CLAIMS)})")
    torch.set_num_threads(1)
    missed = False
    for claim in options.claims or CLAIMS:
        started = time.perf_counter()
        seeds = range(options.seeds) if options.only is None else [options.only]
        rows = CLAIMS[claim](seeds, options.cache)
        if options.only is None:
            keep(claim, rows, time.perf_counter() - started, seeds)
        for row in rows:
            print(_line(row), end="", flush=True)
        missed |= any(row.reached is False for row in rows)
    if options.only is None:
        print(f"written to {PAGE.relative_to(Path.cwd()) if PAGE.is_relative_to(Path.cwd()) else PAGE}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
