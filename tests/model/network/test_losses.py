"""Laws of every loss: its value, its gradient, its extremes; and of the joint loss of several heads."""

import tracemalloc
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from hypothesis import given
from hypothesis import strategies as st

from model.errors import BadInput
from model.network.activations import Array
from model.network.losses import (
    HUBER_DELTA,
    LOSSES,
    Absolute,
    BinaryCrossEntropy,
    CategoricalCrossEntropy,
    GaussianLikelihood,
    Huber,
    LogCosh,
    Loss,
    Quantile,
    Squared,
    cross_entropy,
)
from model.network.objective import Head, bind

# Each loss as its paper has it, for one row of outputs z (..., w) and targets t (...), written anew.


def _categorical(z: Any, t: Any, smoothing: float, focal: float, weights: Any) -> Any:
    p = anp.exp(z) / anp.sum(anp.exp(z), axis=-1, keepdims=True)
    hard = (np.asarray(t)[..., None] == np.arange(z.shape[-1])).astype(float)
    y = hard * (1 - smoothing) + smoothing / z.shape[-1]
    return anp.sum(-y * np.asarray(weights) * (1 - p) ** focal * anp.log(p), axis=-1)


def _binary(z: Any, t: Any, smoothing: float, focal: float, up_weight: float) -> Any:
    p, y = 1 / (1 + anp.exp(-z[..., 0])), t * (1 - smoothing) + smoothing / 2
    up, down = -((1 - p) ** focal) * anp.log(p), -(p**focal) * anp.log(1 - p)
    return up_weight * y * up + (1 - y) * down


def _huber(z: Any, t: Any, delta: float) -> Any:
    e = anp.abs(z[..., 0] - t)
    return anp.where(e <= delta, 0.5 * e**2, delta * (e - 0.5 * delta))


def _quantile(z: Any, t: Any, level: float) -> Any:
    e = t - z[..., 0]
    return anp.where(e > 0, level * e, (level - 1) * e)


def _gaussian(z: Any, t: Any) -> Any:
    # log of 1/sqrt(2 pi variance) exp(-e²/(2 variance)), less the constant
    variance = anp.exp(z[..., 1])
    return anp.log(anp.sqrt(variance)) + (t - z[..., 0]) ** 2 / (2 * variance)


Oracle = Callable[[Any, Any], Any]
WEIGHTS = (0.5, 2.0, 1.0, 0.0)
CASES: dict[str, list[tuple[Loss, Oracle]]] = {
    "binary_cross_entropy": [
        (BinaryCrossEntropy(s, g, u), lambda z, t, s=s, g=g, u=u: _binary(z, t, s, g, u))
        for s, g, u in [(0, 0, 1), (0.1, 0, 1), (0, 2, 1), (0, 0.5, 1), (0, 0, 3), (0.2, 1.5, 0.3)]
    ],
    "categorical_cross_entropy": [
        (CategoricalCrossEntropy(c, s, g, v), lambda z, t, s=s, g=g, v=v: _categorical(z, t, s, g, v or 1.0))
        for c, s, g, v in [
            *((2, 0, 0, ()), (4, 0, 0, ()), (4, 0.1, 0, ()), (4, 0, 2, ()), (4, 0, 0.5, ())),
            *((4, 0, 0, WEIGHTS), (4, 0.2, 1.5, WEIGHTS)),
        ]
    ],
    "squared": [(Squared(), lambda z, t: (z[..., 0] - t) ** 2)],
    "absolute": [(Absolute(), lambda z, t: anp.abs(z[..., 0] - t))],
    "huber": [(Huber(d), lambda z, t, d=d: _huber(z, t, d)) for d in (1.0, 0.3, 2.5)],
    "log_cosh": [(LogCosh(), lambda z, t: anp.log(anp.cosh(z[..., 0] - t)))],
    "quantile": [(Quantile(q), lambda z, t, q=q: _quantile(z, t, q)) for q in (0.5, 0.1, 0.9)],
    "gaussian_likelihood": [(GaussianLikelihood(), _gaussian)],
}
ALL = [pytest.param(loss, oracle, id=repr(loss)) for cases in CASES.values() for loss, oracle in cases]


def drawn(loss: Loss, members: int, rows: int, seed: int = 0, dtype: type = np.float64) -> tuple[Array, ...]:
    """Outputs (K, B, w), targets and weights (K, B) of a loss."""
    rng = np.random.default_rng(seed)
    outputs = 2 * rng.standard_normal((members, rows, loss.outputs))
    if isinstance(loss, CategoricalCrossEntropy):
        target = rng.integers(0, loss.classes, (members, rows))
    elif isinstance(loss, BinaryCrossEntropy):
        target = (rng.random((members, rows)) < 0.5).astype(dtype)
    else:
        target = rng.standard_normal((members, rows)).astype(dtype)
    return outputs.astype(dtype), target, (0.1 + rng.random((members, rows))).astype(dtype)


def evaluated(loss: Loss, outputs: Array, target: Array, weight: Array | None = None) -> tuple[Array, Array]:
    """What a loss, bound by itself, writes: losses (K, B) and gradient (K, B, w)."""
    weight = np.ones(target.shape, outputs.dtype) if weight is None else weight
    losses, d = np.full(target.shape, np.nan, outputs.dtype), np.full_like(outputs, np.nan)
    before = [array.tobytes() for array in (outputs, target, weight)]
    loss.bind(outputs, target, weight, losses, d)()
    assert before == [array.tobytes() for array in (outputs, target, weight)]
    return losses, d


def test_every_loss_has_its_oracle() -> None:
    assert CASES.keys() == LOSSES.keys(), "write the loss as its paper has it, as an oracle for its row"
    for name, cases in CASES.items():
        assert {type(loss) for loss, _ in cases} == {LOSSES[name]}


@pytest.mark.parametrize(("loss", "oracle"), ALL)
@given(members=st.integers(1, 3), rows=st.integers(1, 7), seed=st.integers(0, 999))
def test_value_and_gradient_agree_with_an_independent_automatic_differentiation(
    loss: Loss, oracle: Oracle, members: int, rows: int, seed: int
) -> None:
    outputs, target, weight = drawn(loss, members, rows, seed)
    losses, d = evaluated(loss, outputs, target, weight)
    np.testing.assert_allclose(losses, weight * oracle(outputs, target), rtol=1e-10, atol=1e-12)
    expected = grad(lambda z: anp.sum(weight * oracle(z, target)))(outputs)
    np.testing.assert_allclose(d, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("loss", "oracle"), ALL)
def test_the_gradient_agrees_with_central_differences(loss: Loss, oracle: Oracle) -> None:
    outputs, target, weight = drawn(loss, 2, 60, seed=1)
    _, d = evaluated(loss, outputs, target, weight)
    h = 1e-5
    for column in range(loss.outputs):
        step = h * (np.arange(loss.outputs) == column)
        above, below = (evaluated(loss, outputs + sign * step, target, weight)[0] for sign in (1, -1))
        np.testing.assert_allclose(d[..., column], (above - below) / (2 * h), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("loss", "oracle"), ALL)
def test_float32_says_the_same_to_its_own_precision(loss: Loss, oracle: Oracle) -> None:
    single = drawn(loss, 2, 300, seed=9, dtype=np.float32)
    double = [a if a.dtype == np.int64 else a.astype(np.float64) for a in single]
    for narrow, wide in zip(evaluated(loss, *single), evaluated(loss, *double), strict=True):
        np.testing.assert_allclose(narrow, wide, rtol=2e-5, atol=2e-6)


def _in_pytorch(torch: Any) -> list[tuple[Loss, Callable[[Any, Any], Any]]]:
    F = torch.nn.functional
    v = torch.tensor(WEIGHTS, dtype=torch.float64)
    bce, ce = F.binary_cross_entropy_with_logits, F.cross_entropy

    def flat(z: Any, t: Any, **options: Any) -> Any:
        return ce(z.reshape(-1, z.shape[-1]), t.reshape(-1), reduction="none", **options).reshape(t.shape)

    return [
        (BinaryCrossEntropy(), lambda z, t: bce(z[..., 0], t, reduction="none")),
        (BinaryCrossEntropy(0.2), lambda z, t: bce(z[..., 0], t * 0.8 + 0.1, reduction="none")),
        (
            BinaryCrossEntropy(up_weight=3),
            lambda z, t: bce(z[..., 0], t, reduction="none", pos_weight=torch.tensor(3.0)),
        ),
        (CategoricalCrossEntropy(4), flat),
        (CategoricalCrossEntropy(4, 0.2), lambda z, t: flat(z, t, label_smoothing=0.2)),
        (CategoricalCrossEntropy(4, 0.0, 0.0, WEIGHTS), lambda z, t: flat(z, t, weight=v)),
        (
            CategoricalCrossEntropy(4, 0.2, 0.0, WEIGHTS),
            lambda z, t: flat(z, t, weight=v, label_smoothing=0.2),
        ),
        (Squared(), lambda z, t: F.mse_loss(z[..., 0], t, reduction="none")),
        (Absolute(), lambda z, t: F.l1_loss(z[..., 0], t, reduction="none")),
        (Huber(0.7), lambda z, t: F.huber_loss(z[..., 0], t, reduction="none", delta=0.7)),
        (Huber(0.7), lambda z, t: 0.7 * F.smooth_l1_loss(z[..., 0], t, reduction="none", beta=0.7)),
        (
            GaussianLikelihood(),
            lambda z, t: F.gaussian_nll_loss(z[..., 0], t, torch.exp(z[..., 1]), reduction="none"),
        ),
    ]


def test_value_and_gradient_agree_with_pytorch() -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch, which CI installs")
    for loss, theirs in _in_pytorch(torch):
        outputs, target, weight = drawn(loss, 3, 40, seed=2)
        target[:, 0] = 0 if loss.outputs > 2 else outputs[:, 0, 0] > 0  # a tie is not wanted, a class is
        z = torch.tensor(outputs, requires_grad=True)
        value = theirs(z, torch.tensor(target)) * torch.tensor(weight)
        (d_z,) = torch.autograd.grad(value.sum(), z)
        losses, d = evaluated(loss, outputs, target, weight)
        np.testing.assert_allclose(losses, value.detach().numpy(), rtol=1e-10, atol=1e-13, err_msg=repr(loss))
        np.testing.assert_allclose(d, d_z.numpy(), rtol=1e-10, atol=1e-13, err_msg=repr(loss))


def test_the_mean_is_by_rows_where_pytorchs_weighted_mean_is_by_the_weights_of_the_targets() -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch, which CI installs")
    loss = CategoricalCrossEntropy(4, class_weights=WEIGHTS)
    outputs, target, _ = drawn(loss, 1, 30, seed=3)
    theirs = torch.nn.functional.cross_entropy(
        torch.tensor(outputs[0]), torch.tensor(target[0]), weight=torch.tensor(WEIGHTS, dtype=torch.float64)
    )
    ours = bind([Head(loss)], outputs, [target], np.ones((1, 30)), np.empty_like(outputs))()
    assert ours[0] == pytest.approx(float(theirs) * np.take(WEIGHTS, target).sum() / 30, rel=1e-12)


@pytest.mark.parametrize(("loss", "oracle"), ALL)
def test_a_small_step_against_the_gradient_lowers_the_loss(loss: Loss, oracle: Oracle) -> None:
    outputs, target, weight = drawn(loss, 1, 200, seed=4)
    losses, d = evaluated(loss, outputs, target, weight)
    lower, _ = evaluated(loss, outputs - 1e-4 * d, target, weight)
    assert (lower <= losses + 1e-15).all()
    assert isinstance(loss, GaussianLikelihood) or (losses >= 0).all()  # a density may exceed 1


@pytest.mark.parametrize(("loss", "oracle"), ALL)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extremes_are_finite_and_keep_their_type(loss: Loss, oracle: Oracle, dtype: type) -> None:
    far = np.array([-1e4, -100, -30, -1, 0, 1, 30, 100, 1e4], dtype)  # a warning of overflow fails the test
    outputs = np.stack(np.meshgrid(*[far] * min(loss.outputs, 2)), axis=-1).reshape(
        1, -1, min(loss.outputs, 2)
    )
    outputs = np.concatenate([outputs, outputs[..., :1] / 2, outputs[..., :1] * 2], axis=2)[
        ..., : loss.outputs
    ]
    for target in (np.zeros(outputs.shape[:2], int), np.ones(outputs.shape[:2], int)):
        given_ = target if isinstance(loss, CategoricalCrossEntropy) else target.astype(dtype)
        losses, d = evaluated(loss, outputs, given_)
        assert np.isfinite(losses).all()
        assert np.isfinite(d).all()
        if not isinstance(loss, Squared | GaussianLikelihood):
            # one row moves the network by no more than its weight, its class's weight and delta allow
            assert np.abs(d).max() <= 3 * 1.5


def test_confident_errors_cost_what_they_should() -> None:
    z, up = np.float32([[[1e4], [1e4], [-1e4], [-1e4]]]), np.float32([[1, 0, 1, 0]])
    for loss in (BinaryCrossEntropy(), BinaryCrossEntropy(focal=2)):
        losses, d = evaluated(loss, z, up)
        np.testing.assert_array_equal(losses, np.float32([[0, 1e4, 1e4, 0]]))
        np.testing.assert_array_equal(d[..., 0], np.float32([[0, 1, -1, 0]]))
    losses, d = evaluated(CategoricalCrossEntropy(2), z * np.float32([0, 1]), up.astype(int))
    np.testing.assert_array_equal(losses, np.float32([[0, 1e4, 1e4, 0]]))
    np.testing.assert_array_equal(d[..., 1], np.float32([[0, 1, -1, 0]]))


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_knowing_nothing_costs_the_log_of_the_number_of_classes(classes: int) -> None:
    target = np.arange(classes)[np.newaxis]
    losses, _ = evaluated(CategoricalCrossEntropy(classes), np.zeros((1, classes, classes)), target)
    np.testing.assert_allclose(losses, np.log(classes))
    losses, _ = evaluated(BinaryCrossEntropy(), np.zeros((1, 2, 1)), np.array([[0.0, 1.0]]))
    np.testing.assert_allclose(losses, np.log(2))


def test_ties_take_the_middle_of_the_slopes_on_both_sides() -> None:
    z, t = np.full((1, 1, 1), 0.3), np.full((1, 1), 0.3)
    for loss, slope in ((Absolute(), 0.0), (Quantile(0.9), -0.4)):
        losses, d = evaluated(loss, z, t)
        assert losses[0, 0] == 0
        assert d[0, 0, 0] == pytest.approx(slope)


@pytest.mark.parametrize("level", [0.1, 0.5, 0.8])
def test_the_best_constant_of_the_quantile_loss_is_the_quantile(level: float) -> None:
    t = np.random.default_rng(5).standard_normal((1, 1000))
    constants = np.linspace(-2, 2, 401)
    sums = [evaluated(Quantile(level), np.full((1, 1000, 1), c), t)[0].sum() for c in constants]
    assert constants[np.argmin(sums)] == pytest.approx(np.quantile(t, level), abs=0.02)


def test_below_the_least_variance_the_gradient_is_still_that_of_the_value() -> None:
    loss, h = GaussianLikelihood(0.01), 1e-5
    z, t = np.array([[[0.3, s] for s in (-4.0, np.log(0.01) - 0.01, -5.0, -9.0)]]), np.full((1, 4), 0.1)
    d = evaluated(loss, z, t)[1]
    for column in (0, 1):
        step = h * (np.arange(2) == column)
        numerical = (evaluated(loss, z + step, t)[0] - evaluated(loss, z - step, t)[0]) / (2 * h)
        np.testing.assert_allclose(d[..., column], numerical, rtol=1e-6)
    assert (
        d[0, :, 1] < 0
    ).all()  # the error is two of the least standard deviations: the variance has to grow


# Heads

MANY = [
    Head(BinaryCrossEntropy(), name="up"),
    Head(Huber(), 0.2, "return"),
    Head(CategoricalCrossEntropy(3, smoothing=0.1), 0.7, "regime"),
    Head(GaussianLikelihood(), 0.3, "likely"),
    Head(Quantile(0.9), 0.0, "watched"),
]


def many(
    members: int, rows: int, dtype: type = np.float64, seed: int = 6
) -> tuple[Array, list[Array], Array]:
    """Outputs (K, B, 8), targets and weights of MANY."""
    parts = [drawn(head.loss, members, rows, seed + i, dtype) for i, head in enumerate(MANY)]
    return np.concatenate([z for z, _, _ in parts], axis=2), [t for _, t, _ in parts], parts[0][2]


@given(members=st.integers(1, 3), rows=st.integers(1, 9), seed=st.integers(0, 999))
def test_the_joint_loss_is_a_mean_and_its_gradient_that_of_the_mean(
    members: int, rows: int, seed: int
) -> None:
    outputs, targets, weight = many(members, rows, seed=seed)

    def mean_losses(z: Any) -> Any:
        up = _binary(z[..., 0:1], targets[0], 0, 0, 1)
        amount = _huber(z[..., 1:2], targets[1], HUBER_DELTA)
        regime = _categorical(z[..., 2:5], targets[2], 0.1, 0, 1.0)
        likely = _gaussian(z[..., 5:7], targets[3])
        return anp.sum(weight * (up + 0.2 * amount + 0.7 * regime + 0.3 * likely), axis=1) / rows

    d = np.full_like(outputs, np.nan)
    losses = bind(MANY, outputs, targets, weight, d)()
    assert losses.shape == (members,)
    np.testing.assert_allclose(losses, mean_losses(outputs), rtol=1e-10)
    np.testing.assert_allclose(d, grad(lambda z: anp.sum(mean_losses(z)))(outputs), rtol=1e-10, atol=1e-13)


def test_strided_views_are_as_good_as_arrays_of_their_own() -> None:
    outputs, targets, weight = many(2, 9, np.float32)
    d = np.empty_like(outputs)
    losses = bind(MANY, outputs, targets, weight, d)()
    wide = np.ones((2, 9, 11), np.float32)  # signals come with a column of ones behind them
    wide[..., :8] = outputs
    d_wide = np.full((2, 9, 11), 7, np.float32)
    assert bind(MANY, wide[..., :8], targets, weight, d_wide[..., :8])().tobytes() == losses.tobytes()
    assert d_wide[..., :8].tobytes() == d.tobytes()
    assert (d_wide[..., 8:] == 7).all()


@pytest.mark.parametrize("rows", [1, 7, 64, 300])
def test_members_do_not_mix(rows: int) -> None:
    outputs, targets, weight = many(3, rows, np.float32)
    d = np.empty_like(outputs)
    losses = bind(MANY, outputs, targets, weight, d)()
    for k in range(3):
        alone = slice(k, k + 1)
        d_alone = np.empty_like(outputs[alone])
        of_one = bind(
            MANY, outputs[alone].copy(), [t[alone].copy() for t in targets], weight[alone].copy(), d_alone
        )
        assert of_one().tobytes() == losses[alone].tobytes()
        assert d_alone.tobytes() == d[alone].tobytes()


def test_what_is_bound_reads_its_arrays_anew_at_each_call() -> None:
    outputs, targets, weight = many(2, 5)
    d = np.empty_like(outputs)
    call = bind(MANY, outputs, targets, weight, d)
    call()
    new_outputs, new_targets, new_weight = many(2, 5, seed=77)
    for old, new in ((outputs, new_outputs), (weight, new_weight), *zip(targets, new_targets, strict=True)):
        old[...] = new
    losses = call()
    expected_d = np.empty_like(outputs)
    expected = bind(MANY, new_outputs, new_targets, new_weight, expected_d)()
    assert losses.tobytes() == expected.tobytes()
    assert d.tobytes() == expected_d.tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_call_allocates_no_array_data(dtype: type) -> None:
    every = [Head(loss) for cases in CASES.values() for loss, _ in cases]
    parts = [drawn(head.loss, 2, 3000, dtype=dtype) for head in every]
    wide = np.concatenate([*(z for z, _, _ in parts), np.ones((2, 3000, 1), dtype)], axis=2)
    targets, d_wide = [t for _, t, _ in parts], np.empty_like(wide)
    call = bind(every, wide[..., :-1], targets, parts[0][2], d_wide[..., :-1])
    call()
    tracemalloc.start()
    try:
        call()
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for _ in range(3):
            call()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak - before < 2000  # views and counters; one array would be 24,000


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BinaryCrossEntropy(smoothing=1.0), "smoothing is 1.0, but has to be at least 0 and below 1"),
        (lambda: BinaryCrossEntropy(focal=-1), "focal is -1"),
        (lambda: BinaryCrossEntropy(up_weight=0), "up_weight is 0"),
        (lambda: BinaryCrossEntropy(focal=float("nan")), "focal is nan"),
        (lambda: CategoricalCrossEntropy(1), "classes is 1"),
        (lambda: CategoricalCrossEntropy(3, smoothing=-0.1), "smoothing is -0.1"),
        (
            lambda: CategoricalCrossEntropy(3, class_weights=(1.0, 2.0)),
            "class_weights are 2, but classes are 3",
        ),
        (lambda: CategoricalCrossEntropy(2, class_weights=(1.0, -2.0)), "a class weight is -2.0"),
        (lambda: Huber(0), "delta is 0"),
        (lambda: Huber(float("inf")), "delta is inf"),
        (lambda: Quantile(1.0), "level is 1.0"),
        (lambda: GaussianLikelihood(0.0), "least_variance is 0.0"),
        (lambda: Head(Huber(), -1.0, "return"), "the weight of head 'return' is -1.0"),
    ],
)
def test_options_that_make_no_sense_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        make()


def test_a_loss_is_a_value() -> None:
    assert Huber(2.0) == Huber(2.0) != Huber(1.0)
    with pytest.raises(FrozenInstanceError):
        Huber().delta = 2.0  # type: ignore[misc]


def test_heads_that_do_not_fit_their_arrays_are_refused() -> None:
    outputs, targets, weight = many(2, 5)
    d = np.empty_like(outputs)
    with pytest.raises(BadInput, match=r"heads of \[1, 1, 3, 2\] columns for 8 columns and 5 targets"):
        bind(MANY[:4], outputs, targets, weight, d)
    with pytest.raises(BadInput, match=r"heads of \[\] columns"):
        bind([], outputs[..., :0], [], weight, d[..., :0])
    with pytest.raises(BadInput, match=r"float64 \(2, 4\) where float64 \(2, 5\) is wanted"):
        bind(MANY, outputs, targets, weight[:, :4], d)
    with pytest.raises(BadInput, match="float32"):
        bind(MANY, outputs, targets, weight, np.float32(d))
    with pytest.raises(BadInput, match=r"float64 .* where int64"):
        bind(MANY, outputs, [*targets[:2], targets[2].astype(float), *targets[3:]], weight, d)
    with pytest.raises(BadInput, match=r"int64 .* where float64"):
        bind(MANY, outputs, [targets[0].astype(np.int64), *targets[1:]], weight, d)


def test_the_plain_cross_entropy_says_the_same_as_the_loss() -> None:
    outputs, targets, _ = many(1, 50)
    value, d = cross_entropy(outputs[0, :, 0], targets[0][0])
    losses, d_outputs = evaluated(MANY[0].loss, outputs[..., :1], targets[0])
    np.testing.assert_allclose(value, losses[0], rtol=1e-12)
    np.testing.assert_allclose(d, d_outputs[0, :, 0], rtol=1e-10, atol=1e-14)
