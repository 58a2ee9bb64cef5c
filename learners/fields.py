"""The fields of a configuration, read from its dataclass: types, domain, bounds, default.

Every component, task source, estimator, sampler and scheduler declares its settings as a frozen dataclass with domains
in its annotations. This module alone reads those annotations.
"""

import dataclasses
import difflib
import math
import numbers
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from metaloom.learners.domains import Added, Bounds, Choice, Int, Learned, Real, Word
from metaloom.learners.errors import LearnerError, shown, unknown
from metaloom.learners.modes import LEARN, SEARCH

MISSING: Any = object()  # a value that was not given, where null is a value
NOUNS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


class Unfit(ValueError):  # noqa: N818
    """A value that a field cannot hold: what was given and what is allowed; ``path`` leads to an item of a list."""

    def __init__(self, message: str, path: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.path = path


@dataclass(frozen=True)
class Field:
    """One field of a configuration: a scalar of some types, a list, a mapping, or one of these.

    Attributes:
        types: The scalar types it takes, among bool, int, float and str.
        options: All its values, where they are few and named; empty otherwise.
        domain: The range it is searched in, if it declares one.
        bounds: What a fixed value must keep to, which a domain's range only suggests.
        word: How it is searched part by part, if it is written as several choices in a row.
        items: The field of each item, where it may be a list.
        mapping: Whether it may be a mapping of names to values, each of any type and mode.
        added: Whether it came later than others, so that its default is no part of an experiment's digest.
        default: Its default, or MISSING where it must be given.
    """

    name: str
    types: tuple[type, ...] = ()
    options: tuple[Any, ...] = ()
    domain: Real | Int | None = None
    bounds: Bounds = Bounds()  # noqa: RUF009 - frozen
    word: Word | None = None
    learnable: bool = False
    nullable: bool = False
    items: "Field | None" = None
    mapping: bool = False
    added: bool = False
    default: Any = MISSING

    def allowed(self) -> str:
        """Describe the values it takes, for an error message."""
        forms = [", ".join(map(_written, self.options))] if self.options else [NOUNS[kind] for kind in self.types]
        forms += ["a mapping of names to values"] if self.mapping else []
        forms += [f"a list, each item {self.items.allowed()}"] if self.items is not None else []
        return " or ".join([*forms, "null"] if self.nullable else forms)

    def missing(self) -> str:
        """Say that it must be given, for an error message."""
        return f"not given, and has no default; give {self.allowed()}"

    def why_not_learned(self, name: str) -> str:
        """Say why the hypergradient cannot move it, for an error message, and what to do instead."""
        if self.types == (int,):
            reason = "is a whole number, which no gradient can move"
        elif self.options or str in self.types or self.items is not None:
            reason = "is not a number, so no gradient can move it"
        else:
            reason = "cannot be learned: it does not enter the inner loop as a differentiable value"
        example = f"[{', '.join(map(_written, self.options[:3]))}]" if self.options else "[...]"
        if self.domain is not None:
            example = f"{{low: {self.domain.low}, high: {self.domain.high}}}"
        return f"{name} {reason}; fix it or search it, such as {{search: {example}}}"


def _written(option: Any) -> str:
    return option if isinstance(option, str) else shown(option)


def meant_mode(name: str) -> str | None:
    """Return ``search`` or ``learn`` where a text is one of them, or nearly; None for anything else."""
    return next(iter(difflib.get_close_matches(name, (SEARCH, LEARN), n=1, cutoff=0.7)), None)


@cache
def fields_of(config: type) -> Mapping[str, Field]:
    """Read a configuration dataclass; raises TypeError for an annotation that no experiment could hold."""
    hints, found = get_type_hints(config, include_extras=True), {}
    for field in dataclasses.fields(config):
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        default = MISSING if default is dataclasses.MISSING else default
        found[field.name] = dataclasses.replace(_from_hint(field.name, hints[field.name]), default=default)
    return found


def _from_hint(name: str, hint: Any) -> Field:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _with_domain(_from_hint(name, args[0]), args[1:])
    if origin is Literal:
        return Field(name, tuple({type(option) for option in args}), options=args)
    if origin is tuple:
        return Field(name, items=_from_hint(name, args[0]))
    if origin in (dict, Mapping):
        return Field(name, mapping=True)
    if origin in (Union, types.UnionType):
        return _from_union(name, args)
    if hint in NOUNS:
        return Field(name, (hint,), options=(False, True) if hint is bool else ())
    raise TypeError(f"{name}: a configuration cannot hold {hint}")


def _from_union(name: str, members: tuple[Any, ...]) -> Field:
    plain = [member for member in members if member not in (Learned, type(None))]
    parts = [_from_hint(name, member) for member in plain]
    lists = [part.items for part in parts if part.items is not None]
    if len(parts) > 1 and (len(lists) > 1 or any(part.options for part in parts)):
        raise TypeError(f"{name}: a configuration cannot hold one of {members}")
    kinds, modes = tuple(kind for part in parts for kind in part.types), {type(None), Learned} & set(members)
    merged = dataclasses.replace(parts[0], types=kinds, nullable=type(None) in modes, learnable=Learned in modes)
    return dataclasses.replace(merged, items=next(iter(lists), None), mapping=any(part.mapping for part in parts))


def _with_domain(field: Field, extras: tuple[Any, ...]) -> Field:
    found: dict[str, Any] = {"learnable": False}
    for extra in extras:
        match extra:
            case Choice():
                found["options"] = extra.options
            case Word():
                found["word"] = extra
            case Bounds():
                found["bounds"] = extra
            case Added():
                found["added"] = True
            case Real() | Int():
                found["learnable"] = field.learnable and isinstance(extra, Real) and bool(extra.per)
                found["domain"] = extra
                if extra.low >= 0:  # a field without bounds stays on the side of zero of its domain
                    least = 1 if isinstance(extra, Int) and extra.low >= 1 else 0
                    found.setdefault("bounds", Bounds(at_least=least))
    return dataclasses.replace(field, **found)


def literal(field: Field, raw: Any) -> Any:
    """Return a literal as the field's type; raises Unfit."""
    if raw is None:
        if field.nullable:
            return None
    elif field.mapping and isinstance(raw, Mapping):
        return dict(raw)
    elif field.items is not None and isinstance(raw, list | tuple):
        return [_item(field.items, item, index) for index, item in enumerate(raw)]
    elif field.options:
        if any(option == raw and type(option) is type(raw) for option in field.options):
            return raw
        if isinstance(raw, str) and all(isinstance(option, str) for option in field.options):
            raise Unfit(unknown("option", raw, field.options))
    elif field.types:
        return _scalar(field, raw)
    raise Unfit(f"got {shown(raw)}; allowed: {field.allowed()}")


def _item(field: Field, raw: Any, index: int) -> Any:
    try:
        return literal(field, raw)
    except Unfit as error:
        raise Unfit(str(error), (index, *error.path)) from None


def _scalar(field: Field, raw: Any) -> Any:
    value: Any = raw
    if isinstance(raw, bool):
        fits = bool in field.types
    elif isinstance(raw, numbers.Integral) and int in field.types:
        fits, value = True, int(raw)
    elif isinstance(raw, numbers.Real) and float in field.types:
        fits, value = True, float(raw)
    else:
        fits = isinstance(raw, str) and str in field.types
    if not fits:
        raise Unfit(f"got {shown(raw)}; allowed: {field.allowed()}{_hint(field, raw)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise Unfit(f"got {shown(value)}; allowed: a finite number")
    if not isinstance(value, bool | str) and not field.bounds.hold(value):
        raise Unfit(f"got {shown(value)}; allowed: {field.allowed()}, {field.bounds}")
    return value


def _hint(field: Field, raw: Any) -> str:
    """Return what a text in place of a number may have meant: a number in quotes, or a mode."""
    if not isinstance(raw, str) or not {int, float} & set(field.types):
        return ""
    try:
        return " (without the quotes)" if math.isfinite(float(raw)) else "; it must be finite"
    except ValueError:
        if not field.domain:
            return ""
    mode = meant_mode(raw)
    near = f"; did you mean '{mode}'?" if mode else ""
    return ", {search: ...}" + (" or {learn: ...}" if field.learnable else "") + near


def make_config(config: type, settings: Mapping[str, Any], where: str, of: str = "") -> Any:
    """Fill a configuration dataclass from plain values; ``{"learn": {...}}`` becomes ``Learned``.

    Args:
        config: A frozen dataclass.
        settings: Values by field; a tensor may stand for a number.
        where: The place of the settings in an experiment, such as ``learner.update``.
        of: The kind that they are settings of, such as ``sgd``.

    Raises:
        LearnerError: Settings are unknown, missing, of a wrong type, out of bounds or cannot be learned; all are named.
    """
    declared, values, problems = fields_of(config), dict[str, Any](), list[str]()
    for name, raw in settings.items():
        try:
            if name not in declared:
                raise Unfit(unknown(f"setting of {of}" if of else "setting", name, declared))
            values[name] = _value(declared[name], raw)
        except Unfit as error:
            problems.append(f"{where}.{name}{''.join(f'[{index}]' for index in error.path)}: {error}")
    for name, field in declared.items():
        if name not in settings and field.default is MISSING:
            problems.append(f"{where}.{name}: {field.missing()}")
    if problems:
        raise LearnerError("\n".join(problems))
    return config(**values)


def _value(field: Field, raw: Any) -> Any:
    """Return a setting's value as a configuration holds it; raises Unfit."""
    if isinstance(raw, Mapping) and LEARN in raw:
        if not field.learnable:
            raise Unfit(field.why_not_learned(field.name))
        settings, allowed = raw[LEARN] or {}, [one.name for one in dataclasses.fields(Learned)]
        if odd := [setting for setting in settings if setting not in allowed]:
            raise Unfit(unknown("setting of a learned knob", odd[0], allowed))
        return Learned(**settings)
    if isinstance(raw, Learned) or (_is_tensor(raw) and float in field.types):
        return raw
    value = literal(field, raw)
    return tuple(value) if isinstance(value, list) else value


def check_values(config: Any, where: str) -> None:
    """Refuse a configuration whose fixed values its fields cannot hold; raises LearnerError, which names the field."""
    for name, field in fields_of(config.__class__).items():
        value = getattr(config, name)
        try:
            if not (isinstance(value, Learned) or _is_tensor(value)):
                literal(field, value)
        except Unfit as error:
            raise LearnerError(f"{where}.{name}: {error}") from None


def _is_tensor(value: Any) -> bool:
    """Whether a value is a tensor; a process that has not loaded torch, such as that of the pages, has none."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)
