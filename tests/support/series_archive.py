"""A small archive of data sets of series, written as files: of equal length, and of unequal length with gaps."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

HEAD = """\
# made for the tests
@problemName {name}
@timeStamps false
@univariate {univariate}
{more}@classLabel true {labels}
@data
"""


def write_ts(path: Path, rows: Sequence[tuple[Sequence[Sequence[object]], str]], labels: str, more: str = "") -> None:
    """Write series, each a list of channels with a label, as a .ts file."""
    lines = [":".join([*(",".join(map(str, channel)) for channel in channels), label]) for channels, label in rows]
    head = HEAD.format(name=path.stem, univariate=str(len(rows[0][0]) == 1).lower(), more=more, labels=labels)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(head + "\n".join(lines) + "\n")


def write_waves(
    folder: Path, name: str, *, classes: int = 4, each: int = 8, lengths: Sequence[int] = (20,), seed: int = 0
) -> None:
    """Write a set of noisy sines, whose classes differ in frequency; lengths take turns, and longer sets have gaps."""
    draw = np.random.default_rng(seed)
    for part in ("TRAIN", "TEST"):
        rows = []
        for number in range(classes * each):
            steps, label = lengths[number % len(lengths)], number % classes
            wave = np.sin((label + 1) * np.linspace(0, 6, steps) + draw.uniform(0, 1)) + 0.1 * draw.normal(size=steps)
            cells: list[object] = [f"{value:.4f}" for value in wave]
            if len(lengths) > 1:
                cells[3] = "?"
            rows.append(([cells], "abcdefghij"[label]))
        labels = " ".join(reversed("abcdefghij"[:classes]))
        write_ts(folder / name / f"{name}_{part}.ts", rows, labels)
