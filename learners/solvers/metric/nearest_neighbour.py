"""The nearest neighbour, which learns nothing."""

import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.episode import Support
from metaloom.learners.solvers.amortized import Embedding, Outputs
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.solvers.metric.comparisons import COSINE_SCALE
from metaloom.learners.solvers.sequential import SequentialSolver
from metaloom.learners.tensors import Tensors


@SOLVERS.register("nearest_neighbour")
class NearestNeighbour(SequentialSolver):
    """The label of the support example with the largest cosine on the raw inputs; its outputs are 10 times that."""

    reads = frozenset()
    needs_classes = True
    needs_whole = True

    def adapt(self, phi: Tensors, embed: Embedding, support: Support) -> Outputs:
        directions = F.normalize(embed(support.x), dim=-1)

        def outputs(query_x: Tensor) -> Tensor:
            cosines = F.normalize(embed(query_x), dim=-1) @ directions.T  # [queries, n]
            lowest = cosines.new_full((cosines.shape[0], self.task.outputs), -1.0)
            return COSINE_SCALE * lowest.scatter_reduce(1, support.y.expand_as(cosines), cosines, "amax")

        return outputs
