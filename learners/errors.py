"""The errors a user can act on. Each folder's errors derive from one of these two families."""

import difflib
from collections.abc import Iterable


class MetaloomError(Exception):
    """Base of all errors that are shown to users as a message, without a stack."""

    exit_code = 1


class BadInput(MetaloomError):  # noqa: N818
    """Something the user gave is wrong; the message says where, what, and what is allowed."""

    exit_code = 2


class BadEnvironment(MetaloomError):  # noqa: N818
    """The machine lacks something: disk, write access, a package, a cluster."""

    exit_code = 3


class LearnerError(BadInput):
    """A learner was put together in a way that cannot work."""


def unknown(kind: str, name: object, allowed: Iterable[str]) -> str:
    """Describe an unknown name, with its nearest right spelling and all that is allowed.

    Args:
        kind: What the name should have been, such as ``"update rule"``.
        name: What was given.
        allowed: Every name that would have been right.
    """
    known = sorted(allowed)
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return f"no {kind} is named '{name}'{hint} (allowed: {', '.join(known)})"
