r"""Language models: predict each token of a text from those before it.

Radford, Narasimhan, Salimans and Sutskever, 2018, Improving language understanding by generative pre-training, section
3.1, equations 1 and 2:

    L = - mean over t of log P(x_t | x_1 .. x_{t-1}),   P = softmax(E h_{t-1} + b)

h are the states of a network that sees no later token, E its embedding (``tied``) or a matrix of its own. The first
token of a text is given, what fills it up is left out, and the mean is over all other tokens of the episode, so that
long texts count more. Unlike in the paper, no token marks the start and the end of a text, and a task reads the average
of the states, not the last one. Cost: one pass forward and back, with one product of width and vocabulary for each
token, and one pass without a gradient.
"""

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.episode import Episode
from metaloom.learners.errors import LearnerError
from metaloom.learners.networks.base import ARCHITECTURES, Network, linear_parameters
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.networks.sequence import SequenceNetwork
from metaloom.learners.networks.tokens import PADDING, token_count
from metaloom.learners.solvers.amortized import AmortizedLearner, Embedding
from metaloom.learners.solvers.base import SOLVERS, Parts
from metaloom.learners.solvers.pretraining.base import PretrainingConfig, PretrainingSolver, all_examples
from metaloom.learners.tensors import Tensors

SHOWN = 8  # texts of an episode whose tokens are shown
DECODER = "decoder"
FIELD = "learner.architecture"


@dataclass(frozen=True)
class LanguageModelConfig(PretrainingConfig):
    """How the next token is predicted.

    Attributes:
        tied: The scores of the tokens are products with the network's own embedding; otherwise with a matrix of their
            own, which is dropped when the network is handed on.
    """

    tied: bool = True


@SOLVERS.register("language_model")
class LanguageModel(PretrainingSolver):
    """Predicts the next token by a causal network of text."""

    config: LanguageModelConfig

    def learner(self, parts: Parts) -> AmortizedLearner:
        network = parts.components.get("architecture")
        if not token_count(self.task):
            raise LearnerError(
                "learner.prediction: language_model predicts the tokens of text, but this task's examples are numbers "
                f"of shape {self.task.inputs}; use a source of text, such as tasks.source: text"
            )
        if not isinstance(network, SequenceNetwork):
            kind = ARCHITECTURES.name_of(type(network))
            able = [name for name, one in ARCHITECTURES.items() if issubclass(one, SequenceNetwork)]
            raise LearnerError(
                f"{FIELD}: language_model needs a network with features at each place of a text, got {kind}; use "
                f"{' or '.join(able)} with causal: true"
            )
        if not network.causal:
            raise LearnerError(
                f"{FIELD}.causal: language_model predicts each token from those before it, which this network does not "
                "keep apart from the later ones; set causal: true"
            )
        return super().learner(parts)

    def parameters(self, network: Network | None, features: tuple[int, ...], generator: Generator) -> Tensors:
        """Draw the scores' bias [tokens], and, where they are not tied, their matrix [tokens, features]."""
        drawn = linear_parameters(DECODER, math.prod(features), token_count(self.task), generator)
        bias = f"{DECODER}.bias"
        return {bias: drawn[bias]} if self.config.tied else drawn

    def objective(self, phi: Tensors, embed: Embedding, episode: Episode) -> Tensor:
        x = all_examples(episode)
        return self.token_losses(phi, embed, x).sum() / (x[:, 1:] != PADDING).sum().clamp_min(1)

    def token_losses(self, phi: Tensors, embed: Embedding, x: Tensor) -> Tensor:
        """Return -log P of each token of texts x [n, length] but the first: [n, length - 1], 0 where none is."""
        network = embed.network
        assert isinstance(network, SequenceNetwork)  # learner() has refused all others
        states = network.states(embed.theta, x, Normalization(embed.given, fused=embed.passes.fused), embed.knowledge)
        weight = network.tokens(embed.theta) if self.config.tied else phi[f"{DECODER}.weight"]
        wanted = x[:, 1:].long()
        there = wanted != PADDING
        scores = F.linear(states[:, :-1][there], weight, phi[f"{DECODER}.bias"])  # [tokens that are there, all tokens]
        losses = F.cross_entropy(scores, wanted[there], reduction="none")
        return states.new_zeros(wanted.shape).masked_scatter(there, losses)

    def inspect(self, phi: Tensors, embed: Embedding, episode: Episode) -> Tensors:
        """Show the features with the class means, and how surprising each token of some queries is, in bits."""
        texts = episode.query_x[:SHOWN]
        bits = self.token_losses(phi, embed, texts) / math.log(2)
        return super().inspect(phi, embed, episode) | {"text": texts, "surprise": F.pad(bits, (1, 0))}
