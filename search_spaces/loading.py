"""From a file, a preset's name or Python values to a checked experiment."""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metaloom.search_spaces.errors import ExperimentError, InputProblem
from metaloom.search_spaces.experiment import DEFAULT_NAME, FINGERPRINT_VERSION, Experiment
from metaloom.search_spaces.reading.document import MAX_BYTES, Document, read_yaml
from metaloom.search_spaces.reading.overrides import with_overrides
from metaloom.search_spaces.reading.plain import plain
from metaloom.search_spaces.reading.presets import preset_names, preset_path


def load_experiment(
    source: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    fingerprint_version: int = FINGERPRINT_VERSION,
) -> Experiment:
    """Read an experiment and check all of it.

    Args:
        source: A YAML file, the name of a preset, or a mapping of sections.
        overrides: ``PATH=VALUE`` each, as for ``--set``.
        fingerprint_version: What the journal of a stored search holds: the experiment is read as it was then.

    Raises:
        ExperimentError: With every problem: its file and line, its path, what was given, what is
            allowed. Nothing has been started or written.
    """
    if isinstance(source, Mapping):
        document = Document(plain(dict(source)))
    else:
        path = find_experiment(source)
        document = read_yaml(_read(path), path.name)
        document.data.setdefault("name", _name_of(path))
    return Experiment.from_document(with_overrides(document, overrides), fingerprint_version)


def find_experiment(source: str | Path) -> Path:
    """Return the file that a path or a preset's name means; raises ExperimentError with the nearest of either."""
    path = Path(source)
    if path.is_file():
        return path
    if isinstance(source, str) and source in preset_names():
        return preset_path(source)
    if path.is_dir():
        raise ExperimentError([InputProblem((), f"{source} is a folder; name the experiment's file in it")])
    looks_like_file = path.suffix in (".yaml", ".yml") or len(path.parts) > 1
    raise ExperimentError([InputProblem((), _no_file(path) if looks_like_file else _no_preset(str(source)))])


def _no_file(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"there is no file {path}: its folder {folder} does not exist"
    files = [one.name for one in folder.iterdir() if one.suffix in (".yaml", ".yml")]
    near = difflib.get_close_matches(path.name, files, n=1)
    return f"there is no file {path}" + (f"; did you mean '{folder / near[0]}'?" if near else "")


def _no_preset(name: str) -> str:
    known = preset_names()
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return f"no file and no preset is named '{name}'{hint} (presets: {', '.join(known)})"


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


def _name_of(path: Path) -> str:
    """Make a search's name from a file's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).lstrip(".-")[:80] or DEFAULT_NAME
