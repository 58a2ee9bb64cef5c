"""The experiments shipped with the package."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from metaloom.learners.errors import unknown
from metaloom.search_spaces.errors import ExperimentError, InputProblem

FOLDER = Path(__file__).parents[1] / "presets"
HEADER = re.compile(r"\A# (?P<title>[^\n]+)\n# shows: (?P<shows>[^\n]+)\n# minutes: (?P<minutes>[0-9.]+)\n")


@dataclass(frozen=True)
class PresetInfo:
    """What a preset is, from its first lines.

    Attributes:
        name: What to call it on the command line.
        title: In a few words.
        shows: What one learns from running it.
        minutes: How long it takes on 2 cores.
    """

    name: str
    title: str
    shows: str
    minutes: float


def preset_names() -> list[str]:
    """Return the names of all presets, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def preset_path(name: str) -> Path:
    """Return a preset's file; raises ExperimentError with the nearest right name."""
    if name not in preset_names():
        raise ExperimentError([InputProblem((), unknown("preset", name, preset_names()))])
    return FOLDER / f"{name}.yaml"


@cache
def presets() -> list[PresetInfo]:
    """Describe all presets, sorted by name."""
    return [_info(preset_path(name)) for name in preset_names()]


def _info(path: Path) -> PresetInfo:
    header = HEADER.match(path.read_text(encoding="utf-8"))
    if header is None:
        raise ExperimentError(
            [InputProblem((), "the first lines must be '# TITLE', '# shows: ...', '# minutes: N'", str(path))]
        )
    return PresetInfo(path.stem, header["title"], header["shows"], float(header["minutes"]))
