"""What a finished trial leaves: its meta-knowledge, and what its learner shows of one held-out episode."""

from pathlib import Path

from metaloom.workers.checkpoint import Knowledge, write_knowledge
from metaloom.workers.data.base import TaskSource
from metaloom.workers.device import Device
from metaloom.workers.records.names import EPISODE_FILE, META_KNOWLEDGE_FILE, VALIDATION
from metaloom.workers.shown import write_shown
from metaloom.workers.ways import LearnersByWays, ways_of_split


def write_finished(
    directory: Path, knowledge: Knowledge, learners: LearnersByWays, source: TaskSource, device: Device
) -> None:
    """Write what a trial has learned, and what may be drawn of its first validation episode, if anything.

    The test split stays unread until the test.

    Args:
        directory: The trial's.
        knowledge: What it ends with, on ``device``.
        learners: The trial's learners.
        source: Where its episodes come from.
        device: Where it computes.
    """
    write_knowledge(directory / META_KNOWLEDGE_FILE, knowledge.groups(), {"step": str(knowledge.step)})
    at = learners.at(ways_of_split(source, VALIDATION))
    episode = source.episode(VALIDATION, 0).episode.to(device.torch, device.dtype)
    with device.precision():
        shown = at.learner.inspect(knowledge.phi, at.state(knowledge.state, device), episode)
    if shown:
        write_shown(directory / EPISODE_FILE, shown, knowledge.step)
