"""What a configuration's field may hold, read from its dataclass: types, domain, default.

Every component, task source and estimator declares its settings as a frozen dataclass whose
annotations carry domains; this module is the only reader of those annotations, so that a new
component needs no change here.
"""

import dataclasses
import math
import numbers
import types
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from metaloom.learners.domains import Choice, Int, Learned, Real, Word
from metaloom.learners.errors import unknown
from metaloom.search_spaces.errors import Path
from metaloom.search_spaces.reading.document import shown
from metaloom.search_spaces.reading.labels import meant_mode


class _Missing(Enum):
    """Stands for a value that was not given, where null is a value."""

    MISSING = "missing"


MISSING = _Missing.MISSING
NOUNS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


class Unfit(ValueError):  # noqa: N818
    """A value that a field cannot hold: what was given and what is allowed.

    Attributes:
        path: Where in the value it stands: the index of a list's item; empty for the value itself.
    """

    def __init__(self, message: str, path: Path = ()) -> None:
        super().__init__(message)
        self.path = path


@dataclass(frozen=True)
class Field:
    """One field of a configuration.

    Attributes:
        name: Its name.
        types: The scalar types it takes, among bool, int, float and str.
        options: All its values, where they are few and named; empty otherwise.
        domain: The range it is searched in, if it declares one.
        word: How it is searched part by part, if it is written as several choices in a row.
        learnable: Whether it may be learned.
        nullable: Whether it takes null.
        items: The field of each item, where it is a list.
        default: Its default, or MISSING where it must be given.
    """

    name: str
    types: tuple[type, ...] = ()
    options: tuple[Any, ...] = ()
    domain: Real | Int | None = None
    word: Word | None = None
    learnable: bool = False
    nullable: bool = False
    items: "Field | None" = None
    default: Any = MISSING

    def allowed(self) -> str:
        """Describe the values it takes, for an error message."""
        if self.options:
            text = ", ".join(shown(option) if not isinstance(option, str) else option for option in self.options)
        elif self.items is not None:
            text = f"a list, each item {self.items.allowed()}"
        else:
            text = " or ".join(NOUNS[kind] for kind in self.types)
        return text + (" or null" if self.nullable else "")


@cache
def fields_of(config: type) -> Mapping[str, Field]:
    """Read a configuration dataclass; raises TypeError for an annotation that no experiment could hold."""
    hints = get_type_hints(config, include_extras=True)
    return {field.name: _read(field, hints[field.name]) for field in dataclasses.fields(config)}


def _read(field: "dataclasses.Field[Any]", hint: Any) -> Field:
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    default = MISSING if default is dataclasses.MISSING else default
    return dataclasses.replace(_from_hint(field.name, hint), default=default)


def _from_hint(name: str, hint: Any) -> Field:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _with_domain(_from_hint(name, args[0]), args[1:])
    if origin is Literal:
        return Field(name, tuple({type(option) for option in args}), options=args)
    if origin is tuple:
        return Field(name, items=_from_hint(name, args[0]))
    if origin in (Union, types.UnionType):
        return _from_union(name, args)
    if hint in NOUNS:
        return Field(name, (hint,), options=(False, True) if hint is bool else ())
    raise TypeError(f"{name}: a configuration cannot hold {hint}")


def _from_union(name: str, members: tuple[Any, ...]) -> Field:
    plain = [member for member in members if member not in (Learned, type(None))]
    parts = [_from_hint(name, member) for member in plain]
    if len(parts) > 1 and any(part.items or part.options for part in parts):
        raise TypeError(f"{name}: a configuration cannot hold one of {members}")
    kinds = tuple(kind for part in parts for kind in part.types)
    return dataclasses.replace(parts[0], types=kinds, nullable=type(None) in members, learnable=Learned in members)


def _with_domain(field: Field, extras: tuple[Any, ...]) -> Field:
    for extra in extras:
        if isinstance(extra, Choice):
            return dataclasses.replace(field, options=extra.options)
        if isinstance(extra, Word):
            return dataclasses.replace(field, word=extra)
        if isinstance(extra, Real | Int):
            learnable = field.learnable and isinstance(extra, Real) and bool(extra.per)
            return dataclasses.replace(field, domain=extra, learnable=learnable)
    return dataclasses.replace(field, learnable=False)


def literal(field: Field, raw: Any) -> Any:
    """Return a literal as the field's type; raises Unfit."""
    if raw is None:
        if field.nullable:
            return None
    elif field.items is not None:
        if isinstance(raw, list | tuple):
            return [_item(field.items, item, index) for index, item in enumerate(raw)]
    elif field.options:
        if any(option == raw and type(option) is type(raw) for option in field.options):
            return raw
        if isinstance(raw, str) and all(isinstance(option, str) for option in field.options):
            raise Unfit(unknown("option", raw, field.options))
    else:
        return _scalar(field, raw)
    raise Unfit(f"got {shown(raw)}; allowed: {field.allowed()}")


def _item(field: Field, raw: Any, index: int) -> Any:
    try:
        return literal(field, raw)
    except Unfit as error:
        raise Unfit(str(error), (index, *error.path)) from None


def _scalar(field: Field, raw: Any) -> Any:
    value: Any = MISSING
    if isinstance(raw, bool):
        value = raw if bool in field.types else MISSING
    elif isinstance(raw, numbers.Integral) and int in field.types:
        value = int(raw)
    elif isinstance(raw, numbers.Real) and float in field.types:
        value = float(raw)
    elif isinstance(raw, str) and str in field.types:
        value = raw
    if value is MISSING:
        raise Unfit(f"got {shown(raw)}; allowed: {field.allowed()}{_hint(field, raw)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise Unfit(f"got {shown(value)}; allowed: a finite number")
    _check_sign(field, value)
    return value


def _hint(field: Field, raw: Any) -> str:
    if isinstance(raw, str) and (float in field.types or int in field.types):
        try:
            number = float(raw)
        except ValueError:
            return _mode_hint(field, raw) if field.domain else ""
        return " (without the quotes)" if math.isfinite(number) else "; it must be finite"
    return ""


def _mode_hint(field: Field, raw: str) -> str:
    mode = meant_mode(raw)
    near = f"; did you mean '{mode}'?" if mode else ""
    return ", {search: ...}" + (" or {learn: ...}" if field.learnable else "") + near


def _check_sign(field: Field, value: Any) -> None:
    """Refuse a value on the wrong side of zero; a domain's bounds otherwise limit only what is searched."""
    if isinstance(value, bool | str) or field.domain is None:
        return
    least = 1 if isinstance(field.domain, Int) and field.domain.low >= 1 else 0
    if field.domain.low >= 0 and value < least:
        raise Unfit(f"got {shown(value)}; allowed: {field.allowed()}, at least {least}")
