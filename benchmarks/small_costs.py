"""What goes with the mathematics: drawing episodes, recording them, the command's help, the glyphs' first drawing.

    python -m benchmarks.small_costs

Shares are of one thread's wall time, side by side, so that a busy machine slows both.
"""

import argparse
import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks import memory_network
from benchmarks.report import COSTS, DOCS, keep, machine
from benchmarks.reproductions.harness import configured
from metaloom.orchestrator.journal import Journal
from metaloom.orchestrator.repair import recover
from metaloom.workers.assembly import Assembly, assemble
from metaloom.workers.data import open_source
from metaloom.workers.device import keep_pages
from metaloom.workers.records import names as records
from metaloom.workers.records.journal import Event, read_database
from metaloom.workers.records.journal_sources import read_journal
from metaloom.workers.records.trial import Report
from metaloom.workers.trial.runner import Trial

LARGEST_SHARE = 0.03
TASKS = ((5, 1, 15), (20, 1, 5), (20, 5, 15))  # ways, shots, queries
STEPS = 30
HELP_S, GLYPHS_S, VERIFYING_S = 0.5, 60.0, 0.5
PICTURES, PICTURES_EACH = 60_000, 100  # in all, and in each class folder
FIRST_READ_S, LATER_READ_S = 15.0, 0.5
JOURNAL_TRIALS, JOURNAL_REPORTS = 10_000, 5
MEMORY_TIMES = 1.2
RECORDING = ((20, 160, 0.01), (3, 60, 0.02))  # steps from report to report, steps of the trial, largest share


def experiment(ways: int, shots: int, queries: int) -> dict[str, Any]:
    """Return ProtoNet on glyphs with Conv-4-64."""
    return {
        "tasks": {"source": "glyphs", "ways": ways, "shots": shots, "queries": queries},
        "learner": {"method": "prototypical", "architecture": {"kind": "conv4", "channels": 64}},
        "outer": {"steps": STEPS, "meta_batch": 1, "validate_every": STEPS // 3, "validation_episodes": 10},
    }


def sinusoid(every: int, steps: int) -> dict[str, Any]:
    """Return MAML on the sine tasks with a report every so many steps, where recording takes the largest share."""
    return {
        "tasks": {"source": "sinusoid", "shots": 10, "queries": 10},
        "learner": {"method": "maml", "update": {"rate": 0.01, "steps": 1}},
        "outer": {"steps": steps, "meta_batch": 10, "validate_every": every, "validation_episodes": 50},
    }


def seconds(work: Callable[[], object]) -> float:
    """Return the wall time of a call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def sampling_share(parts: Assembly, *, repeats: int = STEPS) -> float:
    """Return the median time of drawing an episode over that of an outer step with it."""
    generator = torch.Generator().manual_seed(0)
    phi = parts.learner.init(generator)
    state = parts.learner.begin(phi, generator)
    drawing, learning = [], []
    for index in range(repeats):
        drawing.append(seconds(lambda index=index: parts.source.episode("train", index)))  # type: ignore[misc]
        episode = parts.source.episode("train", index).episode
        learning.append(seconds(lambda episode=episode: parts.learner.meta_step(phi, state, [episode], generator)))  # type: ignore[misc]
    return statistics.median(drawing) / statistics.median(learning)


def recording_share(asked: dict[str, Any], parts: Assembly, cache: Path) -> float:
    """Return the part of a trial's time that its episode records take."""
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(configured(asked, 0), Path(folder), cache=cache, assembly=parts)
        while not trial.finished:
            report = trial.advance()
        trial.close()
        return report.metrics["recording_seconds"] / report.seconds


def write_journal(folder: Path) -> None:
    """Write the journal of a search of many trials."""
    report = Report(1, dict.fromkeys(map(str, range(7)), 1 / 3), (0.1, 0.2), (1 / 3,) * 20, 10, 1.0, False)
    config = configured(experiment(5, 1, 15), 0).to_json()
    suggested = {"knobs": {}, "params": {}, "distributions": {}, "sampler": "tpe", "config": config}
    story: list[tuple[str, dict[str, Any]]] = [
        (records.TRIAL_SUGGESTED, suggested),
        (records.TRIAL_STARTED, {"attempt": 1, "worker": ""}),
        *[(records.TRIAL_REPORTED, {"report": report.to_json(), "worker": ""})] * JOURNAL_REPORTS,
        (records.TRIAL_FINISHED, {"values": {}}),
    ]
    with Journal(folder) as journal:
        for trial in range(JOURNAL_TRIALS):
            journal.append_all([Event(0, float(trial), trial, kind, payload) for kind, payload in story])


def verifying_seconds(folder: Path) -> float:
    """Return what the checksums add to reading a long journal's rows at the opening of a resume; the least of five."""
    write_journal(folder)
    found, path = read_journal(folder), folder / records.JOURNAL_FILE

    def plain() -> None:
        with closing(sqlite3.connect(path)) as database:
            database.execute(
                f"SELECT id, time, trial, kind, payload FROM {records.EVENTS_TABLE} ORDER BY id"
            ).fetchall()

    def verified() -> None:
        read_database(path)
        recover(folder, found)

    with_checksums, without = (min(seconds(work) for _ in range(5)) for work in (verified, plain))
    return with_checksums - without


def reading_seconds(folder: Path) -> tuple[float, float]:
    """Return the time of the first opening of a folder of 28 x 28 PNG files, and of a later one."""
    pixels = np.random.default_rng(0).integers(0, 256, (PICTURES, 28, 28), dtype=np.uint8)
    for number, picture in enumerate(pixels):
        path = folder / "pictures" / f"class{number // PICTURES_EACH:03}" / f"{number % PICTURES_EACH:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    tasks = {"source": "folder", "path": str(folder / "pictures")}
    first, later = (seconds(lambda: open_source(tasks, seed=0, cache=folder / "cache")) for _ in range(2))
    return first, later


def costs(cache: Path) -> Iterator[dict[str, Any]]:
    """Measure one after the other: what it is, its value as words, and whether it is as low as promised."""
    drawn = seconds(lambda: assemble(configured(experiment(*TASKS[0]), 0), cache=cache))
    yield cost("drawing the glyphs, once for a cache", f"{drawn:.1f} s", f"under {GLYPHS_S:g} s", drawn < GLYPHS_S)
    command = [str(Path(sys.executable).with_name("metaloom")), "--help"]
    helped = statistics.median(
        seconds(lambda: subprocess.run(command, check=True, capture_output=True)) for _ in range(5)
    )
    yield cost("`metaloom --help`", f"{helped:.2f} s", f"under {HELP_S:g} s", helped < HELP_S)
    with tempfile.TemporaryDirectory() as folder:
        verifying = verifying_seconds(Path(folder))
    what = f"verifying a journal of {JOURNAL_TRIALS:,} trials with {JOURNAL_REPORTS} reports each, at its opening"
    yield cost(what, f"{verifying:.2f} s", f"under {VERIFYING_S:g} s", verifying < VERIFYING_S)
    with tempfile.TemporaryDirectory() as folder:
        first, later = reading_seconds(Path(folder))
    what = f"reading a folder of {PICTURES:,} PNG files"
    yield cost(f"{what}, the first time", f"{first:.1f} s", f"under {FIRST_READ_S:g} s", first < FIRST_READ_S)
    yield cost(f"{what}, later", f"{later:.2f} s", f"under {LATER_READ_S:g} s", later < LATER_READ_S)
    for ways, shots, queries in TASKS:
        asked = experiment(ways, shots, queries)
        parts = assemble(configured(asked, 0), cache=cache)
        what = f"ProtoNet on Conv-4-64, {ways}-way {shots}-shot, {queries} queries"
        yield share(f"drawing and collating an episode, of a step of {what}", sampling_share(parts))
        yield share(f"episode records, of a trial of {what}", recording_share(asked, parts, cache))

    taken = memory_network.times()
    beside, plain = (taken["ours"] / taken[name] for name in ("lstm", "plain"))
    what = (
        f"a memory-augmented network on {memory_network.EPISODES:,} sequences of 50 in batches of 16, over the time of"
    )
    yield cost(f"{what} torch's own LSTM", f"{beside:.2f}", f"at most {MEMORY_TIMES:g}", beside <= MEMORY_TIMES)
    yield cost(f"{what} its plain version", f"{plain:.2f}", "at most 1", plain <= 1)
    for every, steps, largest in RECORDING:
        asked = sinusoid(every, steps)
        parts = assemble(configured(asked, 0), cache=cache)
        recorded = statistics.median(recording_share(asked, parts, cache) for _ in range(5))
        yield share(
            f"episode records, of a trial of MAML on sines with a report every {every} steps", recorded, largest
        )


def share(what: str, value: float, largest: float = LARGEST_SHARE) -> dict[str, Any]:
    """Describe a part of a step's or a trial's time."""
    return cost(what, f"{value:.2%}", f"under {largest:.0%}", value < largest)


def cost(what: str, value: str, target: str, reached: bool) -> dict[str, Any]:
    """Describe one line of the table."""
    return {"what": what, "value": value, "target": target, "reached": reached}


def main() -> None:
    """Measure, and print one JSON document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.small_costs", description=__doc__)
    parser.add_argument("--out", type=Path, default=DOCS, help="the folder of the page and its records")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_pages()
    with tempfile.TemporaryDirectory() as cache:
        rows = list(costs(Path(cache)))
    keep(options.out, {COSTS: {"machine": machine(), "rows": rows}})
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
