"""The small language of ``--where``: comparisons over the episode columns, parsed, never evaluated.

    accuracy_after > 0.9 and phase == 'validation'
    trial in [3, 7] and not (loss_after < loss_before)

A column of trials may have a name with dots and square brackets, such as ``learner.update.rate > 0.1``.

Python's parser reads the text. Each allowed node becomes a pyarrow expression; any other node is
refused with its place. No part of the text runs as code.

Accuracies are fractions of the queries. Versions up to 0.2 recorded them in float32, where 3 of 5 is more than 0.6;
they are compared, and shown, as the fractions that they stand for (``counted``, ``counted_row``).
"""

import ast
import operator
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from metaloom.learners.errors import BadInput, unknown

if TYPE_CHECKING:
    import pyarrow.compute as pc

COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
JOIN: dict[type[ast.boolop], Callable[[Any, Any], Any]] = {ast.And: operator.and_, ast.Or: operator.or_}
ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
ACCURACIES = ("accuracy_before", "accuracy_after")
COUNTS = ("ways", "queries")
MAX_LENGTH = 2000  # a longer text is a mistake, and Python's parser recurses on depth


class FilterError(BadInput):
    """A ``--where`` expression that cannot be read."""


def parse_filter(text: str, columns: Sequence[str]) -> "pc.Expression":
    """Turn ``text`` into a pyarrow expression over ``columns``; raises FilterError for any other syntax."""
    return _FilterReader(text, columns).condition(tree_of(text))


def parse_conditions(text: str, columns: Sequence[str]) -> "list[tuple[pc.Expression, frozenset[str]]]":
    """Split ``text`` at its outermost ``and``; return each condition with its columns. Raises as ``parse_filter``."""
    reader, tree = _FilterReader(text, columns), tree_of(text)
    parts = tree.values if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And) else [tree]
    names = [frozenset(map(ast.unparse, filter(reader.names_column, ast.walk(part)))) & {*columns} for part in parts]
    return [(reader.condition(part), named) for part, named in zip(parts, names, strict=True)]


def tree_of(text: str) -> ast.expr:
    """Parse ``text`` as Python; raises FilterError where that fails."""
    if len(text) > MAX_LENGTH:
        raise FilterError(f"--where: {len(text)} characters; at most {MAX_LENGTH} are read")
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise FilterError(f"--where: cannot read {text!r}: {error}. Example: accuracy_after > 0.9") from error


@dataclass(frozen=True)
class _FilterReader:
    """Walks the syntax tree. Conditions are true or false; values are columns and constants."""

    text: str
    columns: Sequence[str]

    def condition(self, node: ast.expr) -> "pc.Expression":
        match node:
            case ast.BoolOp(op=join, values=parts):
                return reduce(JOIN[type(join)], map(self.condition, parts))
            case ast.UnaryOp(op=ast.Not(), operand=part):
                return ~self.condition(part)
            case ast.Compare():
                return self._comparison(node)
            case ast.expr() if self.names_column(node):
                return self._column(node)  # a column that is itself true or false
        raise self._refused(node, "is neither a comparison nor joined by and, or, not")

    def _comparison(self, node: ast.Compare) -> "pc.Expression":
        """Read ``a < b < c`` as Python does: every neighbouring pair must hold."""
        sides = pairwise([node.left, *node.comparators])
        return reduce(operator.and_, (self._pair(*pair, sign) for pair, sign in zip(sides, node.ops, strict=True)))

    def _pair(self, left: ast.expr, right: ast.expr, sign: ast.cmpop) -> "pc.Expression":
        if isinstance(sign, ast.In | ast.NotIn):
            inside = self.value(left).isin(self._options(right))
            return inside if isinstance(sign, ast.In) else ~inside
        if isinstance(sign, ast.Is | ast.IsNot):
            if not (isinstance(right, ast.Constant) and right.value is None):
                raise self._refused(right, "may follow 'is' only as None")
            missing = self.value(left).is_null()
            return missing if isinstance(sign, ast.Is) else ~missing
        return COMPARE[type(sign)](self.value(left), self.value(right))

    def _options(self, node: ast.expr) -> list[Any]:
        if not isinstance(node, ast.List | ast.Tuple | ast.Set):
            raise self._refused(node, "must be a list after 'in', such as [1, 2]")
        return [self._constant(element) for element in node.elts]

    def value(self, node: ast.expr) -> "pc.Expression":
        import pyarrow.compute as pc

        match node:
            case ast.expr() if self.names_column(node):
                return self._column(node)
            case ast.BinOp(left=left, op=sign, right=right) if type(sign) in ARITHMETIC:
                sides = self.value(left), self.value(right)
                # As in Python, 2 / 3 is no whole number; Arrow would divide integers to one.
                first = sides[0].cast("float64") if isinstance(sign, ast.Div) else sides[0]
                return ARITHMETIC[type(sign)](first, sides[1])
            case ast.UnaryOp(op=ast.USub(), operand=part) if isinstance(part, ast.BinOp) or self.names_column(part):
                return pc.negate(self.value(part))
        return pc.scalar(self._constant(node))

    def _constant(self, node: ast.expr) -> int | float | str | bool:
        match node:
            case ast.Constant(value=bool() | int() | float() | str() as constant) if fits(constant):
                return constant
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)) if fits(number):
                return -number
            case ast.Constant(value=int()) | ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int())):
                raise self._refused(node, "has more than 63 bits")
        raise self._refused(node, "is neither a column nor a number nor a text in quotes")

    def names_column(self, node: ast.AST) -> bool:
        """Return whether a node may only be a column's name; those of trials have dots and square brackets."""
        is_dotted = isinstance(node, ast.Attribute | ast.Subscript) and any("." in column for column in self.columns)
        return isinstance(node, ast.Name) or is_dotted

    def _column(self, node: ast.expr) -> "pc.Expression":
        import pyarrow.compute as pc

        name = ast.unparse(node)
        if name not in self.columns:
            raise FilterError(f"--where: {unknown('column', name, self.columns)}")
        is_counted = name in ACCURACIES and set(COUNTS) <= set(self.columns)
        return counted(name) if is_counted else pc.field(name)

    def _refused(self, node: ast.expr, why: str) -> FilterError:
        part = ast.get_source_segment(self.text.strip(), node) or self.text
        return FilterError(f"--where: {part!r} {why}. Columns: {', '.join(sorted(self.columns))}")


def fits(number: object) -> bool:
    """Return whether a value is no whole number that is greater than any column can hold."""
    return not isinstance(number, int) or abs(number) < 2**63


def counted(column: str) -> "pc.Expression":
    """Return the expression of a column of accuracies as fractions of their queries; see ``counted_row``."""
    import pyarrow.compute as pc

    stored, queries = pc.field(column), (pc.field("ways") * pc.field("queries")).cast("float64")
    fraction = pc.divide(pc.round(stored * queries), queries)  # NaN, and no error, where no queries are counted
    return pc.if_else(fraction.cast("float32") == stored.cast("float32"), fraction, stored)


def counted_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return an episode's row with each accuracy that was stored in float32 as the fraction of the queries it was."""
    queries = (row["ways"] or 0) * (row["queries"] or 0)
    exact = {name: _fraction(row[name], queries) for name in ACCURACIES}
    listed = row["accuracies"]
    return {**row, **exact, "accuracies": listed and [_fraction(one, queries) for one in listed]}


def _fraction(stored: float | None, queries: int) -> float | None:
    if stored is None or not queries:
        return stored
    fraction = round(stored * queries) / queries
    return fraction if _in_float32(fraction) == _in_float32(stored) else stored


def _in_float32(value: float) -> float:
    (rounded,) = struct.unpack("f", struct.pack("f", value))
    return float(rounded)
