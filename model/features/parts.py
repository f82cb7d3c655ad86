"""An expression taken apart, so that what needs no frame of its own is computed without one.

Three kinds of work are in a feature, and frames matter to the bits of one of them alone:

- bar by bar: sums, quotients, logs, bounds. The same wherever it is done.
- exact windows: a shift, the extreme of a window, a sum with weights. Each value comes from the bars in its window
  and nothing else, so a whole history has them at once.
- running sums: the mean or deviation of a window, which is the one before it, one bar added and one taken away. These
  carry their rounding along from where their frame begins, and are what frames are for.

A kind of work bar by bar is a row in `_bar_by_bar`. An expression with anything in it that is not known here stays
whole, and is computed in its frames.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import Any

import polars as pl

_EXTREMES = {"Min": pl.min_horizontal, "Max": pl.max_horizontal}
# They are finite and above 0, so that an extreme of theirs is one and the same in whatever order they are compared.
_PRICES = ("open", "high", "low", "close")


@dataclass(frozen=True, order=True)
class Extreme:
    """The lowest or the highest of a price in a window of bars; `name` is its definition."""

    of: str
    price: str
    window: int
    name: str


@dataclass(frozen=True)
class Parts:
    """`rest` is computed bar by bar of columns: those the expression began with, and those of the other parts, each
    named by its definition, so that equal ones of several expressions are one. `extremes` are exact windows too."""

    rest: pl.Expr
    exact: dict[str, pl.Expr] = field(default_factory=dict)
    extremes: frozenset[Extreme] = frozenset()
    running: dict[str, pl.Expr] = field(default_factory=dict)

    @property
    def windows(self) -> dict[str, pl.Expr]:
        """All columns but those the expression began with."""
        return self.exact | {each.name: alone(each) for each in self.extremes} | self.running


def serialised(expr: pl.Expr) -> str:
    """An expression's definition as text, the same for one Polars version."""
    # str(expr) leaves out the windows of rolling functions
    return expr.meta.serialize(format="json")


def parted(expr: pl.Expr, reaches: Mapping[str, int], most: int) -> Parts:
    """`expr` in parts. `reaches` says of columns how many earlier bars their exact windows look at, 0 for a bar's own;
    a column that is not in it stands on running sums. Exact windows that reach further than `most` count as running."""
    whole = tree(expr)
    if not whole.known:
        return Parts(pl.col(whole.text), running={whole.text: expr})
    exact: dict[str, pl.Expr] = {}
    extremes: set[Extreme] = set()
    running: dict[str, pl.Expr] = {}

    def without_windows(node: Node) -> pl.Expr:
        if not node.looks_back:
            return node.expr
        if made := _BAR_BY_BAR.get(node.kind):
            return made(*map(without_windows, node.inputs))
        far = _reach(node, reaches)
        if far is None or far > most:
            running[node.text] = node.expr
        elif (extreme := node.extreme) is not None:
            extremes.add(extreme)
        else:
            exact[node.text] = node.expr
        return pl.col(node.text)

    return Parts(without_windows(whole), exact, frozenset(extremes), running)


def alone(extreme: Extreme) -> pl.Expr:
    """An extreme, computed of its price."""
    price = pl.col(extreme.price)
    return price.rolling_min(extreme.window) if extreme.of == "Min" else price.rolling_max(extreme.window)


def in_turn(extremes: Iterable[Extreme]) -> tuple[dict[str, pl.Expr], ...]:
    """Columns step by step: that of a longer window is made of two of a shorter one that cover it, where there is one.

    Its first bars, which have no full window, are not null as those of `alone` are.
    """
    steps: defaultdict[int, dict[str, pl.Expr]] = defaultdict(dict)
    for (of, _), windows in groupby(sorted(extremes), key=lambda each: (each.of, each.price)):
        shorter: Extreme | None = None
        for step, each in enumerate(windows):
            steps[step][each.name] = alone(each)
            if shorter is not None and each.window <= 2 * shorter.window:
                half = pl.col(shorter.name)
                steps[step][each.name] = _EXTREMES[of](half, half.shift(each.window - shorter.window))
            shorter = each
    return tuple(steps[step] for step in sorted(steps))


def reach(expr: pl.Expr, reaches: Mapping[str, int]) -> int | None:
    """How many earlier bars an expression of exact windows looks at; None for any other. `reaches` as in `parted`."""
    return _reach(tree(expr), reaches)


def _reach(node: "Node", reaches: Mapping[str, int]) -> int | None:
    if node.expr.meta.is_column():
        return reaches.get(node.expr.meta.output_name())
    if not node.exact:
        return None
    far = [_reach(each, reaches) for each in node.inputs]
    known = [each for each in far if each is not None]
    return node.back + max(known, default=0) if len(known) == len(far) else None


def _bar_by_bar() -> Iterator[Callable[..., pl.Expr]]:
    yield lambda a, b: a + b
    yield lambda a, b: a - b
    yield lambda a, b: a * b
    yield lambda a, b: a / b
    yield lambda a, b: a % b
    yield lambda a, b: a > b
    yield lambda a, b: a & b
    yield lambda a: ~a
    yield lambda a: a.abs()
    yield lambda a: a.sign()
    yield lambda a: a.sqrt()
    yield lambda a: a.sin()
    yield lambda a: a.cos()
    yield lambda a, base: a.log(base)
    yield lambda a, power: a**power
    yield lambda a, b: pl.max_horizontal(a, b)
    yield lambda a, b: pl.min_horizontal(a, b)
    yield lambda a, low, high: a.clip(low, high)
    yield lambda a, low: a.clip(lower_bound=low)
    yield lambda a, value: a.fill_null(value)
    yield lambda a: a.cast(pl.Float64)
    yield lambda a: a.dt.epoch("us")
    # in the order in which Polars hands out the inputs of an expression
    yield lambda then, otherwise, when: pl.when(when).then(then).otherwise(otherwise)


@dataclass(frozen=True)
class Node:
    """An expression, its definition, and the expressions it is made of."""

    expr: pl.Expr
    text: str
    inputs: "tuple[Node, ...]"

    @cached_property
    def kind(self) -> str:
        """What is done, whatever it is done to: the definition with gaps for the inputs."""
        text = self.text
        # a longer one first: it may hold a shorter one
        for each in sorted((each.text for each in self.inputs), key=len, reverse=True):
            text = text.replace(each, "_", 1)
        return text

    @cached_property
    def shift(self) -> int | None:
        """By how many bars back this is its input; None where it is no such thing."""
        if self.kind != _SHIFT or not self.inputs[1].expr.meta.is_literal():
            return None
        by = pl.select(self.inputs[1].expr).item()
        return by if isinstance(by, int) and by >= 0 else None

    @cached_property
    def window(self) -> dict[str, Any]:
        """Of a rolling function its options, and what it is `of` a window; empty where it is no such thing."""
        if not self.kind.startswith(_ROLLING):
            return {}
        rolling = json.loads(self.text)["Function"]["function"]["RollingExpr"]
        return {"of": rolling["function"], **rolling["options"]}

    @property
    def extreme(self) -> Extreme | None:
        """This, where it is an extreme of a price."""
        if self.window.get("of") not in _EXTREMES or not self.inputs[0].expr.meta.is_column():
            return None
        price = self.inputs[0].expr.meta.output_name()
        found = Extreme(self.window["of"], price, self.window["window_size"], self.text)
        return found if price in _PRICES and serialised(alone(found)) == self.text else None

    @property
    def back(self) -> int:
        """How many bars before its own it looks at, of its inputs."""
        return self.shift or self.window.get("window_size", 1) - 1

    @cached_property
    def exact(self) -> bool:
        """Whether a value comes from the inputs that it looks at and nothing else."""
        if not self.window:
            return self.known
        of, weighted = self.window["of"], bool(self.window["weights"])
        return not self.window["center"] and (of in _EXTREMES or (of == "Sum" and weighted))

    @cached_property
    def looks_back(self) -> bool:
        """Whether there is a shift or a window in it."""
        return self.shift is not None or bool(self.window) or any(each.looks_back for each in self.inputs)

    @cached_property
    def known(self) -> bool:
        """Whether all in it is spoken of above."""
        meta = self.expr.meta
        does = meta.is_column() or meta.is_literal() or self.kind in _BAR_BY_BAR
        return (does or self.shift is not None or bool(self.window)) and all(e.known for e in self.inputs)


def tree(expr: pl.Expr) -> Node:
    """An expression as what it is made of."""
    return Node(expr, serialised(expr), tuple(map(tree, reversed(expr.meta.pop()))))


_A = pl.col("a")
_SHIFT = tree(_A.shift(1)).kind
_ROLLING = tree(_A.rolling_mean(2)).kind.partition('"Mean"')[0]
_BAR_BY_BAR = {
    tree(made(*map(pl.col, "abc"[: made.__code__.co_argcount]))).kind: made for made in _bar_by_bar()
}
