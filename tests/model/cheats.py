"""Planted cheats: what a feature must not do, each with what catches it. docs/features.md lists them."""

from dataclasses import dataclass

import polars as pl

C, R, HIGH = pl.col("close"), pl.col("log_return"), pl.col("high")
TS = pl.col("ts")

LOOKS_AHEAD = "a value before the cut moved"
NEEDS = "more bars than stated move it"


@dataclass(frozen=True)
class Cheat:
    """An expression that may not become a feature; `caught_by` is what shows it."""

    about: str
    caught_by: str
    expr: pl.Expr


def _ahead(about: str, expr: pl.Expr) -> Cheat:
    return Cheat(about, LOOKS_AHEAD, expr)


_SOME = pl.when(pl.int_range(pl.len()) % 7 == 0).then(C)

CHEATS: dict[str, Cheat] = {
    "next_bar": _ahead("the next bar, by `shift(-1)`", C.shift(-1) / C - 1),
    "next_bar_filled": _ahead("the next bar, its last null filled", (C.shift(-1) / C - 1).fill_null(0.0)),
    "far_ahead": _ahead("a far bar, by `shift(-40)`", C.shift(-40) / C - 1),
    "next_volume": _ahead("the next bar's volume", pl.col("volume").shift(-1).log1p().fill_null(0.0)),
    "next_time": _ahead("hours until the next bar opens", (TS.shift(-1) - TS).dt.total_hours().fill_null(1)),
    "centred_window": _ahead("a centred window", C.rolling_mean(5, center=True) / C),
    "whole_mean": _ahead("the mean of the whole series", C / C.mean()),
    "whole_rank": _ahead("the rank in the whole series", C.rank() / pl.len()),
    "whole_maximum": _ahead("the maximum of the whole series", C / C.max()),
    "whole_quantile": _ahead("a quantile of the whole series", C / C.quantile(0.9)),
    "fitted_scaler": _ahead("a scaler that was fitted on everything", (R - R.mean()) / R.std()),
    "fitted_bounds": _ahead("scaling to the whole series' bounds", (C - C.min()) / (C.max() - C.min())),
    "backward_fill": _ahead(
        "backward fill", pl.when(C.shift(1) < C).then(C).fill_null(strategy="backward") / C
    ),
    "interpolation": _ahead("interpolation between known values", _SOME.interpolate() / C),
    "unfinished_resample": _ahead(
        "resampled bars labelled at the left, the unfinished one too",
        HIGH.max().over(TS.dt.truncate("4h")) / C,
    ),
    "join_by_open_time": _ahead(
        "as-of join of longer bars by open time", C.last().over(TS.dt.truncate("1d")) / C
    ),
    "day_by_itself": _ahead("a day's own mean, of all its hours", C / C.mean().over(TS.dt.date())),
    "window_to_come": _ahead(
        "a window by time that begins at the bar",
        C.mean().rolling("ts", period="3h", offset="0h", closed="left") / C,
    ),
    "highest_to_come": _ahead("the highest of all that comes", C.reverse().cum_max().reverse() / C),
    "cumulated_backwards": _ahead("a sum from the end", R.cum_sum(reverse=True)),
    "reversed": _ahead("the series reversed", C.reverse() / C),
    "sorted": _ahead("the series sorted", C.sort() / C),
    "difference_to_come": _ahead("the difference to the next bar", C.diff(-1) / C),
    "number_of_bars": _ahead("the number of bars", C * 0 + pl.len()),
    "python_function": _ahead(
        "a Python function over the series", C.map_batches(lambda s: s / s[-1], return_dtype=pl.Float64)
    ),
    "sum_since_the_start": Cheat(
        "a sum since history's start", NEEDS, (R.sign().cum_sum() / 1e3).clip(-8, 8)
    ),
    "bars_since_the_start": Cheat("the number of bars so far", NEEDS, C.cum_count() / 1e4),
    "exponential_mean": Cheat(
        "an exponential mean longer than stated", NEEDS, (C.ewm_mean(span=200) / C - 1).clip(-8, 8)
    ),
    "highest_so_far": Cheat("the highest since history's start", NEEDS, C / C.cum_max()),
    "long_window": Cheat("a window longer than stated", NEEDS, (C.rolling_mean(240) / C - 1).clip(-8, 8)),
}
