"""The implementations by name; a peer that is not installed is an error that says how to install it."""

from collections.abc import Callable
from importlib import import_module

from benchmarks.bilevel import Bilevel
from benchmarks.implementations import Run
from benchmarks.workloads import Workload

OURS = "metaloom"
PLACES = {  # name to module and function, so that a child process imports only the one it measures
    OURS: ("metaloom_engine", "prepare"),
    "plain loop (learn2learn's way)": ("plain", "prepare"),
    "higher": ("higher_peer", "prepare"),
    "torchopt": ("torchopt_peer", "prepare"),
    "parallel-metalearn (sequential)": ("metalearn_peer", "prepare_sequential"),
    "parallel-metalearn (vmap)": ("metalearn_peer", "prepare_vmap"),
    "parallel-metalearn (vmap, its own batch norm)": ("metalearn_peer", "prepare_vmap_own_norm"),
}
FINITE_DIFFERENCE = "metaloom (finite difference)"
PLAIN, PLAIN_DIFFERENCE = "plain loop", "plain loop (finite difference)"
CHECKPOINTED = "metaloom (checkpointed)"
APPROXIMATE = (FINITE_DIFFERENCE, PLAIN_DIFFERENCE)
BILEVEL_PLACES = {  # the same of W4 to W6
    OURS: ("metaloom_engine", "prepare_exact"),
    FINITE_DIFFERENCE: ("metaloom_engine", "prepare_finite_difference"),
    CHECKPOINTED: ("metaloom_engine", "prepare_checkpointed"),
    PLAIN: ("bilevel_plain", "prepare"),
    PLAIN_DIFFERENCE: ("bilevel_plain", "prepare_finite_difference"),
    "higher": ("higher_peer", "prepare_bilevel"),
    "torchopt": ("torchopt_peer", "prepare_bilevel"),
    "hypergrad": ("hypergrad_peer", "prepare_bilevel"),
}
METRIC_PLACES = {  # the same of metric learners
    OURS: ("metric_learners", "prepare_ours"),
    PLAIN: ("metric_learners", "prepare_plain"),
}

RELATIONAL_PLACES = {  # of learners whose networks read a whole episode
    OURS: ("relational_learners", "prepare_ours"),
    PLAIN: ("relational_learners", "prepare_plain"),
}


def is_ours(name: str) -> bool:
    """Whether an implementation is this package's engine, in whatever setting."""
    return name.startswith(OURS)


def places(workload: Workload | Bilevel) -> dict[str, tuple[str, str]]:
    """Return the implementations that may offer a workload."""
    if isinstance(workload, Bilevel):
        return BILEVEL_PLACES
    if workload.relational:
        return RELATIONAL_PLACES
    return METRIC_PLACES if workload.metric else PLACES


def implementation(name: str, workload: Workload | Bilevel) -> Callable[..., Run | None]:
    """Return an implementation.

    Raises:
        SystemExit: The peer is not installed.
    """
    module, function = places(workload)[name]
    try:
        prepare: Callable[..., Run | None] = getattr(import_module(f"benchmarks.implementations.{module}"), function)
    except ImportError as error:
        raise SystemExit(f"benchmarks: {error.name} is missing; `make bench` brings the peers") from error
    return prepare
