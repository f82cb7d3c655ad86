"""The newest rows of a frame, a few of them: to the bit as the features' expressions have them, and sooner.

Of a few rows Polars spends nearly all its time between the steps of expressions, of which a feature set has hundreds. So
here it computes what looks back and what is more than arithmetic. The rest is sums, products and bounds, whose bits
IEEE 754 fixes whoever computes them, and they are taken number by number.
"""

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from model.bars import BAR_SCHEMA, timeframe
from model.features.columns import Feature, with_base
from model.features.parts import Node, tree

Row = tuple[float, ...]
Number = Callable[[Row], float]


@dataclass(frozen=True)
class Few:
    """`columns`, all of floats, are computed of a whole frame; `features`, one number each, of a row of them."""

    columns: tuple[pl.Expr, ...]
    features: tuple[Number, ...]

    def values(self, rows: Sequence[Row]) -> list[Row] | None:
        """The features of rows that begin with the columns; None where a number is missing or none, so that it takes
        Polars to tell what comes of it."""
        try:
            found = [tuple([feature(row) for feature in self.features]) for row in rows]
            return found if all(math.isfinite(value) for row in found for value in row) else None
        # a division by 0, a null, the root of a number below 0
        except (ArithmeticError, TypeError, ValueError):
            return None


def few(features: Sequence[Feature]) -> Few:
    """These features, for a few rows; made once for all that have the same ones."""
    key = tuple(map(id, features))
    made = _MADE.get(key)
    if made is None:
        if len(_MADE) >= MOST:
            _MADE.clear()
        made = _MADE[key] = tuple(features), _made(features)
    return made[1]


MOST = 64  # sets of features that are in use at a time
# By the features themselves, which are kept beside so that nothing else gets their numbers.
_MADE: dict[tuple[int, ...], tuple[tuple[Feature, ...], Few]] = {}


def _made(features: Sequence[Feature]) -> Few:
    places: dict[str, int] = {}
    columns: list[pl.Expr] = []
    numbers: list[Number] = []

    def place(name: str, expr: pl.Expr) -> int:
        if name not in places:
            places[name] = len(columns)
            columns.append(expr.alias(name))
        return places[name]

    for feature in features:
        windows, rest = feature.parts.windows, tree(feature.parts.rest)
        needed = {name: windows.get(name, expr) for name, expr in _leaves(rest)}
        if _arithmetic(rest) and _floats(needed.values()):
            numbers.append(_number(rest, {name: place(name, expr) for name, expr in needed.items()}))
        else:
            numbers.append(operator.itemgetter(place(f"feature {feature.name}", feature.expr)))
    return Few(tuple(columns), tuple(numbers))


def _leaves(node: Node) -> Iterator[tuple[str, pl.Expr]]:
    """What Polars computes of it, by name: its columns, and remainders, which are nearly always those of a time."""
    if node.expr.meta.is_column():
        yield node.expr.meta.output_name(), node.expr
    elif node.kind == _REMAINDER:
        yield node.text, node.expr.cast(pl.Float64)
    else:
        for each in node.inputs:
            yield from _leaves(each)


def _arithmetic(node: Node) -> bool:
    """Whether there is nothing but leaves, numbers and arithmetic in it."""
    if node.expr.meta.is_column():
        return True
    if node.kind == _REMAINDER:  # where there are windows in it, it is no column of a frame
        return set(node.expr.meta.root_names()) <= set(_NO_ROWS.columns)
    if node.expr.meta.is_literal():
        return _literal(node).dtype == pl.Float64 or _literal(node).dtype.is_integer()
    # of constants alone Polars may make one before it begins
    constant = not node.expr.meta.root_names()
    return node.kind in _ARITHMETIC and not constant and all(map(_arithmetic, node.inputs))


def _number(node: Node, places: dict[str, int]) -> Number:
    """The node as a function of a row, whose columns lie at these places."""
    if node.expr.meta.is_column() or node.kind == _REMAINDER:
        ((name, _),) = _leaves(node)
        return operator.itemgetter(places[name])
    if node.expr.meta.is_literal():
        value = float(_literal(node).item())
        return lambda _: value
    if node.kind == _QUOTIENT and node.inputs[1].expr.meta.is_literal():
        # so does Polars, which may differ from a quotient in the last bit
        dividend, reciprocal = _number(node.inputs[0], places), 1 / float(_literal(node.inputs[1]).item())
        return lambda row: dividend(row) * reciprocal
    does, inputs = _ARITHMETIC[node.kind], [_number(each, places) for each in node.inputs]
    if len(inputs) == 1:
        (only,) = inputs
        return lambda row: does(only(row))
    if len(inputs) == 2:
        left, right = inputs
        return lambda row: does(left(row), right(row))
    return lambda row: does(*[each(row) for each in inputs])


def _literal(node: Node) -> pl.Series:
    return pl.select(node.expr).to_series()


def _floats(columns: Iterable[pl.Expr]) -> bool:
    """Whether these expressions over a frame are all floats as long as Python's."""
    return all(_NO_ROWS.select(expr).dtypes == [pl.Float64] for expr in columns)


_NO_ROWS = with_base(BAR_SCHEMA.to_frame(), timeframe("1h"))


# Of two equal numbers Polars takes the second, which tells 0 from -0; a bound replaces only what is beyond it.
def _larger(a: float, b: float) -> float:
    return a if a > b else b


def _smaller(a: float, b: float) -> float:
    return a if a < b else b


def _bounded(a: float, low: float, high: float) -> float:
    return low if a < low else high if a > high else a


def _from_below(a: float, low: float) -> float:
    return low if a < low else a


_DOES: tuple[tuple[Callable[..., pl.Expr], Callable[..., float]], ...] = (
    (lambda a, b: a + b, operator.add),
    (lambda a, b: a - b, operator.sub),
    (lambda a, b: a * b, operator.mul),
    (lambda a, b: a / b, operator.truediv),
    (lambda a: a.abs(), abs),
    (lambda a: a.sqrt(), math.sqrt),
    (lambda a, b: pl.max_horizontal(a, b), _larger),
    (lambda a, b: pl.min_horizontal(a, b), _smaller),
    (lambda a, low, high: a.clip(low, high), _bounded),
    (lambda a, low: a.clip(lower_bound=low), _from_below),
    (lambda a, value: a.fill_null(value), lambda a, value: a),
    (lambda a, base: a.log(base), math.log),
    (lambda a: a.sin(), math.sin),
    (lambda a: a.cos(), math.cos),
)


def _kind(made: Callable[..., pl.Expr]) -> str:
    return tree(made(*map(pl.col, "abc"[: made.__code__.co_argcount]))).kind


def _alike(made: Callable[..., pl.Expr], does: Callable[..., float]) -> bool:
    """Whether Polars and Python take a function from one library, as nearly everywhere: the last bit depends on it."""
    sample = [math.exp(power / 37) for power in range(-1_000, 300)]
    inputs = (pl.col("a"), pl.lit(math.e))[: made.__code__.co_argcount]
    return pl.DataFrame({"a": sample}).select(made(*inputs))["a"].to_list() == list(map(does, sample))


_QUOTIENT, _REMAINDER = _kind(lambda a, b: a / b), _kind(lambda a, b: a % b)
_ARITHMETIC = {
    _kind(made): does
    for made, does in _DOES
    if does not in (math.log, math.sin, math.cos) or _alike(made, does)
}
