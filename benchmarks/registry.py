"""The implementations by name; a peer that is not installed is an error that says how to install it."""

from importlib import import_module

from benchmarks.implementations import Prepare

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


def implementation(name: str) -> Prepare:
    """Return an implementation.

    Raises:
        SystemExit: The peer is not installed.
    """
    module, function = PLACES[name]
    try:
        prepare: Prepare = getattr(import_module(f"benchmarks.implementations.{module}"), function)
    except ImportError as error:
        raise SystemExit(f"benchmarks: {error.name} is missing; pip install -e '.[bench]' brings the peers") from error
    return prepare
