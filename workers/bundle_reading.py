"""Reads the files of an exported bundle, each checked against the manifest that signs it.

A new search starts from the network in a bundle with ``initialization: {kind: pretrained, bundle: PATH}``.
"""

import json
import logging
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from metaloom.learners.build import SLOTS
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import shown
from metaloom.learners.knowledge.initialization import FROM_BUNDLE, INITIALIZATIONS, stages_of
from metaloom.learners.networks.ensemble import ENSEMBLE, side_by_side
from metaloom.learners.redaction import on_one_line
from metaloom.learners.state import FIXED, RUNNING, knowledge_of
from metaloom.learners.tensors import Tensors, under
from metaloom.workers.checkpoint import Knowledge, check_header
from metaloom.workers.durable import ASIDE, facts_of_file, is_signed
from metaloom.workers.errors import BundleError, CheckpointError
from metaloom.workers.records.names import MANIFEST_FILE, META_KNOWLEDGE_FILE

FORMAT = 2  # what is read; format 2 says that the bundle is served inductively, and 1 is written elsewhere
PLAIN_FORMAT = 1
BUNDLE_CONFIG_FILE = "config.yaml"
CARD_FILE = "card.md"
TIMINGS_FILE = "timings.json"  # measured seconds, which no manifest signs
MLFLOW_FILE = "registered_model_meta"  # that MLflow adds when it loads a registered bundle
FIELD = "learner.initialization.bundle"
_REQUIRED = (BUNDLE_CONFIG_FILE, CARD_FILE, META_KNOWLEDGE_FILE)
_AGAIN = "is damaged; get the bundle again from where it was exported"
MOST_TEXT_BYTES = 4 << 20  # of the manifest and other texts, which are a few kB
_LARGE = (".safetensors", ".parquet", ".png")
# Everything that export writes beside the manifest. Whatever else is signed, such as a pickle, is refused.
_ALLOWED = re.compile(
    r"config\.yaml|card\.md|meta_knowledge\.safetensors|shown_episode\.safetensors|augmentation\.json|"
    r"test_episodes\.parquet|MLmodel|requirements\.txt|figure-[a-z0-9-]{1,80}\.png"
)
_FIELDS: dict[str, tuple[tuple[type, ...], str]] = {
    "metaloom": ((str,), "a version"),
    "origin": ((dict,), "a mapping"),
    "evaluation": ((dict, type(None)), "a mapping or null"),
    "notes": ((list,), "a list of texts"),
    "files": ((dict,), "a mapping of files"),
}
# fields of a task that an earlier version does not know, with their defaults
LATER: dict[str, Any] = {
    "class_features": None,
    "observed": False,
    "environment_settings": {},
    "parameters": (),
    "groups": (),
}
logger = logging.getLogger("metaloom.bundle")


def read_manifest(folder: Path, checked: Sequence[str] = ()) -> dict[str, Any]:
    """Read a bundle's manifest, and check these files, by default all, against it.

    A file is opened only if it is a regular one of the size that the manifest names. Files that the manifest does not
    name are reported as a warning, and never opened.

    Raises BundleError if something is absent, damaged, newer, or nothing that a bundle may hold.
    """
    if not folder.is_dir():
        raise BundleError(f"there is no folder {folder}; a bundle is the folder that 'metaloom export' has written")
    present = _present(folder)
    manifest = _manifest(folder / MANIFEST_FILE)
    if absent := [name for name in _REQUIRED if name not in manifest["files"]]:
        raise BundleError(f"{folder}: not a bundle: it has no {', '.join(absent)}")
    for name, facts in manifest["files"].items():
        if not checked or name in checked:
            _check_file(folder, name, facts, present.get(name))
    if extra := sorted(
        on_one_line(name) for name in present.keys() - {MANIFEST_FILE, TIMINGS_FILE, MLFLOW_FILE, *manifest["files"]}
    ):
        logger.warning("%s holds what its manifest does not name, and is not read: %s", folder, ", ".join(extra[:5]))
    return manifest


def _present(folder: Path) -> dict[str, os.stat_result]:
    """Return what is in the folder; raises BundleError for a symbolic link, which could lead out of it."""
    found: dict[str, os.stat_result] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                raise BundleError(f"{folder}: {on_one_line(entry.name)} is a symbolic link; a bundle holds files alone")
            found[entry.name] = entry.stat(follow_symlinks=False)
    return found


def _manifest(path: Path) -> dict[str, Any]:
    """Read the manifest and check each field's type; raises BundleError with the field."""
    where = path.parent
    try:
        if path.stat().st_size > MOST_TEXT_BYTES:
            raise ValueError(f"it is larger than {MOST_TEXT_BYTES >> 20} MiB")
        manifest = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)
    except (OSError, ValueError, RecursionError) as problem:
        raise BundleError(f"{where}: not a bundle: its {MANIFEST_FILE} cannot be read ({problem})") from problem
    given = manifest.get("format") if isinstance(manifest, dict) else None
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise BundleError(f"{where}: not a bundle: its {MANIFEST_FILE} names no format (format: a number from 1)")
    if given > FORMAT:
        raise BundleError(f"{where}: bundle format {given}; this metaloom reads up to {FORMAT}")
    if not is_signed(manifest):
        raise BundleError(f"{where}: {MANIFEST_FILE} {_AGAIN}")
    for field, (kinds, allowed) in _FIELDS.items():
        if not isinstance(manifest.get(field), kinds):
            raise BundleError(
                f"{where}: {MANIFEST_FILE}: {field}: got {shown(manifest.get(field))}; allowed: {allowed}"
            )
    if any(not isinstance(note, str) for note in manifest["notes"]):
        raise BundleError(f"{where}: {MANIFEST_FILE}: notes: got {shown(manifest['notes'])}; allowed: a list of texts")
    for name, facts in manifest["files"].items():
        _check_entry(where, name, facts)
    return dict(manifest)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if twice := sorted({on_one_line(name) for name in names if names.count(name) > 1}):
        raise ValueError(f"{', '.join(twice)} is given twice")
    return dict(pairs)


def may_be_in_bundle(name: str) -> bool:
    """Return whether export writes a file of this name, or has it aside while it writes."""
    plain = re.sub(rf"^{re.escape(ASIDE)}[0-9]+-", "", name)
    return plain in (MANIFEST_FILE, TIMINGS_FILE) or _ALLOWED.fullmatch(plain) is not None


def _check_entry(where: Path, name: str, facts: Any) -> None:
    """Refuse a name that no bundle has, and facts that are no digest and size."""
    field = f"{where}: {MANIFEST_FILE}: files: {on_one_line(name)}"
    if not _ALLOWED.fullmatch(name):
        is_outside = Path(name).name != name
        reason = "names a file outside of it" if is_outside else "a file that a bundle does not hold"
        raise BundleError(f"{field}: {reason}; get the bundle again from where it was exported")
    size = facts.get("bytes") if isinstance(facts, dict) else None
    if not isinstance(size, int) or isinstance(size, bool) or not isinstance(facts.get("sha256"), str):
        raise BundleError(f"{field}: got {shown(facts)}; allowed: its sha256 and its number of bytes")
    if size > MOST_TEXT_BYTES and not name.endswith(_LARGE):
        raise BundleError(f"{field}: {size} bytes; allowed: up to {MOST_TEXT_BYTES >> 20} MiB")


def _check_file(folder: Path, name: str, facts: Mapping[str, Any], state: os.stat_result | None) -> None:
    """Compare a file with its facts, its size first; raises BundleError."""
    if state is None:
        raise BundleError(f"{folder}: {name} is missing")
    if not stat.S_ISREG(state.st_mode):
        raise BundleError(f"{folder}: {name} is no file; get the bundle again from where it was exported")
    if state.st_size != facts["bytes"]:
        raise BundleError(f"{folder}: {name} {_AGAIN}")
    try:
        if name == META_KNOWLEDGE_FILE:
            check_header(folder / name)
        found = facts_of_file(folder / name)
    except (OSError, CheckpointError) as problem:
        raise BundleError(f"{folder}: {name} cannot be read ({problem})") from problem
    if found != facts:
        raise BundleError(f"{folder}: {name} {_AGAIN}")


def read_task(path: Path) -> TaskShape:
    """Read the shape of a trial's tasks; raises BundleError if it cannot be read."""
    try:
        return task_of(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as problem:
        raise BundleError(f"{path}: the trial's task cannot be read ({problem})") from problem


def task_document(task: TaskShape) -> dict[str, Any]:
    """Return a task's shape as JSON values; without the fields of ``LATER`` at their defaults."""
    document = asdict(task)
    return {name: value for name, value in document.items() if name not in LATER or value != LATER[name]}


def task_of(document: Mapping[str, Any]) -> TaskShape:
    """Return a task's shape from JSON values; raises TypeError for a field that it does not have."""
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in document.items()}
    if values.get("class_features") is not None:
        values["class_features"] = task_of(values["class_features"])
    if values.get("environment"):
        values["kind"] = "control"  # version 0.1.0 wrote "regression" together with the environment
    return TaskShape(**values)


def check_targets(trained: TaskShape, now: TaskShape, where: Path) -> None:
    """Refuse to score a learner on targets of another scale than those it was trained on; raises BundleError."""
    if (trained.target_mean, trained.target_deviation) != (now.target_mean, now.target_deviation):
        learned = "standardized by other training rows" if trained.target_deviation else "as they stand"
        advice = "train it again" if trained.target_deviation else "give tasks.standardize: false, or train it again"
        raise BundleError(f"{where}: it was trained on targets {learned}, and its data now give others; {advice}")


def parameters_of(knowledge: Knowledge) -> Tensors:
    """Return the network that inner loops start from, empty if there is none.

    Its constant tensors are in ``fixed/``, batch norm's running statistics in ``running/``.
    """
    state = knowledge.state
    theta = state.theta | knowledge_of(knowledge.phi, SLOTS["initialization"].name)
    return theta | under(FIXED, state.fixed) | under(RUNNING, state.running) if theta else under(FIXED, state.fixed)


def bundle_start(learner: Mapping[str, Any], stages: Mapping[str, Tensors] = MappingProxyType({})) -> Tensors | None:
    """Return the network in the bundle that a resolved learner section names; None if it names none.

    Several bundles are the members of an ensemble. Where it names a stage, its network is in ``stages``.

    Raises:
        BundleError: The bundle is absent, damaged, of a newer format, or has no network; there are not as many as
            members.
    """
    initialization = learner.get("initialization") or {}
    kind = str(initialization.get("kind", ""))
    if kind not in INITIALIZATIONS or not issubclass(INITIALIZATIONS[kind], FROM_BUNDLE):
        return None
    given, architecture = initialization["bundle"], learner.get("architecture") or {}
    if isinstance(given, str):
        return _start_at(given, stages)
    members = architecture.get("members") if architecture.get("kind") == ENSEMBLE else 1
    if len(given) != members:
        raise BundleError(
            f"{FIELD}: got {len(given)} bundles for {members} network{'' if members == 1 else 's'}; "
            "several bundles are the members of learner.architecture: {kind: ensemble, members: N}"
        )
    return side_by_side([_start_at(one, stages) for one in given])


def _start_at(given: str, stages: Mapping[str, Tensors]) -> Tensors:
    for name in stages_of(given):
        if name not in stages:
            raise BundleError(f"{FIELD}: stage '{name}' is not trained here; its bundle is the folder to give")
        return stages[name]
    return network_in(Path(given))


def network_in(folder: Path) -> Tensors:
    """Return the network in a bundle; raises BundleError if it is absent, damaged, of a newer format, or has none."""
    if not folder.is_dir():
        raise BundleError(f"{FIELD}: there is no folder {folder}; give the folder that metaloom export has written")
    try:
        read_manifest(folder, [META_KNOWLEDGE_FILE])
        parameters = parameters_of(Knowledge.read(folder / META_KNOWLEDGE_FILE))
    except (BundleError, CheckpointError) as problem:
        raise BundleError(f"{FIELD}: {problem}") from problem
    if not parameters:
        raise BundleError(f"{FIELD}: {folder} holds no network to start from")
    return parameters
