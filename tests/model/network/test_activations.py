"""Laws of every activation: its value, its slope, its extremes, its flat sides, its gain."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import elementwise_grad

from model.network.activations import ACTIVATIONS, Array, sigmoid

# Written anew, for an automatic differentiation that knows nothing of the rows' own slopes.
AS_IN_THE_PAPERS: dict[str, Callable[[Any], Any]] = {
    "identity": lambda z: z,
    "relu": lambda z: anp.where(z > 0, z, 0.0),
    "leaky_relu": lambda z: anp.where(z > 0, z, 0.01 * z),
    "elu": lambda z: anp.where(z > 0, z, anp.exp(z) - 1),
    "tanh": lambda z: (anp.exp(z) - anp.exp(-z)) / (anp.exp(z) + anp.exp(-z)),
    "sigmoid": lambda z: 1 / (1 + anp.exp(-z)),
    "softplus": lambda z: anp.log(1 + anp.exp(z)),
    "silu": lambda z: z / (1 + anp.exp(-z)),
    "gelu": lambda z: 0.5 * z * (1 + anp.tanh(anp.sqrt(2 / anp.pi) * (z + 0.044715 * z**3))),
}
TORCH = {"leaky_relu": {"negative_slope": 0.01}, "gelu": {"approximate": "tanh"}}

# (K, B, width): no point within a step of a kink at 0
Z = (np.linspace(-12, 12, 1200) + 0.0017).reshape(3, 25, 16)


def value(name: str, z: Array, scratch: Array | None = None, in_place: bool = False) -> Array:
    """f(z), with scratch that is zero unless it is given."""
    kept = z.copy()
    out = kept if in_place else np.full_like(z, np.nan)
    ACTIVATIONS[name].value(kept, out, np.zeros_like(z) if scratch is None else scratch)
    assert in_place or kept.tobytes() == z.tobytes()
    return out


def slope(name: str, z: Array) -> Array:
    """f'(z), given only what the row says that it reads, and scratch as its own value left it."""
    row, scratch = ACTIVATIONS[name], np.zeros_like(z)
    a = value(name, z, scratch)
    out = np.full(z.shape, True) if row.binary else np.full_like(z, np.nan)
    kept, before = z.copy() if row.keeps_z else a, a.copy()
    row.slope(kept, a, out, scratch)
    assert a.tobytes() == before.tobytes()
    assert not row.keeps_z or kept.tobytes() == z.tobytes()
    # and once more, with what both left there
    np.testing.assert_array_equal(value(name, z, scratch), a)
    return out


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_value_and_slope_agree_with_an_independent_automatic_differentiation(name: str) -> None:
    assert name in AS_IN_THE_PAPERS, f"write {name} as its paper has it, as an oracle for its row"
    oracle = AS_IN_THE_PAPERS[name]
    for z in (Z, np.array([0.0])):
        np.testing.assert_allclose(value(name, z), oracle(z), rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(slope(name, z), elementwise_grad(oracle)(z), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_value_and_slope_agree_with_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch, which CI installs")
    theirs = getattr(torch.nn.functional, name, None) or (lambda z: z)
    for at in (Z, np.array([0.0, -0.0, 700.0, -700.0, 1e6, -1e6])):
        z = torch.tensor(at, requires_grad=True)
        a = theirs(z, **TORCH.get(name, {}))
        (d_z,) = torch.autograd.grad(a.sum(), z)
        np.testing.assert_allclose(value(name, at), a.detach().numpy(), rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(slope(name, at), d_z.numpy(), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_slope_agrees_with_central_differences(name: str) -> None:
    h = 1e-5
    numerical = (value(name, Z + h) - value(name, Z - h)) / (2 * h)
    np.testing.assert_allclose(slope(name, Z), numerical, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", [name for name, row in ACTIVATIONS.items() if not row.keeps_z])
def test_in_place_is_bit_for_bit_the_same(name: str) -> None:
    for z in (Z, np.float32(Z)):
        assert value(name, z, in_place=True).tobytes() == value(name, z).tobytes()


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extremes_are_finite_and_keep_their_type(name: str, dtype: type) -> None:
    far = np.finfo(dtype).max / 4
    z = np.array([-far, -1e20, -1e4, -100, -1, 0, 1, 100, 1e4, 1e20, far], dtype)  # a warning fails the test
    a, d = value(name, z), slope(name, z)
    assert a.dtype == dtype
    assert d.dtype == (bool if ACTIVATIONS[name].binary else dtype)
    assert np.isfinite(a).all()
    assert np.isfinite(d).all()
    ends = slope(name, np.array([-50, 50], dtype))  # where all of them have gone straight
    np.testing.assert_allclose(d[[0, 1, 2, 3]], ends[0], atol=1e-15)
    np.testing.assert_allclose(d[[-1, -2, -3, -4]], ends[1], atol=1e-15)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_members_do_not_mix(name: str) -> None:
    z = np.float32(Z[:, :5, :7].copy())  # of a size that no vector register divides
    for of in (value, slope):
        together = of(name, z)
        for k in range(len(z)):
            assert together[k].tobytes() == of(name, z[k : k + 1].copy())[0].tobytes()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_call_allocates_no_array_data(name: str) -> None:
    row = ACTIVATIONS[name]
    z, a, scratch = (np.zeros((2, 3000, 5), np.float32) for _ in range(3))
    out = np.empty(z.shape, bool if row.binary else np.float32)
    tracemalloc.start()
    try:
        for _ in range(2):  # the first call may fill caches
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            row.value(z, a, scratch)
            row.slope(z, a, out, scratch)
            peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak - before < 2000  # one array would be 120,000


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_where_a_gate_is_flat_next_to_no_gradient_passes(name: str) -> None:
    row = ACTIVATIONS[name]
    a, size = value(name, Z), np.abs(slope(name, Z).astype(float))
    flat = row.is_flat(Z if row.keeps_z else a, a)
    assert flat.shape == Z.shape
    assert flat.dtype == bool
    assert row.flat_means in ("dead", "saturated")
    if name in ("identity", "leaky_relu"):
        assert not flat.any()  # these always pass a gradient on
        return
    assert flat.any()
    assert not flat.all()
    assert size[flat].max() < 0.05 * size.max()
    first, last = Z[~flat].min(), Z[~flat].max()  # flat is all that lies further out, and nothing else
    np.testing.assert_array_equal(flat, (first > Z) | (last < Z))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gains_keep_the_signals_second_moment(name: str) -> None:
    """gain² E[f(z)²] = 1 for a standard normal z, by quadrature; tanh and sigmoid have gains by tradition."""
    if name in ("tanh", "sigmoid"):
        assert ACTIVATIONS[name].gain == {"tanh": 5 / 3, "sigmoid": 1.0}[name]
        return
    z = np.linspace(-12, 12, 240_001)
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    moment = np.sum(value(name, z) ** 2 * density) * (z[1] - z[0])
    assert ACTIVATIONS[name].gain == pytest.approx(1 / np.sqrt(moment), rel=1e-4)


def test_sigmoid_is_the_logistic_function_on_both_sides() -> None:
    z = np.linspace(-30, 30, 241)
    np.testing.assert_allclose(sigmoid(z), 1 / (1 + np.exp(-z)), rtol=1e-15)
    np.testing.assert_allclose(sigmoid(-z), 1 - sigmoid(z), atol=1e-15)
