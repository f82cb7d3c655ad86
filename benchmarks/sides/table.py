"""Who is measured. Add a side by adding a row to SIDES."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks.sides.own import ours, passes
from benchmarks.sides.peers import jax, pytorch, scikit_learn
from benchmarks.sides.products import SQUARE, products, square
from benchmarks.sides.work import Epoch, Work


@dataclass(frozen=True)
class Side:
    """Who is measured: how it trains, which library it needs, and whether it trains several members at once."""

    train: Callable[[Work], Epoch]
    library: str = "numpy"
    several: bool = True
    quick: bool = True  # in a quick run too
    shapes: tuple[str, ...] = ("S", "M", "L")


OURS, PRODUCTS, SQUARES = "ours", "NumPy, same products", f"NumPy, {SQUARE} square"
FORWARD, LOSS, GRADIENTS = "one forward pass", "one loss", "all gradients"
DIFFERENCE, BLIND = "one gradient by differences", "ours, gradients not watched"
EAGER = ("PyTorch foreach", "PyTorch fused")
COMPILED = "PyTorch compiled"
SIDES: dict[str, Side] = {
    OURS: Side(ours),
    EAGER[0]: Side(partial(pytorch, fused=False), "torch"),
    EAGER[1]: Side(partial(pytorch, fused=True), "torch"),
    COMPILED: Side(partial(pytorch, fused=True, compiled=True), "torch", several=False, quick=False),
    "JAX, call a step": Side(partial(jax, scanned=False), "jax", quick=False),
    "JAX, call an epoch": Side(partial(jax, scanned=True), "jax"),
    "scikit-learn, one head": Side(scikit_learn, "sklearn", several=False, quick=False),
    PRODUCTS: Side(products, several=False, shapes=("L",)),
    SQUARES: Side(square, several=False, shapes=("L",)),
    BLIND: Side(partial(ours, watched=False), several=False),
    FORWARD: Side(partial(passes, kind="forward"), several=False),
    LOSS: Side(partial(passes, kind="loss"), several=False),
    GRADIENTS: Side(partial(passes, kind="gradients"), several=False),
    DIFFERENCE: Side(partial(passes, kind="difference"), several=False),
}
PEERS = tuple(name for name, side in SIDES.items() if side.library != "numpy" and name not in EAGER)
