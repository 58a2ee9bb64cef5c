"""What a learner keeps from one outer step to the next, and the places of phi: both are declared, and checked.

Stored files hold flat dictionaries, which ``LearnerState.flat`` writes and ``from_flat`` reads.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from metaloom.learners.errors import LearnerError, unknown
from metaloom.learners.tensors import InnerState, Tensors, part, under

FIXED = "fixed"  # the part of a stored state, and of a start, with the tensors of a network that nothing moves
RUNNING = "running"  # likewise, with batch norm's running statistics
_PARTS = ("theta", "buffers", "carried", RUNNING, "estimator", FIXED)  # of a stored state, beside outer_step
PLACES: dict[str, str] = {}  # the first part of a leaf's name in phi: whose it is


def declare_place(name: str, whose: str) -> str:
    """Declare a place of phi; raises LearnerError if another one has the name."""
    if PLACES.setdefault(name, whose) != whose:
        raise LearnerError(f"two places of phi are named '{name}': {PLACES[name]}, and {whose}")
    return name


def knowledge_of(phi: Tensors, place: str) -> Tensors:
    """Return the leaves at a place of phi, without its name, or none; raises LearnerError if there is no such place."""
    if place not in PLACES:
        raise LearnerError(f"phi: {unknown('place', place, PLACES)}")
    return part(phi, place, optional=True)


@dataclass(frozen=True)
class LearnerState:
    """A learner's state.

    Attributes:
        outer_step: Outer steps that it has seen, int64 []; None for a learner that does not count them.
        inner: theta, and the inner optimizer's buffers where the inner loop is online; None where phi is the start.
        carried: The last state of an inner loop that goes on in the next outer step (``inner.carry``).
        running: Running statistics: of batch norm, or of a solver that sums up the training examples.
        estimator: What the estimator keeps from one outer step to the next.
        fixed: The network's tensors that nothing moves (``Network.fixed``), for files alone: the network itself has
            them already, so that ``moving`` and ``mapped`` leave them out.
    """

    outer_step: Tensor | None = None
    inner: InnerState | None = None
    carried: InnerState | None = None
    running: Tensors = field(default_factory=dict)
    estimator: Tensors = field(default_factory=dict)
    fixed: Tensors = field(default_factory=dict)

    @property
    def step(self) -> int:
        """The number of outer steps that it has seen."""
        return 0 if self.outer_step is None else int(self.outer_step)

    @property
    def theta(self) -> Tensors:
        """The parameters that it holds; empty where phi is the start."""
        return {} if self.inner is None else self.inner.theta

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "LearnerState":
        """Return the state with every tensor of ``moving`` changed, in its order."""
        changed = self.from_flat({name: change(tensor) for name, tensor in self.moving().items()})
        return replace(changed, fixed=self.fixed)

    def flat(self) -> Tensors:
        """Return the state as files hold it: ``outer_step``, ``theta/``, ``buffers/``, ``carried/`` and so on."""
        return self.moving() | under(FIXED, self.fixed)

    def moving(self) -> Tensors:
        """Return the state as ``flat`` does, without what nothing moves."""
        inner = {} if self.inner is None else self.inner.flat()
        carried = {} if self.carried is None else under("carried", self.carried.flat())
        step = {} if self.outer_step is None else {"outer_step": self.outer_step}
        return step | inner | carried | under(RUNNING, self.running) | under("estimator", self.estimator)

    @classmethod
    def from_flat(cls, tensors: Mapping[str, Tensor]) -> "LearnerState":
        """Read what ``flat`` gave; raises LearnerError for a name that is not of a state."""
        given = dict(tensors)
        for name in given:
            place, slash, _ = name.partition("/")
            if name != "outer_step" and not (slash and place in _PARTS):
                raise LearnerError(f"the learner's state: {unknown('place', place, ['outer_step', *_PARTS])}")
        return cls(
            outer_step=given.get("outer_step"),
            inner=_inner(given),
            carried=_inner(part(given, "carried", optional=True)),
            running=part(given, RUNNING, optional=True),
            estimator=part(given, "estimator", optional=True),
            fixed=part(given, FIXED, optional=True),
        )


def _inner(tensors: Tensors) -> InnerState | None:
    theta = part(tensors, "theta", optional=True)
    return InnerState(theta, part(tensors, "buffers", optional=True)) if theta else None
