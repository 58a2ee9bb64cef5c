"""Reads the files of an exported bundle, each checked against the manifest that signs it.

A new search starts from the network in a bundle with ``initialization: {kind: pretrained, bundle: PATH}``.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metaloom.learners.build import SLOTS
from metaloom.learners.episode import TaskShape
from metaloom.learners.knowledge.initialization import FROM_BUNDLE, INITIALIZATIONS
from metaloom.learners.state import FIXED, knowledge_of
from metaloom.learners.tensors import Tensors, under
from metaloom.workers.checkpoint import Knowledge
from metaloom.workers.durable import file_facts, is_signed
from metaloom.workers.errors import BundleError, CheckpointError
from metaloom.workers.records.names import MANIFEST_FILE, META_KNOWLEDGE_FILE

FORMAT = 1
BUNDLE_CONFIG_FILE = "config.yaml"
CARD_FILE = "card.md"
FIELD = "learner.initialization.bundle"
_REQUIRED = (BUNDLE_CONFIG_FILE, CARD_FILE, META_KNOWLEDGE_FILE)
_AGAIN = "is damaged; get the bundle again from where it was exported"


def read_manifest(folder: Path, checked: Sequence[str] = ()) -> dict[str, Any]:
    """Read a bundle's manifest, and check these files, by default all, against it.

    Raises BundleError if something is absent, damaged or newer.
    """
    if not folder.is_dir():
        raise BundleError(f"there is no folder {folder}; a bundle is the folder that 'metaloom export' has written")
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_text())
    except (OSError, ValueError) as problem:
        raise BundleError(f"{folder}: not a bundle: its {MANIFEST_FILE} cannot be read ({problem})") from problem
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        raise BundleError(f"{folder}: not a bundle: its {MANIFEST_FILE} names no format")
    if manifest["format"] > FORMAT:
        raise BundleError(f"{folder}: bundle format {manifest['format']}; this metaloom reads up to {FORMAT}")
    if not is_signed(manifest):
        raise BundleError(f"{folder}: {MANIFEST_FILE} {_AGAIN}")
    if absent := [name for name in _REQUIRED if name not in manifest["files"]]:
        raise BundleError(f"{folder}: not a bundle: it has no {', '.join(absent)}")
    for name in checked or manifest["files"]:
        if Path(name).name != name:
            raise BundleError(f"{folder}: {MANIFEST_FILE} names a file outside of it: {name}")
        try:
            facts = file_facts((folder / name).read_bytes())
        except OSError as problem:
            raise BundleError(f"{folder}: {name} is missing ({problem.strerror})") from problem
        if facts != manifest["files"][name]:
            raise BundleError(f"{folder}: {name} {_AGAIN}")
    return dict(manifest)


def read_task(path: Path) -> TaskShape:
    """Read the shape of a trial's tasks; raises BundleError if it cannot be read."""
    try:
        return task_of(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as problem:
        raise BundleError(f"{path}: the trial's task cannot be read ({problem})") from problem


def task_of(document: Mapping[str, Any]) -> TaskShape:
    """Return a task's shape from JSON values; raises TypeError for a field that it does not have."""
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in document.items()}
    if values.get("environment"):
        values["kind"] = "control"  # version 0.1.0 wrote "regression" together with the environment
    return TaskShape(**values)


def parameters_of(knowledge: Knowledge) -> Tensors:
    """Return the network that inner loops start from, empty if there is none; constant tensors are in ``fixed/``."""
    theta = knowledge_of(knowledge.phi, SLOTS["initialization"].name) or knowledge.state.theta
    return theta | under(FIXED, knowledge.state.fixed)


def bundle_start(learner: Mapping[str, Any]) -> Tensors | None:
    """Return the parameters in the bundle that a resolved learner section names; None if it names none.

    Raises:
        BundleError: The bundle is absent, damaged, of a newer format, or has no network.
    """
    initialization = learner.get("initialization") or {}
    kind = str(initialization.get("kind", ""))
    if kind not in INITIALIZATIONS or not issubclass(INITIALIZATIONS[kind], FROM_BUNDLE):
        return None
    folder = Path(initialization["bundle"])
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
