r"""Embarrassingly simple zero-shot learning.

Romera-Paredes and Torr, 2015, https://proceedings.mlr.press/v37/romera-paredes15.html, section 3.1:

    V = (X^T X / n + gamma I)^-1 (X^T Y / n) S (S^T S + lambda I)^-1,    scores(x) = x V s_k

X [n, d] are the examples of the training classes, Y [n, z] is +1 at an example's class and -1 elsewhere, S [z, a] has
the features of the z training classes, and s_k those of a new class k. The sums over examples are added up while the
trial trains, from the query sets of its episodes, so that memory does not grow with the data. They are divided by n:
the paper's gamma is n times ours. No step of gradient descent is taken, unless gamma or lambda is learned.

A learned gamma or lambda is judged as a new class will be: the training classes are divided into folds, and the
queries of a fold are predicted among the classes of that fold, by the V of all the others. Without that, the smallest
penalty would win, since the classes that are judged would be those that are fitted.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.base import MetaStep
from metaloom.learners.domains import Bounds, Int, Learned, Real
from metaloom.learners.episode import Episode, Episodes, Support
from metaloom.learners.errors import LearnerError
from metaloom.learners.solvers.amortized import AmortizedLearner, AmortizedSolver, Embedding, Judged, Outputs
from metaloom.learners.solvers.base import CLASS_FEATURES, SOLVERS, Parts
from metaloom.learners.state import LearnerState
from metaloom.learners.tensors import Tensors, as_leaves, derivative

Penalty = Annotated[float | Learned, Real(1e-6, 1e3, log=True, positive=True)]


@dataclass(frozen=True)
class EszslConfig:
    """The penalties of the closed form, and what it is fitted to.

    Attributes:
        gamma: Penalty on the side of the examples, for each example.
        lambda_: Penalty on the side of the classes.
        unit: Whether examples and features of classes are scaled to length 1 first.
        temperature: What the scores are divided by before the softmax.
        folds: Folds of the training classes, by which learned penalties are judged.
    """

    gamma: Penalty = 0.01
    lambda_: Penalty = 0.1
    unit: bool = True
    temperature: Annotated[float | Learned, Real(0.001, 100.0, log=True, positive=True)] = 1.0
    folds: Annotated[int, Int(2, 10), Bounds(at_least=2)] = 4


class Sums(NamedTuple):
    """What the closed form needs of the training classes, for each fold of them.

    Attributes:
        gram: X^T X [folds, d, d].
        cross: The sum of x s_y^T over the examples [folds, d, a].
        total: The sum of the examples [folds, d].
        examples: How many they are [folds].
        classes: The features of each training class [classes, a].
        seen: Which training classes have been seen [classes].
    """

    gram: Tensor
    cross: Tensor
    total: Tensor
    examples: Tensor
    classes: Tensor
    seen: Tensor

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Sums":
        """Read what ``_asdict`` gives."""
        return cls(**{name: tensors[name] for name in cls._fields})


@SOLVERS.register("eszsl")
class Eszsl(AmortizedSolver):
    """A bilinear score of an example and the features of a class, in closed form; on the examples as they are."""

    Config = EszslConfig
    config: EszslConfig
    reads = frozenset()
    needs_classes = True
    describes = True
    reads_support = frozenset({CLASS_FEATURES})

    def adapt(self, phi: Tensors, embed: Embedding, support: Support) -> Outputs:
        """Return the scores of the closed form; ``phi`` holds the sums too, unless nothing has been seen."""
        classes, weights = self._classes(support), self._fitted(phi)

        def outputs(query_x: Tensor) -> Tensor:
            x = self.scaled(query_x)
            if weights is None:
                return x.new_zeros(len(x), len(classes))
            return x @ weights @ classes.T / self.knob(phi, "temperature")

        return outputs

    def inspect(self, phi: Tensors, embed: Embedding, episode: Episode) -> Tensors:
        """Return V s_k of each class, the scaled queries, and how long the column of V of each feature is.

        ``prototypes`` [ways, d], ``queries`` [queries, d], ``attribute_weights`` [class features].
        """
        classes, queries, weights = self._classes(episode.support), self.scaled(episode.query_x), self._fitted(phi)
        weights = queries.new_zeros(queries.shape[1], classes.shape[1]) if weights is None else weights
        return {"prototypes": classes @ weights.T, "queries": queries, "attribute_weights": weights.norm(dim=0)}

    def _classes(self, support: Support) -> Tensor:
        assert support.class_features is not None  # ``check_support`` has refused others
        return self.scaled(support.class_features)

    def _fitted(self, phi: Tensors) -> Tensor | None:
        """Return V of all folds; None before any example has been seen."""
        return self.weights(phi, Sums.of(phi), list(range(self.config.folds))) if "gram" in phi else None

    def scaled(self, x: Tensor) -> Tensor:
        """Return rows as the closed form takes them: flat, and of length 1 if so set."""
        return F.normalize(x.flatten(1), dim=-1) if self.config.unit else x.flatten(1)

    def weights(self, phi: Tensors, sums: Sums, folds: list[int]) -> Tensor:
        """Return V [d, a] of some folds of the training classes; zeros if these have no example."""
        count, dtype = sums.examples[folds].sum(), sums.gram.dtype
        own = torch.isin(torch.arange(len(sums.seen)) % self.config.folds, torch.tensor(folds)).to(sums.seen.device)
        known = sums.classes[sums.seen & own].double()  # [z, a]
        if not len(known):
            return sums.cross.new_zeros(sums.cross.shape[1:])
        # in float64: with a small penalty float32 would lose most digits of the solution
        gram = sums.gram[folds].sum(0).double() / count
        cross = 2 * sums.cross[folds].sum(0) - torch.outer(sums.total[folds].sum(0), known.sum(0).to(dtype))
        left = torch.linalg.solve(gram + self.knob(phi, "gamma") * _eye(gram), cross.double() / count)
        right = known.T @ known
        found: Tensor = torch.linalg.solve(right + self.knob(phi, "lambda_") * _eye(right), left.T).T
        return found.to(dtype)

    def added(self, sums: Sums | None, episodes: Episodes) -> Sums:
        """Return the sums with the queries of training episodes added."""
        for episode in episodes:
            sums = self._with(self._zeros(episode) if sums is None else sums, episode)
        assert sums is not None  # an outer step has an episode
        return sums

    def _zeros(self, episode: Episode) -> Sums:
        folds, x = self.config.folds, episode.query_x
        d, a = math.prod(self.task.inputs), self._classes(episode.support).shape[1]
        return Sums(
            gram=x.new_zeros(folds, d, d),
            cross=x.new_zeros(folds, d, a),
            total=x.new_zeros(folds, d),
            examples=x.new_zeros(folds),
            classes=x.new_zeros(self.task.classes, a),
            seen=torch.zeros(self.task.classes, dtype=torch.bool, device=x.device),
        )

    def _with(self, sums: Sums, episode: Episode) -> Sums:
        if episode.class_ids is None:
            raise LearnerError(f"learner.prediction: {self.name} needs to know the training classes of its episodes")
        x, classes = self.scaled(episode.query_x), self._classes(episode.support)
        of_queries = episode.class_ids[episode.query_y] % self.config.folds
        by_fold = [of_queries == fold for fold in range(self.config.folds)]
        return Sums(
            sums.gram + torch.stack([x[one].T @ x[one] for one in by_fold]),
            sums.cross + torch.stack([x[one].T @ classes[episode.query_y[one]] for one in by_fold]),
            sums.total + torch.stack([x[one].sum(0) for one in by_fold]),
            sums.examples + torch.stack([one.sum() for one in by_fold]).to(x),
            sums.classes.index_copy(0, episode.class_ids, classes),
            sums.seen.index_fill(0, episode.class_ids, True),
        )

    def judged(self, phi: Tensors, sums: Sums, episode: Episode) -> Judged:
        """Judge the queries of a training episode, each among its fold's classes, by the V of the other folds."""
        assert episode.class_ids is not None  # ``added`` has refused others
        x, classes = self.scaled(episode.query_x), self._classes(episode.support)
        of_classes = episode.class_ids % self.config.folds  # [ways]
        of_queries = of_classes[episode.query_y]
        outputs = x.new_zeros(len(x), len(classes))
        for fold in sorted(set(of_classes.tolist())):
            others = [one for one in range(self.config.folds) if one != fold]
            scores = x @ self.weights(phi, sums, others) @ classes.T / self.knob(phi, "temperature")
            outputs = torch.where((of_queries == fold).unsqueeze(1), scores, outputs)
        outputs = outputs.masked_fill(of_queries.unsqueeze(1) != of_classes, -math.inf)
        kind = self.task.task_kind
        return Judged(kind.outer(outputs, episode.query_y), kind.score(outputs.detach(), episode.query_y))

    def learner(self, parts: Parts) -> "EszslLearner":
        return EszslLearner(self, parts)


class EszslLearner(AmortizedLearner):
    """The learner whose state is the sums over all training examples that it has seen."""

    solver: Eszsl
    online = True  # the sums persist from one outer step to the next, whether or not anything is learned

    def begin(self, phi: Tensors, generator: Generator) -> LearnerState:
        return LearnerState()

    def meta_step(self, phi: Tensors, state: LearnerState, episodes: Episodes, generator: Generator) -> MetaStep:
        for episode in episodes:
            self.solver.check_support(episode.support)
        sums, leaves = self.solver.added(_sums(state), episodes), as_leaves(phi)
        own = super()._own(leaves, state)
        judged = [self.solver.judged(own, sums, episode) for episode in episodes]
        loss = torch.stack([one.loss for one in judged]).mean()
        return self._taken(judged, derivative(loss, leaves) if leaves else {}, state)

    def advance(self, phi: Tensors, state: LearnerState, episodes: Episodes, generator: Generator) -> LearnerState:
        return replace(state, running=self.solver.added(_sums(state), episodes)._asdict())

    def _own(self, phi: Tensors, state: LearnerState) -> Tensors:
        return super()._own(phi, state) | state.running


def _sums(state: LearnerState) -> Sums | None:
    return Sums.of(state.running) if state.running else None


def _eye(matrix: Tensor) -> Tensor:
    return torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
