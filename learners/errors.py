"""The errors a user can act on. Each folder's errors derive from one of these two families."""

import difflib
import math
from collections.abc import Iterable
from typing import Any

from metaloom.learners.redaction import on_one_line, redacted


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
    """Describe an unknown name of a kind, such as ``"update rule"``: its nearest right spelling, and all allowed."""
    names, name = sorted(allowed), on_one_line(redacted(str(name)))
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return f"no {kind} is named '{name}'{hint} (allowed: {', '.join(names)})"


def shown(value: Any) -> str:
    """Show a given value in a message, shortened: texts in quotes, the rest as YAML writes it."""
    if isinstance(value, dict):
        keys = ", ".join(on_one_line(str(key)) for key in list(value)[:4])
        return f"a mapping with {keys}" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        return f"the list [{_cut(', '.join(shown(item) for item in value))}]"
    if isinstance(value, str):
        return f"the text '{_cut(on_one_line(redacted(value)))}'"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and not math.isfinite(value):
        return f".{value}" if value > 0 or value != value else "-.inf"
    return _cut(repr(value))


def _cut(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."
