"""What a trial asks of a learner, and how a named method fills the slots.

Symbols, everywhere in this folder: ``phi`` is the meta-knowledge (what the outer
loop learns), ``theta`` the fast weights (what the inner loop learns), both as
dictionaries from a name to a tensor.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Generator, Tensor

from metaloom.learners.episode import Episode, Episodes, Support, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.registry import Registry
from metaloom.learners.state import LearnerState
from metaloom.learners.task_kinds import TaskKind
from metaloom.learners.tensors import Tensors

Answers = tuple[Tensor, ...]  # after each inner step


@dataclass(frozen=True)
class EpisodeOutcome:
    """How one episode went, on its query set.

    Attributes:
        losses: Before adaptation and after each inner step: [steps + 1].
        accuracies: The same, as fractions in [0, 1]; empty in regression.
    """

    losses: tuple[float, ...]
    accuracies: tuple[float, ...] = ()

    @classmethod
    def of(cls, kind: TaskKind, losses: Sequence[float], accuracies: Sequence[float]) -> "EpisodeOutcome":
        """Leave the accuracies out where the kind of task is judged by its loss alone."""
        return cls(tuple(losses), tuple(accuracies) if kind.accuracy else ())


@dataclass(frozen=True)
class MetaStep:
    """The hypergradient over a batch of episodes, and what was measured with it.

    Attributes:
        loss: Mean outer loss over the episodes.
        gradient: One tensor per leaf of phi, of its shape and dtype.
        outcomes: One per episode.
        diagnostics: The estimator's own numbers, such as ``inner_gradient_norm`` and ``residual``.
        state: The learner's state after the pass, such as batch norm's running statistics; None: as it was.
        advanced: Whether that is the state after the real inner step too, so that ``Learner.advance`` is not called.
    """

    loss: float
    gradient: Tensors
    outcomes: tuple[EpisodeOutcome, ...]
    diagnostics: Mapping[str, float] = field(default_factory=dict)
    state: LearnerState | None = None
    advanced: bool = False

    def after(self, before: LearnerState) -> LearnerState:
        """Return the state after the pass, given the one before it."""
        return before if self.state is None else self.state


class Adapted(Protocol):
    """A model adapted to one task; a subclass inherits the default.

    Attributes:
        losses: The loss of the support set before the first inner step and after the last; empty where there are none.
    """

    losses: tuple[float, ...] = ()

    def predict(self, query_x: Tensor) -> Tensor:
        """Map [queries, *features] to class probabilities [queries, ways], or targets [queries, targets]."""
        ...

    def plain(self) -> tuple[Callable[[Tensors, Tensor], Tensor], Tensors]:
        """Return ``predict`` as a function of tensors and queries, without hand-written kernels, and the tensors.

        Only of a model whose queries do not meet. Raises LearnerError if it has no such form.
        """
        raise LearnerError("export: this solver's models have no plain forward pass")


class Learner(Protocol):
    """F_w: turns a support set into a model, given the meta-knowledge phi.

    A subclass inherits the defaults, which are those of a learner that takes no inner steps.

    Attributes:
        task: The shape of the episodes it was built for.
        estimator: The hypergradient estimator in use.
        estimator_reason: Why ``auto`` chose it; empty where the experiment names it.
        online: True if its inner state persists from one outer step to the next.
        carry: Over how many outer steps an inner loop goes on, on the same episodes; 1 where each begins its own.
        setting: ``inductive``, ``semi-supervised``, or ``transductive`` if a query's prediction depends on the others.
        batch_norm: The batch-norm mode, or ``"none"``.
        evaluation_steps: Inner steps taken by ``evaluate``; 0 where there are none.
        notes: What the user is told once, before anything runs.
        strategy: How episodes are executed: ``loop``, ``vmap``, ``traced``, or ``by_size`` (one of the first two).
    """

    task: TaskShape
    estimator: str
    estimator_reason: str = ""
    online: bool = False
    carry: int = 1
    setting: str = "inductive"
    batch_norm: str = "none"
    evaluation_steps: int = 0
    notes: tuple[str, ...] = ()
    strategy: str = "loop"

    def init(self, generator: Generator) -> Tensors:
        """Return phi before the first outer step: unconstrained leaves; empty if nothing is learned."""
        ...

    @property
    def approximations(self) -> Mapping[str, str]:
        """Return what the gradients of learned slots leave out by design, by the slot's name."""
        return {}

    def rehearse(self) -> None:
        """Refuse what the examples alone rule out, once before a search begins; raises BadInput. Nothing here."""
        return

    def begin(self, phi: Tensors, generator: Generator) -> LearnerState:
        """Return the state before the first outer step."""
        return LearnerState()

    def measured(self, phi: Tensors, state: LearnerState, episodes: Iterable[Episode]) -> LearnerState:
        """Return the state with batch norm's running statistics over these episodes, where a given start lacks them.

        The state itself where none are lacking; the episodes are then not drawn.
        """
        return state

    def meta_step(self, phi: Tensors, state: LearnerState, episodes: Episodes, generator: Generator) -> MetaStep:
        """Return the hypergradient of the mean outer loss over ``episodes``."""
        ...

    def objective(self, phi: Tensors, state: LearnerState, episodes: Episodes, generator: Generator) -> float:
        """Return the number whose derivative by phi ``meta_step`` estimates."""
        ...

    def advance(self, phi: Tensors, state: LearnerState, episodes: Episodes, generator: Generator) -> LearnerState:
        """Take the real inner step with the new phi (online); an episodic learner returns ``state``."""
        return state

    def evaluate(self, phi: Tensors, state: LearnerState, episode: Episode, generator: Generator) -> EpisodeOutcome:
        """Adapt on the support set and score the query set after each inner step."""
        ...

    def predictions(self, phi: Tensors, state: LearnerState, episode: Episode, generator: Generator) -> Answers:
        """Return the predictions for the queries before adaptation and after each inner step: [queries, outputs] each.

        Here they are those of the adapted model alone, as where no inner steps are taken.
        """
        return (self.adapt(phi, state, episode.support, generator).predict(episode.query_x),)

    def adapt(self, phi: Tensors, state: LearnerState, support: Support, generator: Generator) -> Adapted:
        """Adapt to a new task."""
        ...

    def inspect(self, phi: Tensors, state: LearnerState, episode: Episode) -> Tensors:
        """Return what may be drawn of an episode, by name; nothing here.

        The names that figures are drawn of, each optional. n support examples, q queries, u unlabelled examples, ways
        classes; the learner adds the classes ``labels`` [n] and ``query_labels`` [q].

        * ``support`` [n, d], ``queries`` [q, d]: the features as they are compared.
        * ``prototypes`` [ways, d]: a point per class among those features, drawn with them by principal components.
        * ``attention`` [q, n]: the weight of each support example for each query.
        * ``relation`` [q, ways]: the comparator's score of each query and class, higher being nearer.
        * ``adjacency`` [layers, m, m]: edges between the support examples, then the unlabelled ones, then the queries
          of one graph (m = n + u + queries, from one to q of them); a row holds the weights of a node's neighbours.
        * ``reads`` [steps, slots]: the weight with which each slot of a memory is read at each step, over its heads.
        * ``by_presentation`` [presentations]: the accuracy in a sequence by the earlier examples of a class.
        * ``film/LAYER`` [channels]: the factors of FiLM in a layer, 1 where it changes nothing; in the order of layers.
        * ``path_before``, ``path_after`` [n, H + 1, states]: trajectories of a policy before and after its inner steps;
          ``rewards_before``, ``rewards_after`` [n, H], and ``active_before``, ``active_after`` [n, H], 1 up to an end;
          ``parameters`` [parameters] of their task.
        * ``attribute_weights`` [attributes]: how far an attribute of a class moves what stands for it.
        * ``original``, ``corrupted``, ``reconstruction`` [k, *inputs]: the first k queries, what the network sees of
          them, and what a decoder makes of that.
        * ``example_losses`` [n]: the inner loss of each training example after adaptation, where weights are learned.
        * ``text`` [k, length]: the tokens of the first k queries; ``surprise`` [k, length]: how improbable each is by
          those before it, in bits, 0 for the first one and where the text has ended.
        * ``regrets``, ``regrets_of_random`` [searches, trials]: the regret after each trial of searches on one table of
          results, with the settings that are judged, and at random.
        """
        return {}

    def inductive(self) -> "Learner | None":
        """Return the learner whose batch norm takes the support set's statistics, so that queries do not meet.

        None where a query's prediction does not depend on the others, or would still do so.
        """
        return None

    def evaluate_both(
        self, phi: Tensors, state: LearnerState, episode: Episode, generator: Generator
    ) -> tuple[EpisodeOutcome, EpisodeOutcome]:
        """Return the outcome of ``evaluate``, and that of ``inductive()`` by equal draws, of its last step at least."""
        alone = self.inductive()
        assert alone is not None  # who asks has made sure
        same = generator.clone_state()
        return self.evaluate(phi, state, episode, generator), alone.evaluate(phi, state, episode, same)


@dataclass(frozen=True)
class Recipe:
    """A named method: which slots it fills with what. Never a second engine.

    Attributes:
        summary: What it learns, in one line.
        paper: Authors, year and link.
        learner: Slot name to the slot's default settings (with its ``kind``).
        inner: Defaults of the inner section.
        outer: Defaults of the outer section (its ``hypergradient`` among them).
        stored: What it was in version 0.1, where that differs: stored searches go on with it.
    """

    summary: str
    paper: str
    learner: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    inner: Mapping[str, Any] = field(default_factory=dict)
    outer: Mapping[str, Any] = field(default_factory=dict)
    stored: "Recipe | None" = None

    def of_version(self, *, stored: bool) -> "Recipe":
        """Return the recipe for a search that version 0.1 began (``stored``), or for a new one."""
        return self.stored if stored and self.stored is not None else self


METHODS: Registry[Recipe] = Registry("method")
