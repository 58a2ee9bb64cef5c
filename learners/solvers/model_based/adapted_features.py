"""The base of CNAPs and Simple CNAPs: features that FiLM adapts to the task, and a head made of the support set's."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Annotated

from torch import Generator, Tensor

from metaloom.learners.domains import Int, Real
from metaloom.learners.episode import Episode, Support
from metaloom.learners.networks.base import Network
from metaloom.learners.solvers.amortized import AmortizedSolver, Embedding, Judged, Outputs
from metaloom.learners.solvers.metric import class_means
from metaloom.learners.solvers.model_based import film
from metaloom.learners.solvers.model_based.set_encoder import set_encoder_parameters, task_vector
from metaloom.learners.tensors import Tensors, part, under

ENCODER, FILM = "set_encoder", "film"


@dataclass(frozen=True)
class AdaptedFeaturesConfig:
    """How the features are adapted to a task.

    Attributes:
        film: Whether they are; false leaves the network as it is.
        width: Length of the task vector, and width of the networks around it.
        blocks: Convolutions of the set encoder.
        regularization: Weight of the squared scales of FiLM in the outer loss.
    """

    film: bool = True
    width: Annotated[int, Int(4, 512, log=True)] = 64
    blocks: Annotated[int, Int(1, 6)] = 4
    regularization: Annotated[float, Real(1e-6, 1.0, log=True, per=())] = 0.001


class AdaptedFeatures(AmortizedSolver):
    """A set encoder makes a task vector of the support set, FiLM adapts the body to it, and ``head`` classifies.

    Nothing depends on the number of classes or examples, so that both may vary, in training and afterwards.
    """

    config: AdaptedFeaturesConfig
    learns = True
    needs_classes = True
    reads_support = frozenset({"mask"})

    @property
    def takes_features(self) -> bool:  # type: ignore[override]
        return not self.config.film  # which changes the network for each task

    @abstractmethod
    def head(self, phi: Tensors, features: Tensor, support: Support) -> Outputs:
        """Return the map of adapted features [queries, d] to logits, made of those of the support set [n, d]."""

    def parameters(self, network: Network | None, features: tuple[int, ...], generator: Generator) -> Tensors:
        if not self.config.film:
            return {}
        width = self.config.width
        encoder = set_encoder_parameters(self.task.inputs, width, self.config.blocks, generator)
        generators = film.film_parameters(film.places(network, features), width, generator)
        return under(ENCODER, encoder) | under(FILM, generators)

    def adapt(self, phi: Tensors, embed: Embedding, support: Support) -> Outputs:
        support = support.kept()
        _, found = self._film(phi, support)
        scale, shift = found.get(film.FEATURES, (1.0, 0.0))

        def fit(features: Tensor) -> Outputs:
            head = self.head(phi, scale * features + shift, support)
            return lambda queries: head(scale * queries + shift)

        return _modulated(embed, found).fitted(support.x, fit)

    def _film(self, phi: Tensors, support: Support) -> tuple[Tensors, dict[str, film.Modulation]]:
        """Return the task vector [width] as ``task_vector``, and FiLM by place; nothing where it is switched off."""
        if not self.config.film:
            return {}, {}
        task = task_vector(part(phi, ENCODER), support.x)
        return {"task_vector": task}, film.modulations(part(phi, FILM), task)

    def loss(self, phi: Tensors, embed: Embedding, episode: Episode) -> Judged:
        judged = super().loss(phi, embed, episode)
        if not self.config.film:
            return judged
        return Judged(judged.loss + self.config.regularization * film.penalty(part(phi, FILM)), judged.accuracy)

    def inspect(self, phi: Tensors, embed: Embedding, episode: Episode) -> Tensors:
        """Show the adapted features with the class means, and with FiLM what adapts them.

        FiLM's factors are ``film/LAYER`` and its shifts ``film_shift/LAYER`` [channels]; ``task_vector`` is [width].
        """
        given = episode.support.kept()
        task, found = self._film(phi, given)
        scale, shift = found.get(film.FEATURES, (1.0, 0.0))
        both = _modulated(embed, found).beside(given.x)(episode.query_x)
        features, queries = (scale * one + shift for one in both)
        means = class_means(features, given.y, self.task.outputs)
        shown = {"support": features, "queries": queries, "prototypes": means} | task
        layers = () if embed.network is None else embed.network.norm_layers()  # stored names may be in another order
        order = [place for place in (*layers, film.FEATURES) if place in found]
        gammas, betas = ({place: found[place][index] for place in order} for index in range(2))
        return shown | under("film", gammas) | under("film_shift", betas)


def _modulated(embed: Embedding, found: dict[str, film.Modulation]) -> Embedding:
    """Return the embedding of the modulated network; the same one where nothing is."""
    return replace(embed, theta=film.modulated(embed.theta, found)) if found else embed
