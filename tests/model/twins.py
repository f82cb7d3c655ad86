"""The features a second time: slowly, one bar at a time, in plain NumPy, from the formulas and not from the table."""

import math
from collections import Counter

import numpy as np
import polars as pl
from numpy.typing import NDArray

Array = NDArray[np.float64]
MICROS_A_DAY = 86_400_000_000


def values(bars: pl.DataFrame, closed_at_micros: int) -> dict[str, float]:
    """Every feature, and `scale`, of the newest of at least 257 `bars`."""
    o, h, lo, c, v = (bars[name].to_numpy() for name in ("open", "high", "low", "close", "volume"))
    x = np.log(c)
    r = x[1:] - x[:-1]  # r[-1] is the newest bar's
    calm = max(0.1 * r[-192:].std(ddof=1), 1e-6)

    def sd(k: int) -> float:
        return float(max(r[-k:].std(ddof=1), calm))

    def clip(value: float, bound: float = 8.0) -> float:
        return min(max(float(value), -bound), bound)

    def place(low: float, high: float, close: float) -> float:
        return clip((2 * close - high - low) / max(high - low, 1e-6 * close), 1)

    def position(k: int, ago: int = 0) -> float:
        end = len(c) - ago
        return place(lo[end - k : end].min(), h[end - k : end].max(), c[end - 1])

    scale = sd(48)
    out: dict[str, float] = {"scale": scale}
    for k in (1, 2, 3, 6, 12, 24, 48, 96, 168):
        out[f"return_{k}"] = clip(math.log(c[-1] / c[-1 - k]) / scale / math.sqrt(k))
    for k in range(1, 9):
        out[f"lag_{k}"] = clip(math.log(c[-1 - k] / c[-2 - k]) / scale)

    for short, long in ((6, 48), (12, 96), (24, 192), (48, 192)):
        out[f"volatility_{short}_{long}"] = clip(math.log(sd(short) / sd(long)), 3)
    span, body = np.log(h / lo), np.log(c / o)
    parkinson = math.sqrt(max((span[-24:] ** 2).sum() / (24 * 4 * math.log(2)), calm**2))
    garman_klass = (0.5 * span[-24:] ** 2 - (2 * math.log(2) - 1) * body[-24:] ** 2).mean()
    out["parkinson_24"] = clip(math.log(parkinson / sd(24)), 3)
    out["garman_klass_24"] = clip(math.log(math.sqrt(max(garman_klass, calm**2)) / sd(24)), 3)
    out["range_1"] = clip(span[-1] / scale)
    out["move_6"] = clip(np.abs(r[-6:]).mean() / scale)

    for k in (12, 24, 48, 96, 192):
        out[f"z_{k}"] = clip((x[-1] - x[-k:].mean()) / max(x[-k:].std(ddof=1), calm))
        out[f"position_{k}"] = position(k)

    out["body"] = clip(body[-1] / scale)
    out["upper_wick"] = clip(math.log(h[-1] / max(o[-1], c[-1])) / scale)
    out["lower_wick"] = clip(math.log(min(o[-1], c[-1]) / lo[-1]) / scale)
    out["opening_gap"] = clip(math.log(o[-1] / c[-2]) / scale)
    location = np.array([place(lo[i], h[i], c[i]) for i in range(len(c))])
    out["close_location"] = location[-1]
    out["close_location_6"] = location[-6:].mean()

    usual = np.array([v[i - 95 : i + 1].mean() if i >= 95 else math.nan for i in range(len(v))])
    relative = np.where(usual > 0, v / np.where(usual > 0, usual, 1.0), 1.0)
    for k in (1, 3, 12, 48, 144):
        out[f"volume_{k}"] = clip(math.log(relative[-k:].mean() + 0.01))
    for k in (48, 144):
        w = relative[-k:]
        out[f"volume_z_{k}"] = clip((w[-1] - w.mean()) / max(w.std(ddof=1), 0.01))
    for k in (6, 24, 96):
        w = relative[-k:]
        out[f"signed_volume_{k}"] = clip((w * np.sign(r[-k:])).mean() / max(w.mean(), 0.01), 1)
    w = relative[-24:]
    out["money_flow_24"] = clip((w * location[-24:]).mean() / max(w.mean(), 0.01), 1)

    for k in (7, 14, 28, 56):
        d = c[1:] - c[:-1]
        gain, loss = np.maximum(d[-k:], 0).sum(), np.maximum(-d[-k:], 0).sum()
        out[f"rsi_cutler_{k}"] = clip((gain - loss) / max(gain + loss, calm * c[-1]), 1)
    out["stochastic_14"] = position(14)
    out["stochastic_14_3"] = (position(14) + position(14, 1) + position(14, 2)) / 3

    for k in (12, 48):
        out[f"up_fraction_{k}"] = ((r[-k:] > 0).sum() - (r[-k:] < 0).sum()) / k
    y = []  # each return in the volatility of its own time
    for end in range(len(r) - 62, len(r) + 1):
        long_run, short_run = r[end - 192 : end].std(ddof=1), r[end - 48 : end].std(ddof=1)
        y.append(clip(r[end - 1] / max(short_run, 0.1 * long_run, 1e-6)))
    for k in (24, 60):
        products = [y[-1 - i] * y[-2 - i] for i in range(k)]
        w = np.array(y[-k:])
        out[f"autocorrelation_{k}"] = clip(np.mean(products) / max(np.mean(w**2), 0.01), 1)
        out[f"skew_{k}"] = clip(((w - w.mean()) ** 3).mean() / max(w.std(ddof=1), 0.1) ** 3, 4)

    def mean(values: Array, alpha: float, k: int) -> float:
        weights = (1 - alpha) ** np.arange(k)
        return float((values[::-1][:k] * weights).sum() / weights.sum())

    typical, d = (h + lo + c) / 3, c[1:] - c[:-1]
    reach = np.maximum(h[1:], c[:-1]) - np.minimum(lo[1:], c[:-1])
    for k in (24, 96):
        gap, inside = (
            np.log(o[1:] / c[:-1])[-k:],
            (np.log(h / o) * np.log(h / c) + np.log(lo / o) * np.log(lo / c))[-k:],
        )
        share = 0.34 / (1.34 + (k + 1) / (k - 1))
        variance = gap.var(ddof=1) + share * body[-k:].var(ddof=1) + (1 - share) * inside.mean()
        out[f"yang_zhang_{k}"] = clip(math.log(math.sqrt(max(variance, calm**2)) / sd(k)), 3)
        steps = np.arange(k) - (k - 1) / 2
        slope = (steps * (x[-k:] - x[-1])).sum() / (steps**2).sum()
        out[f"slope_{k}"] = clip(slope * math.sqrt(k) / scale)
        traded = v[-k:].sum()
        usual_price = (typical * v)[-k:].sum() / traded if traded > 0 else typical[-k:].mean()
        out[f"vwap_{k}"] = clip(math.log(c[-1] / usual_price) / scale / math.sqrt(k))
    out["atr_14"] = clip(math.log(max(mean(reach, 1 / 14, 255) / (c[-1] * scale), math.exp(-3))), 3)

    fast = slow = x[-256]
    signal = 0.0
    for value in x[-255:]:
        fast, slow = fast + 2 / 13 * (value - fast), slow + 2 / 27 * (value - slow)
        signal += 0.2 * (fast - slow - signal)
    out["macd_12_26"] = clip((fast - slow) / scale)
    out["macd_12_26_9"] = clip((fast - slow - signal) / scale)
    up, down = h[1:] - h[:-1], lo[:-1] - lo[1:]
    rises, falls = np.where((up > down) & (up > 0), up, 0), np.where((down > up) & (down > 0), down, 0)
    index = []
    for end in range(len(up) - 126, len(up) + 1):
        a, b = mean(rises[:end], 1 / 7, 127), mean(falls[:end], 1 / 7, 127)
        index.append(abs(a - b) / max(a + b, 1e-6 * c[end]))
    out["adx_7"] = mean(np.array(index), 1 / 7, 127)
    out["direction_7"] = clip((a - b) / max(mean(reach, 1 / 7, 127), 1e-6 * c[-1]), 1)

    for k in (7, 14):
        out[f"rsi_{k}"] = clip(mean(d, 1 / k, 255) / max(mean(np.abs(d), 1 / k, 255), 1e-6 * c[-1]), 1)
    middle = typical[-20:].mean()
    spread = np.abs(typical[-20:] - middle).mean()
    out["cci_20"] = clip((typical[-1] - middle) / max(spread, 1e-6 * typical[-1]))
    money, turn = (typical * v)[-14:], np.sign(typical[1:] - typical[:-1])[-14:]
    rising, falling = money[turn > 0].sum(), money[turn < 0].sum()
    out["mfi_14"] = (rising - falling) / (rising + falling) if rising + falling > 0 else 0.0
    traded = v[-24:].sum()
    out["obv_24"] = (v[-24:] * np.sign(d[-24:])).sum() / traded if traded > 0 else 0.0

    w = np.array(y[-60:])
    deviations = w - w.mean()
    out["kurtosis_60"] = clip((deviations**4).mean() / max((deviations**2).mean(), 0.01) ** 2 - 3)
    far = np.array([sum(y[-1 - i - j] for j in range(4)) for i in range(60)])
    ratio = max((far**2).mean() / 4, 0.01) / max((w**2).mean(), 0.01)
    out["hurst_4_60"] = clip(math.log(ratio) / (2 * math.log(4)), 0.5)
    past = np.array(
        [math.exp(math.lgamma(i + 0.6) - math.lgamma(0.6) - math.lgamma(i + 1)) for i in range(191)]
    )
    out["fractional_04"] = clip((past * r[::-1][:191]).sum() / math.sqrt((past**2).sum()) / scale)
    pairs = Counter(zip((r[-25:-1] > 0).tolist(), (r[-24:] > 0).tolist(), strict=True))
    out["entropy_24"] = -sum(n / 24 * math.log(n / 24) for n in pairs.values()) / math.log(4)

    day = closed_at_micros % MICROS_A_DAY / MICROS_A_DAY
    weekday = (closed_at_micros // MICROS_A_DAY + 3) % 7  # Monday is 0; 1970-01-01 was a Thursday
    out["hour_sin"], out["hour_cos"] = math.sin(2 * math.pi * day), math.cos(2 * math.pi * day)
    week = 2 * math.pi * (weekday + day) / 7
    out["weekday_sin"], out["weekday_cos"] = math.sin(week), math.cos(week)
    return out
