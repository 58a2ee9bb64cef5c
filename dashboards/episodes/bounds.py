"""Which parts of a search can hold a row that a condition keeps, by the least and greatest values of their columns.

A part is left out only where no row of it can meet the condition. What is not understood here leaves nothing out, so
that the rows are always those of ``filters.parse_filter``.
"""

import ast
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

BOUNDED = ("step", "episode", "loss_before", "loss_after", "accuracy_before", "accuracy_after")  # in the order of ends
Ends = tuple[float, float]
NO_VALUE: Ends = (float("inf"), float("-inf"))  # of a column that is null in every row


class PartFacts(NamedTuple):
    """What is known of one part.

    Attributes:
        rows: Its number of rows; 0 where it is damaged.
        phases: The number of rows of each phase in it.
        ends: The least and the greatest value of each of the columns ``BOUNDED``.
        damage: How it differs from what was written; empty where it does not.
    """

    rows: int
    phases: tuple[tuple[str, int], ...]
    ends: tuple[Ends, ...]
    damage: str = ""


MayHold = Callable[[int, PartFacts], bool]  # of a part's trial and facts
_FLIPPED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Gt: ast.Lt,
    ast.GtE: ast.LtE,
    ast.Lt: ast.Gt,
    ast.LtE: ast.GtE,
    ast.Eq: ast.Eq,
}
# whether some value from ``low`` to ``high`` is on the right side of a number
_REACHES: Mapping[type[ast.cmpop], Callable[[Ends, Any], bool]] = {
    ast.Gt: lambda ends, number: ends[1] > number,
    ast.GtE: lambda ends, number: ends[1] >= number,
    ast.Lt: lambda ends, number: ends[0] < number,
    ast.LtE: lambda ends, number: ends[0] <= number,
    ast.Eq: lambda ends, number: ends[0] <= number <= ends[1],
}


def anything(trial: int, facts: PartFacts) -> bool:
    """Leave no part out but those without rows."""
    return facts.rows > 0


def may_hold(node: ast.expr) -> MayHold:
    """Return which parts can hold a row that meets a condition, given as Python's syntax tree."""
    match node:
        case ast.BoolOp(op=ast.And(), values=parts):
            every = [may_hold(part) for part in parts]
            return lambda trial, facts: all(one(trial, facts) for one in every)
        case ast.BoolOp(op=ast.Or(), values=parts):
            some = [may_hold(part) for part in parts]
            return lambda trial, facts: any(one(trial, facts) for one in some)
        case ast.Compare(left=left, ops=ops, comparators=others):
            each = [_pair(*pair, sign) for pair, sign in zip(pairwise([left, *others]), ops, strict=True)]
            return lambda trial, facts: all(one(trial, facts) for one in each)
    return anything


def _pair(left: ast.expr, right: ast.expr, sign: ast.cmpop) -> MayHold:
    """Return which parts can hold a row of which ``left sign right`` is true."""
    match left, right, sign:
        case ast.Name(id=column), ast.List(elts=options) | ast.Tuple(elts=options) | ast.Set(elts=options), ast.In():
            each = [_compared(column, ast.Eq, _number(one)) for one in options]
            return lambda trial, facts: any(one(trial, facts) for one in each)
        case ast.Name(id=column), _, _:
            return _compared(column, type(sign), _number(right))
        case _, ast.Name(id=column), _ if type(sign) in _FLIPPED:
            return _compared(column, _FLIPPED[type(sign)], _number(left))
    return anything


def _compared(column: str, sign: type[ast.cmpop], value: Any) -> MayHold:
    if column == "phase" and sign is ast.Eq and isinstance(value, str):
        return lambda _, facts: any(phase == value for phase, _ in facts.phases)
    reaches = _REACHES.get(sign)
    if reaches is None or isinstance(value, str) or value is None:
        return anything
    if column == "trial":
        return lambda trial, facts: facts.rows > 0 and reaches((trial, trial), value)
    if column not in BOUNDED:
        return anything
    place = BOUNDED.index(column)
    return lambda _, facts: reaches(facts.ends[place], value)


def _number(node: ast.expr) -> Any:
    """Return a constant; None for anything else."""
    match node:
        case ast.Constant(value=bool()):
            return None
        case ast.Constant(value=int() | float() | str() as constant):
            return constant
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.BinOp(left=ast.Constant(value=int() | float() as above), op=ast.Div(), right=below):
            number = _number(below)
            return above / number if isinstance(number, int | float) and number else None
    return None
