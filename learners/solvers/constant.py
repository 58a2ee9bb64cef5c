"""The prediction that ignores the query: the mean target of the support set, or the frequencies of its classes."""

import torch
from torch import Tensor

from metaloom.learners.episode import Support
from metaloom.learners.solvers.amortized import Embedding, Outputs
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.solvers.sequential import SequentialSolver
from metaloom.learners.tensors import Tensors


@SOLVERS.register("constant")
class Constant(SequentialSolver):
    """The mean of the support targets for every query; of classes, the logarithm of one more than each one's count."""

    reads = frozenset()

    def adapt(self, phi: Tensors, embed: Embedding, support: Support) -> Outputs:
        if self.task.task_kind.has_classes:
            counts = torch.bincount(support.y, minlength=self.task.outputs)
            answer = torch.log(counts.to(support.x) + 1)  # one more, so that an absent class has a finite logarithm
        else:
            answer = support.y.mean(0)

        def outputs(query_x: Tensor) -> Tensor:
            return answer.expand(query_x.shape[0], -1)

        return outputs
