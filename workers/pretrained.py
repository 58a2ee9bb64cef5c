"""Starting weights from an exported bundle: ``initialization: {kind: pretrained, bundle: PATH}``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metaloom.learners.build import SLOTS
from metaloom.learners.knowledge.initialization import FROM_BUNDLE, INITIALIZATIONS
from metaloom.learners.state import FIXED, knowledge_of
from metaloom.learners.tensors import Tensors, under
from metaloom.workers.checkpoint import Knowledge, read_knowledge
from metaloom.workers.errors import BundleError, CheckpointError
from metaloom.workers.manifest import check_file, read_manifest
from metaloom.workers.records.names import META_KNOWLEDGE_FILE

FIELD = "learner.initialization.bundle"


def starts_from_bundle(learner: Mapping[str, Any]) -> bool:
    """Whether a resolved learner section names a bundle to start from."""
    kind = str((learner.get("initialization") or {}).get("kind", ""))
    return kind in INITIALIZATIONS and issubclass(INITIALIZATIONS[kind], FROM_BUNDLE)


def parameters_of(knowledge: Knowledge) -> Tensors:
    """Return the network that inner loops start from, empty if there is none; what nothing moves is in ``fixed/``."""
    theta = knowledge_of(knowledge.phi, SLOTS["initialization"].name) or knowledge.state.theta
    return theta | under(FIXED, knowledge.state.fixed)


def bundle_start(learner: Mapping[str, Any]) -> Tensors | None:
    """Return the parameters in the bundle that a resolved learner section names; None if it names none.

    Raises:
        BundleError: The bundle is not there, damaged, of a newer format, or holds no network.
    """
    if not starts_from_bundle(learner):
        return None
    folder = Path(learner["initialization"]["bundle"])
    if not folder.is_dir():
        raise BundleError(f"{FIELD}: there is no folder {folder}; give the folder that metaloom export has written")
    try:
        signed = read_manifest(folder)["files"]
        check_file(folder, META_KNOWLEDGE_FILE, signed[META_KNOWLEDGE_FILE])
        groups, metadata = read_knowledge(folder / META_KNOWLEDGE_FILE)
        found = parameters_of(Knowledge.of(groups, metadata["step"]))
    except (BundleError, CheckpointError) as problem:
        raise BundleError(f"{FIELD}: {problem}") from problem
    if not found:
        raise BundleError(f"{FIELD}: {folder} holds no network to start from")
    return found
