"""Keep measured rows in docs/reproductions.json, and write docs/reproductions.md from them."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.provenance import COMMIT, SHORT, commit_of_code
from benchmarks.reproductions.controls import number, wins
from benchmarks.reproductions.harness import Row

DOCS = Path(__file__).resolve().parents[2] / "docs"
RECORDS = DOCS / "reproductions.json"
PAGE = DOCS / "reproductions.md"

HEAD = """# Reproductions

Every number below is printed by the command beside its claim; `make reproduce` runs them all. A value is the mean over
the training seeds, each tested on 600 fixed episodes of the test split (single-task data: on the whole test split, in
episodes of 10 samples); the interval is the 95% interval over all test episodes of all seeds, and the seeds' own means
stand beside it. A number that is no mean of episodes, such as a regret, has Student's 95% interval of the mean of its
seeds instead (n - 1 degrees of freedom, so that three seeds take 4.3 standard errors to either side), marked "over the
seeds". It is not cut where the number has a bound; where all seeds agree it is a point, which says nothing of other
seeds. Nothing was tuned on a test split. The seconds beside a command are its own: what an earlier run of the same
commit, or of the same protocol of networks (V17), had measured already is not among them, and stands in a row of its
own.
"""


def keep(claim: str, rows: Sequence[Row], seconds: float, seeds: Sequence[int]) -> None:
    """Replace a claim's rows in the records, and write the page again."""
    known: dict[str, Any] = json.loads(RECORDS.read_text()) if RECORDS.exists() else {}
    known[claim] = {
        COMMIT: commit_of_code(),
        "seconds": round(seconds),
        "seeds": list(seeds),
        "rows": [asdict(row) for row in rows],
    }
    ordered = dict(sorted(known.items(), key=lambda item: ("VMPS".index(item[0][0]), int(item[0][1:]))))
    DOCS.mkdir(exist_ok=True)
    RECORDS.write_text(json.dumps(ordered, indent=1) + "\n")
    rewrite()


def rewrite() -> None:
    """Write the page again from the records alone."""
    PAGE.write_text(page(json.loads(RECORDS.read_text())))


def page(known: dict[str, Any]) -> str:
    """Render the records as Markdown."""
    parts = [HEAD]
    for claim, record in known.items():
        seeds = ", ".join(map(str, record["seeds"]))
        command = f"python -m benchmarks.reproductions {claim} --seeds {len(record['seeds'])}"
        parts.append(
            f"\n## {claim}\n\n`{command}` (seeds {seeds}; {record['seconds']} s; {measured_at(record)})\n\n"
            "| what | value | 95% interval | seeds | must reach | reached | setting |\n|---|---|---|---|---|---|---|\n"
        )
        rows = [Row(**_tuples(row)) for row in record["rows"]]
        parts += map(_line, rows)
        if won := wins(rows):
            parts.append("\nWhere a control wins:\n\n" + "".join(f"- {sentence}\n" for sentence in won))
    return "".join(parts)


def measured_at(record: dict[str, Any]) -> str:
    """Say at which commit a record was measured."""
    commit = record.get(COMMIT)
    return f"measured at {commit[:SHORT]}" if commit else "measured on code that was not committed"


def _tuples(row: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}


def _line(row: Row) -> str:
    verdict = {None: "", True: "yes", False: "**no**"}[row.reached]
    values = ", ".join(map(number, row.values)) if len(row.values) > 1 else ""
    what = row.what.replace("|", "\\|")
    return f"| {what} | {number(row.mean)} | {_interval(row)} | {values} | {row.gate} | {verdict} | {row.setting} |\n"


def _interval(row: Row) -> str:
    """Over the test episodes; else over the seeds, and marked so; nothing where there is a single number."""
    if row.interval is not None:
        return f"[{row.interval[0]:.4f}, {row.interval[1]:.4f}]"
    if row.seeds_interval is None:
        return ""
    low, high = map(number, row.seeds_interval)
    return f"[{low}, {high}] over the seeds"
