"""The objective of a training: heads, each a loss on some of a network's outputs, and their weighted sum."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.errors import BadInput
from model.network.activations import Array
from model.network.losses import CategoricalCrossEntropy, Loss, Target, check


@dataclass(frozen=True)
class Head:
    """One of a network's outputs: its loss, and what that counts for in the joint loss."""

    loss: Loss
    weight: float = 1.0
    name: str = ""

    def __post_init__(self) -> None:
        check(f"the weight of head {self.name!r}", self.weight, self.weight >= 0, "0 or more")


def _check_fit(
    heads: Sequence[Head], outputs: Array, targets: Sequence[Target], weight: Array, d_outputs: Array
) -> None:
    """Raises BadInput unless columns, shapes and types are what `bind` says of its arguments."""
    columns, width = [head.loss.outputs for head in heads], outputs.shape[2]
    if not heads or len(targets) != len(heads) or width != sum(columns):
        raise BadInput(f"heads of {columns} columns for {width} columns and {len(targets)} targets")
    rows, dtype = outputs.shape[:2], outputs.dtype
    weighed = rows if weight.ndim == 2 else (len(heads), *rows)
    wanted: list[tuple[Target, Any, Any]] = [(d_outputs, dtype, outputs.shape), (weight, dtype, weighed)]
    for head, target in zip(heads, targets, strict=True):
        classes = isinstance(head.loss, CategoricalCrossEntropy)
        wanted.append((target, np.dtype(np.int64) if classes else dtype, rows))
    for array, type_, shape in wanted:
        if (array.dtype, array.shape) != (type_, shape):
            raise BadInput(f"{array.dtype} {array.shape} where {type_} {shape} is wanted")


def bind(
    heads: Sequence[Head], outputs: Array, targets: Sequence[Target], weight: Array, d_outputs: Array
) -> Callable[[], Array]:
    """A call that fills `d_outputs` (K, B, W) with the gradient of the joint loss, and gives the members' losses (K,).

    The joint loss is the sum over heads of head.weight * mean over B of (weight * loss). Heads read consecutive columns
    of `outputs` (K, B, W), `targets` (K, B) belong to them in the same order, `weight` (K, B) weighs rows, or (H, K, B)
    each head's. All arrays may change between calls; the losses' array is the same at each. Raises BadInput where arrays do not fit together.

    A call allocates nothing as long as rows and members lie at one stride, as in columns of a contiguous array; rows
    cut from a longer array are right too, but buffered by NumPy where K > 1.
    """
    _check_fit(heads, outputs, targets, weight, d_outputs)
    members, rows, _ = outputs.shape
    # (H, K, B), so that each head's part is contiguous: NumPy would buffer what it cannot walk at one stride
    losses = np.empty((len(heads), members, rows), outputs.dtype)
    of_heads, of_members = (np.empty(shape, outputs.dtype) for shape in (losses.shape[:2], members))
    row_weight, per_row = np.empty(weight.shape, outputs.dtype), np.array(1 / rows, outputs.dtype)
    weighings, calls, column = [], [], 0
    for i, (head, target) in enumerate(zip(heads, targets, strict=True)):
        columns = slice(column, column + head.loss.outputs)
        column = columns.stop
        own = of_head = row_weight if weight.ndim == 2 else row_weight[i]
        if head.weight != 1:
            own = np.empty_like(of_head)
            weighings.append((of_head, np.array(head.weight, outputs.dtype), own))
        calls.append(head.loss.bind(outputs[..., columns], target, own, losses[i], d_outputs[..., columns]))

    def call() -> Array:
        np.multiply(weight, per_row, row_weight)
        for of_head, head_weight, own in weighings:
            np.multiply(of_head, head_weight, own)
        for head_call in calls:
            head_call()
        np.add.reduce(losses, axis=2, out=of_heads)
        np.add.reduce(of_heads, axis=0, out=of_members)
        return of_members

    return call
