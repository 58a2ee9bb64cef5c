"""Python objects as the plain values that stand in a file."""

import numbers
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel

from metaloom.learners.domains import Choice, Int, Learned, Real
from metaloom.learners.fields import LEARN, SEARCH


def plain(value: Any) -> Any:
    """Return mappings, lists and scalars; a domain stands for a search, ``Learned`` for a learned knob.

    Numbers of numpy become Python's; anything unknown is returned as it is, and refused where it stands.
    """
    match value:
        case None | bool() | str():
            return value
        case Real() | Int():
            return {SEARCH: {"low": value.low, "high": value.high, "log": value.log}}
        case Choice():
            return {SEARCH: list(value.options)}
        case Learned():
            return {LEARN: {key: plain(one) for key, one in vars(value).items() if one is not None}}
        case BaseModel():
            return plain(value.model_dump(mode="json"))
        case Mapping():
            return {str(key): plain(one) for key, one in value.items()}
        case list() | tuple():
            return [plain(one) for one in value]
        case PurePath():
            return str(value)
        case numbers.Integral():
            return int(value)
        case numbers.Real():
            return float(value)
    return value
