r"""Meta networks: the gradients of the support set's losses become fast weights, which a query reads by attention.

Munkhdalai and Yu, 2017, https://arxiv.org/abs/1703.00837, algorithm 1; i runs over the support set:

    Q*    = d(grad_Q loss_emb(u(Q, x_i), y_i), all i)      fast weights of the embedding, of the task
    r_i   = u(Q, Q*, x_i),    W*_i = m(grad_W loss(b(W, r_i), y_i))             memory: keys r_i, contents W*_i
    W*    = sum_i a_i W*_i,   a = softmax(scale * cos(r_i, r)),    r = u(Q, Q*, x)                   of a query x
    p(y | x) = softmax(b(W, W*, r))

u is the network's body, whose weights are slow alone, and an augmented layer on it. b is an augmented layer and the
softmax layer. d is an LSTM over the examples in their order (or the mean of their gradients and m's form), m a
perceptron. Each is shared by all coordinates. The paper lets b read the raw example or, as here, r.

The slow weights of the softmax layer are fixed, and orthogonal for different classes. The paper fixes them to test on
another number of classes; here it is always so, and any number below ``width`` will do. ``second_order:
false`` takes the gradients as constants in the outer gradient.

Adapting costs n gradients of two small layers, and the LSTM n steps of (features + 1) * width coordinates.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.domains import Bounds, Choice, Int, Learned, Real
from metaloom.learners.episode import Episode, Support
from metaloom.learners.errors import LearnerError
from metaloom.learners.networks.base import Network, linear_parameters
from metaloom.learners.networks.mlp import ACTIVATIONS
from metaloom.learners.solvers.amortized import AmortizedSolver, Embedding, Outputs
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.solvers.model_based import fast_weights
from metaloom.learners.tensors import Tensors, part, under

EMBEDDING, BASE, TASK_READER, EXAMPLE_READER = "embedding", "base", "task_reader", "example_reader"
WEIGHT, BIAS, CLASSES = "weight", "bias", "classes"
Activation = Callable[[Tensor], Tensor]
NEAR = 1e-12  # added to squared distances, whose root has no slope at 0


@dataclass(frozen=True)
class MetaNetworksConfig:
    """The layers with fast weights, and what makes the fast weights.

    Attributes:
        width: Units of the embedding's layer and of the base learner's.
        hidden: Units of the networks that map gradients to fast weights.
        summary: What makes the embedding's fast weights of the examples' gradients: an LSTM, or their mean.
        embedding_loss: Whose gradients those are: of the label, or of pairs of examples (of one class near, of two at
            least ``margin`` apart). The paper takes pairs where a class has several examples.
        margin: Of ``contrastive``.
        p: The range of the preprocessing: gradients below e^-p count as small.
        fast_scale: Times the fast weights.
        scale: Times the cosines before the softmax over the memory.
        activation: The function after each layer.
        second_order: Differentiate the gradients too.
    """

    width: Annotated[int, Int(8, 512, log=True), Bounds(at_least=3)] = 64
    hidden: Annotated[int, Int(1, 256, log=True)] = 20
    summary: Literal["lstm", "mean"] = "lstm"
    embedding_loss: Literal["cross_entropy", "contrastive"] = "cross_entropy"
    margin: Annotated[float, Real(0.1, 100.0, log=True, per=()), Bounds(above=0)] = 1.0
    p: Annotated[float, Real(1.0, 20.0, per=()), Bounds(above=0)] = 7.0
    fast_scale: Annotated[float | Learned, Real(1e-3, 1.0, log=True, positive=True), Bounds(above=0)] = 0.1
    scale: Annotated[float | Learned, Real(0.1, 100.0, log=True, positive=True), Bounds(above=0)] = 10.0
    activation: Annotated[str, Choice(tuple(ACTIVATIONS))] = "relu"
    second_order: bool = True


@SOLVERS.register("meta_networks")
class MetaNetworks(AmortizedSolver):
    """Slow and fast weights in the embedding and in the base learner."""

    config: MetaNetworksConfig
    learns = True
    needs_classes = True
    reads_support = frozenset({"mask"})

    @property
    def approximation(self) -> str:
        return (
            "" if self.config.second_order else "the support set's gradients count as constants (second_order: false)"
        )

    def check(self, hypergradient: str | Mapping[str, Any]) -> None:
        super().check(hypergradient)
        if self.task.outputs >= self.config.width:
            raise LearnerError(
                f"learner.prediction.width: {self.config.width} units, but the task has {self.task.outputs} classes, "
                "each of which has an own direction among them; give more units than classes"
            )

    def parameters(self, network: Network | None, features: tuple[int, ...], generator: Generator) -> Tensors:
        width, hidden = self.config.width, self.config.hidden
        embedding, base = (
            {name.removeprefix("layer."): value for name, value in linear_parameters("layer", *sizes).items()}
            for sizes in ((math.prod(features), width, generator), (width, width, generator))
        )
        recurrent = self.config.summary == "lstm"
        of_task = (fast_weights.summary_parameters if recurrent else fast_weights.reader_parameters)(hidden, generator)
        of_example = fast_weights.reader_parameters(hidden, generator)
        slow = under(EMBEDDING, embedding) | under(BASE, base)
        return slow | under(TASK_READER, of_task) | under(EXAMPLE_READER, of_example)

    def adapt(self, phi: Tensors, embed: Embedding, support: Support) -> Outputs:
        support = support.kept()

        def fit(features: Tensor) -> Outputs:
            model = self._model(phi, features, support.y)
            return lambda queries: model.outputs(model.represented(queries))

        return embed.fitted(support.x, fit)

    def inspect(self, phi: Tensors, embed: Embedding, episode: Episode) -> Tensors:
        """Show the memory's keys, the queries' representations, and the attention of queries to keys."""
        support = episode.support.kept()
        features, queries = embed.beside(support.x)(episode.query_x)
        model = self._model(phi, features, support.y)
        represented = model.represented(queries)
        return {"support": model.keys, "queries": represented, "attention": model.attention(represented)}

    def _model(self, phi: Tensors, features: Tensor, labels: Tensor) -> "FastModel":
        """Make the fast weights of the support set's features [n, d]."""
        activation = ACTIVATIONS[self.config.activation]
        classes = class_directions(self.task.outputs, self.config.width, features)
        slow = part(phi, EMBEDDING)
        fast = self._of_task(phi, slow, features, labels, classes)
        keys = augmented(features, slow, fast, activation)
        base = part(phi, BASE) | {CLASSES: classes}
        contents = self._of_examples(phi, base, keys, labels)
        return FastModel(slow, fast, base, keys, contents, self.knob(phi, "scale"), activation)

    def _of_task(self, phi: Tensors, slow: Tensors, features: Tensor, labels: Tensor, classes: Tensor) -> Tensors:
        """Return the embedding's fast weights."""
        config, activation, net = self.config, ACTIVATIONS[self.config.activation], part(phi, TASK_READER)

        def losses(copies: Tensors, x: Tensor) -> Tensor:
            if config.embedding_loss == "contrastive":
                return contrastive_losses(copies, x, labels, activation, config.margin)
            represented = activation(each_by_its_own(copies, x))
            return F.cross_entropy(represented @ classes.T, labels, reduction="none")

        slopes = fast_weights.gradients(slow, losses, features, second_order=config.second_order)
        if config.summary == "lstm":
            return self._scaled(phi, fast_weights.summarized(net, slopes, config.p))
        means = {name: value.mean(0) for name, value in slopes.items()}
        return self._scaled(phi, fast_weights.read(net, means, config.p, activation))

    def _of_examples(self, phi: Tensors, base: Tensors, keys: Tensor, labels: Tensor) -> Tensors:
        """Return the base learner's fast weights of each example, [n, ...] by name."""
        config, activation = self.config, ACTIVATIONS[self.config.activation]

        def losses(copies: Tensors, x: Tensor) -> Tensor:
            hidden = activation(each_by_its_own(copies, x))
            logits = torch.einsum("nkw,nw->nk", copies[CLASSES], hidden)
            return F.cross_entropy(logits, labels, reduction="none")

        slopes = fast_weights.gradients(base, losses, keys, second_order=config.second_order)
        return self._scaled(phi, fast_weights.read(part(phi, EXAMPLE_READER), slopes, config.p, activation))

    def _scaled(self, phi: Tensors, fast: Tensors) -> Tensors:
        return {name: self.knob(phi, "fast_scale") * value for name, value in fast.items()}


@dataclass(frozen=True)
class FastModel:
    """A task's model.

    Attributes:
        slow: The embedding's slow weights, ``weight`` [width, d] and ``bias`` [width].
        task: Its fast weights.
        base: The base learner's slow weights, ``weight`` [width, width], ``bias`` and ``classes`` [ways, width].
        keys: The support set's representations [n, width].
        contents: The base learner's fast weights of each example, [n, ...].
        scale: Times the cosines.
        activation: After each layer.
    """

    slow: Tensors
    task: Tensors
    base: Tensors
    keys: Tensor
    contents: Tensors
    scale: float | Tensor
    activation: Activation

    def represented(self, features: Tensor) -> Tensor:
        """Map features [q, d] to r [q, width]."""
        return augmented(features, self.slow, self.task, self.activation)

    def attention(self, represented: Tensor) -> Tensor:
        """Return the weight of each example for each query [q, width]: [q, n]."""
        return torch.softmax(self.scale * F.normalize(represented, dim=-1) @ F.normalize(self.keys, dim=-1).T, -1)

    def outputs(self, represented: Tensor) -> Tensor:
        """Return the logits [q, ways] of representations [q, width], each by the fast weights that it reads."""
        read = {name: torch.tensordot(self.attention(represented), value, 1) for name, value in self.contents.items()}
        slow = self.activation(F.linear(represented, self.base[WEIGHT], self.base[BIAS]))
        hidden = slow + self.activation(each_by_its_own(read, represented))
        return hidden @ self.base[CLASSES].T + torch.einsum("qkw,qw->qk", read[CLASSES], hidden)


def augmented(x: Tensor, slow: Tensors, fast: Tensors, activation: Activation) -> Tensor:
    """Apply a layer's slow and fast weights side by side: [n, d] to [n, width]."""
    return activation(F.linear(x, slow[WEIGHT], slow[BIAS])) + activation(F.linear(x, fast[WEIGHT], fast[BIAS]))


def each_by_its_own(weights: Tensors, x: Tensor) -> Tensor:
    """Apply to each example [n, d] its own layer [n, width, d]: [n, width]."""
    return torch.einsum("nwd,nd->nw", weights[WEIGHT], x) + weights[BIAS]


def contrastive_losses(copies: Tensors, x: Tensor, labels: Tensor, activation: Activation, margin: float) -> Tensor:
    """Return each example's mean loss over its pairs with the others (Hadsell et al., 2006), [n]."""
    represented = activation(torch.einsum("nwd,jd->njw", copies[WEIGHT], x) + copies[BIAS][:, None])
    own = represented.diagonal(dim1=0, dim2=1).T[:, None]  # [n, 1, width]
    squares = (represented - own).square().sum(-1)
    short = (margin - (squares + NEAR).sqrt()).clamp_min(0).square()
    losses = torch.where(labels[:, None] == labels, squares, short)
    others = 1 - torch.eye(len(x), dtype=x.dtype, device=x.device)
    return (losses * others).sum(1) / max(len(x) - 1, 1)


def class_directions(ways: int, width: int, like: Tensor) -> Tensor:
    """Return orthonormal rows [ways, width], cosines of 1, 2, ... half waves, each with the mean 0."""
    waves, places = torch.arange(1, ways + 1).double(), torch.arange(width).double() + 0.5
    rows = math.sqrt(2 / width) * torch.cos(math.pi / width * waves[:, None] * places)
    return rows.to(like.device, like.dtype)
