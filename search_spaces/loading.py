"""From a file, a preset's name or Python values to a checked experiment; and the experiments shipped as presets."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from metaloom.learners.errors import unknown
from metaloom.search_spaces.errors import ExperimentError, InputProblem
from metaloom.search_spaces.experiment import DEFAULT_NAME, FINGERPRINT_VERSION, Experiment
from metaloom.search_spaces.reading.document import MAX_BYTES, Document, plain, read_yaml
from metaloom.search_spaces.reading.overrides import with_overrides
from metaloom.search_spaces.switching import fitted, is_of_method, method_of

PRESETS = Path(__file__).parent / "presets"
HEADER = re.compile(r"\A# (?P<title>[^\n]+)\n# shows: (?P<shows>[^\n]+)\n# minutes: (?P<minutes>[0-9.]+)\n")


@dataclass(frozen=True)
class PresetInfo:
    """The description of a preset, from its first lines.

    Attributes:
        name: Its name on the command line.
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
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def preset_path(name: str) -> Path:
    """Return a preset's file; raises ExperimentError with the nearest right name."""
    if name not in preset_names():
        raise ExperimentError([InputProblem((), unknown("preset", name, preset_names()))])
    return PRESETS / f"{name}.yaml"


@cache
def presets() -> list[PresetInfo]:
    """Describe all presets, sorted by name."""
    return [_info(preset_path(name)) for name in preset_names()]


def _info(path: Path) -> PresetInfo:
    header = HEADER.match(path.read_text(encoding="utf-8"))
    if header is None:
        advice = "the first lines must be '# TITLE', '# shows: ...', '# minutes: N'"
        raise ExperimentError([InputProblem((), advice, str(path))])
    return PresetInfo(path.stem, header["title"], header["shows"], float(header["minutes"]))


def load_experiment(
    source: str | Path | Mapping[str, Any] | Document,
    overrides: Sequence[str] = (),
    *,
    fingerprint_version: int = FINGERPRINT_VERSION,
) -> Experiment:
    """Read an experiment and check all of it.

    Args:
        source: A YAML file, the name of a preset, or a mapping of sections.
        overrides: ``PATH=VALUE`` each, or ``PATH-`` to remove one, as for ``--set``. Where they name another method,
            the settings that it does not have are left out, with a warning each.
        fingerprint_version: From the journal of a stored search: the experiment is read as it was then.

    Raises:
        ExperimentError: With every problem: its file and line, its path, what was given, what is
            allowed. Nothing has been started or written.
    """
    document = source if isinstance(source, Document) else read_document(source)

    def build(one: Document) -> Experiment:
        return Experiment.from_document(one, fingerprint_version)

    changed = with_overrides(document, overrides)
    if method_of(changed) == method_of(document) or method_of(document) is None:
        return build(changed)
    before = with_overrides(document, [one for one in overrides if not is_of_method(one)])
    return fitted(changed, before, build)


def read_document(source: str | Path | Mapping[str, Any]) -> Document:
    """Read a YAML file, a preset or a mapping of sections without checking it; raises ExperimentError."""
    if isinstance(source, Mapping):
        return Document(plain(dict(source)))
    path = find_experiment(source)
    document = read_yaml(_read(path), path.name)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).lstrip(".-")[:80]
    document.data.setdefault("name", name or DEFAULT_NAME)
    return document


def find_experiment(source: str | Path) -> Path:
    """Return the file that a path or a preset's name means; raises ExperimentError with the nearest of either."""
    path = Path(source)
    if path.is_file():
        return path
    if isinstance(source, str) and source in preset_names():
        return preset_path(source)
    if path.is_dir():
        missing = f"{source} is a folder, and no bundle; name the experiment's file in it"
    elif path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        missing = _no_file(path)
    else:
        names = preset_names()
        near = _near(str(source), names, cutoff=0.5)
        missing = f"no file and no preset is named '{source}'{near} (presets: {', '.join(names)})"
    raise ExperimentError([InputProblem((), missing)])


def _no_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f"there is no file {path}: its folder {path.parent} does not exist"
    files = [str(path.parent / one.name) for one in path.parent.iterdir() if one.suffix in (".yaml", ".yml")]
    return f"there is no file {path}{_near(str(path), files)}"


def _near(name: str, names: Iterable[str], cutoff: float = 0.6) -> str:
    return "".join(f"; did you mean '{one}'?" for one in difflib.get_close_matches(name, names, n=1, cutoff=cutoff))


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ExperimentError([InputProblem((), f"cannot read it: {error.strerror}", str(path))]) from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        message = f"not UTF-8 text: the byte 0x{data[error.start]:02x}; save the file as UTF-8"
        raise ExperimentError([InputProblem((), message, f"{path.name}:{line}")]) from error
