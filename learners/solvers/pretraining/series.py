"""What pre-training on series shares: it refuses other examples, and cuts off padding that no series of a batch needs.

The series of many data sets are padded to the longest of all, and a batch is of one data set. A network whose features
do not depend on padding (``Network.any_length``) gives the same without it, and a recurrent one takes as many steps as
it reads.
"""

from dataclasses import replace

from metaloom.learners.episode import Episode, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.networks.series.observed import observed_length
from metaloom.learners.solvers.amortized import Embedding, Judged
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.solvers.pretraining.base import PretrainingConfig, PretrainingSolver, all_examples
from metaloom.learners.tensors import Tensors


class SeriesPretraining(PretrainingSolver):
    """Pre-training that reads series alone, and draws nothing."""

    def __init__(self, config: PretrainingConfig, task: TaskShape) -> None:
        super().__init__(config, task)
        if len(task.inputs) != 2:
            raise LearnerError(
                f"learner.prediction: {SOLVERS.name_of(type(self))} reads series [channels, length], but this task's "
                f"examples have shape {task.inputs}; use a source of series, such as tasks.source: ucr"
            )

    @property
    def random(self) -> bool:
        return False

    def loss(self, phi: Tensors, embed: Embedding, episode: Episode) -> Judged:
        if embed.network is not None and embed.network.any_length:
            length = observed_length(all_examples(episode), self.task)
            support = replace(episode.support, x=episode.support_x[..., :length])
            episode = replace(episode, support=support, query_x=episode.query_x[..., :length])
        return super().loss(phi, embed, episode)
