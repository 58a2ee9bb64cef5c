"""The file of what a learner shows of an episode, such as its attention: of a finished trial, and in a bundle."""

import logging
from pathlib import Path

from metaloom.learners.tensors import Tensors
from metaloom.workers.checkpoint import read_knowledge, write_knowledge
from metaloom.workers.errors import CheckpointError

_LOG = logging.getLogger("metaloom.shown")
_GROUP = "shown"


def write_shown(path: Path, shown: Tensors, step: int) -> None:
    """Write what is shown of an episode, by the names of ``AmortizedSolver.inspect``; raises StorageError.

    Args:
        path: The file.
        shown: The tensors.
        step: The outer step of the knowledge that they were made with.
    """
    write_knowledge(path, {_GROUP: shown}, {"step": str(step)})


def read_shown(path: Path) -> Tensors:
    """Read what ``write_shown`` wrote; nothing where there is no file, or, with a warning, a damaged one."""
    if not path.exists():
        return {}
    try:
        return read_knowledge(path)[0].get(_GROUP, {})
    except CheckpointError as damage:
        _LOG.warning("nothing of an episode is drawn: %s", damage)
        return {}
