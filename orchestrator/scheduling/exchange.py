"""Copies checkpoints between the trials of a population."""

import json
import shutil
from pathlib import Path

from metaloom.workers.records.names import CHECKPOINTS_FOLDER

EXCHANGED_FILE = "exchanged.json"  # in a trial's directory: the last generation whose checkpoint was copied there


def take_over(donor: Path, directory: Path, *, generation: int) -> None:
    """Replace a trial's checkpoints with the donor's, once per generation."""
    marker = directory / EXCHANGED_FILE
    if marker.exists() and json.loads(marker.read_text())["generation"] >= generation:
        return
    aside = directory / f"{CHECKPOINTS_FOLDER}.new"
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(donor / CHECKPOINTS_FOLDER, aside)
    shutil.rmtree(directory / CHECKPOINTS_FOLDER, ignore_errors=True)
    aside.rename(directory / CHECKPOINTS_FOLDER)
    marker.write_text(json.dumps({"generation": generation}))
