"""The folder of an adapted model: a copy of its bundle, and the support set that it was adapted to.

Opening it adapts again, which gives the same model on the same machine, whatever the method; nothing is unpickled. The
support set is in it: who gets the folder can read the examples.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from metaloom.learners.tensors import Tensors
from metaloom.workers.bundle_reading import read_manifest
from metaloom.workers.checkpoint import read_knowledge, write_knowledge
from metaloom.workers.durable import storage_error, write_text
from metaloom.workers.errors import BundleError, CheckpointError
from metaloom.workers.records.names import MANIFEST_FILE

SUPPORT_FILE = "support.safetensors"
BUNDLE_FOLDER = "bundle"
MLMODEL_FILE = "MLmodel"
MLMODEL = {"flavors": {"python_function": {"loader_module": "metaloom.workers.bundle"}}}
_GROUP, _FACTS = "support", "adapted"


def is_adapted(folder: Path) -> bool:
    """Return whether a folder is one of an adapted model."""
    return (folder / SUPPORT_FILE).is_file()


def write_adapted(folder: Path, bundle: Path, support: Tensors, labels: NDArray[Any], facts: Mapping[str, Any]) -> Path:
    """Write an adapted model, and return its folder, which must not exist.

    Args:
        folder: The new folder.
        bundle: The folder of the bundle that was adapted.
        support: The support set's tensors, by field.
        labels: Its labels, in the order of their numbers; empty in regression.
        facts: What else adapting again needs, as JSON values.

    Raises:
        BundleError: The folder exists, the bundle is gone or damaged, or the labels are neither texts nor numbers.
        StorageError: It cannot be written.
    """
    if folder.exists():
        raise BundleError(f"{folder}: exists already; an adapted model is never written over (give another folder)")
    if labels.dtype.kind not in "biufUO" or not all(isinstance(one, str | int | float) for one in labels.tolist()):
        raise BundleError(f"{folder}: labels of {labels.dtype} cannot be kept; give texts or numbers")
    manifest = read_manifest(bundle)
    named = {"labels": labels.tolist(), "dtype": str(labels.dtype), **facts}
    try:
        (folder / BUNDLE_FOLDER).mkdir(parents=True)
        for name in (*manifest["files"], MANIFEST_FILE):
            shutil.copyfile(bundle / name, folder / BUNDLE_FOLDER / name)
        write_text(folder / MLMODEL_FILE, yaml.safe_dump(MLMODEL))
        write_knowledge(folder / SUPPORT_FILE, {_GROUP: support}, {"step": "0", _FACTS: json.dumps(named)})
    except OSError as problem:
        shutil.rmtree(folder, ignore_errors=True)
        raise storage_error(folder, problem) from problem
    return folder


def read_adapted(folder: Path) -> tuple[Tensors, NDArray[Any], dict[str, Any]]:
    """Return the support set's tensors, its labels and the other facts; raises BundleError if they are damaged."""
    try:
        groups, metadata = read_knowledge(folder / SUPPORT_FILE)
        facts = json.loads(metadata[_FACTS])
        labels = np.array(facts.pop("labels"), dtype=np.dtype(facts.pop("dtype")))
        return groups[_GROUP], labels, facts
    except (CheckpointError, KeyError, TypeError, ValueError) as problem:
        raise BundleError(f"{folder}: no adapted model can be read ({problem})") from problem
