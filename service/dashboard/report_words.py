"""How a report shows the figures of a backtest's document: a row for each key, with its name and its kind.

A key without a row is shown by its own name, so that a new figure is seen before it has one.
"""

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from model.predictions import Reason
from service.dashboard import words
from service.dashboard.words import MINUS, NARROW

NOTHING = "–"

NAMES: dict[str, tuple[str, str]] = {
    # forecasts
    "rows": ("rows", "count"),
    "log_loss": ("log loss", "loss"),
    "brier": ("Brier score", "loss"),
    "brier_reliability": ("Brier: reliability", "loss"),
    "brier_resolution": ("Brier: resolution", "loss"),
    "brier_uncertainty": ("Brier: uncertainty", "loss"),
    "brier_within_variance": ("Brier: variance within bins", "loss"),
    "brier_within_covariance": ("Brier: covariance within bins", "loss"),
    "accuracy": ("accuracy", "share"),
    "auc": ("AUC", "score"),
    "mcc": ("MCC", "score"),
    "ic": ("IC", "score"),
    "rank_ic": ("rank IC", "score"),
    "icir": ("ICIR", "ratio"),
    "rank_icir": ("rank ICIR", "ratio"),
    "ece": ("ECE", "score"),
    "mae": ("MAE of the log return", "number"),
    "rmse": ("RMSE of the log return", "number"),
    "r2": ("R² out of sample", "score"),
    "coverage_90": ("coverage of the 90 % interval", "share"),
    "pinball_low": ("pinball loss at 5 %", "number"),
    "pinball_high": ("pinball loss at 95 %", "number"),
    "interval_score": ("interval score", "number"),
    "sharpness": ("width of the interval", "number"),
    # trading
    "net_return": ("net return", "change"),
    "cagr_annual": ("CAGR", "change"),
    "return_annual": ("return a year", "change"),
    "volatility_annual": ("volatility a year", "share"),
    "sharpe_annual": ("Sharpe ratio a year", "ratio"),
    "sortino_annual": ("Sortino ratio a year", "ratio"),
    "calmar_annual": ("Calmar ratio", "ratio"),
    "calmar": ("Calmar ratio", "ratio"),
    "max_drawdown": ("largest drawdown", "share"),
    "max_drawdown_bars": ("length of the largest drawdown, in bars", "count"),
    "turnover_annual": ("turnover a year", "ratio"),
    "trades": ("trades", "count"),
    "exposure": ("share of bars with a position", "share"),
    "hit_rate": ("share of trades that won", "share"),
    "profit_factor": ("profit factor", "ratio"),
    "expectancy": ("expectancy of a trade", "change"),
    "tail_ratio_bar": ("tail ratio", "ratio"),
    "skewness_bar": ("skewness of the returns", "ratio"),
    "kurtosis_bar": ("kurtosis of the returns", "ratio"),
    "var_95_bar": ("value at risk of a bar, 95 %", "change"),
    "es_95_bar": ("expected shortfall of a bar, 95 %", "change"),
    "fee_bps": ("fee each way", "bps"),
    "borrow_bps_annual": ("borrowing a year", "bps"),
    "funding_bps_8h": ("funding every 8 h", "bps"),
    "spread_bps": ("spread", "bps"),
    "slippage_bps": ("slippage each way", "bps"),
    "each_way_bps": ("costs each way", "bps"),
    "break_even_bps": ("breaks even at, each way", "bps"),
    # significance
    "probabilistic_sharpe": ("probabilistic Sharpe ratio (PSR)", "share"),
    "deflated_sharpe": ("deflated Sharpe ratio (DSR)", "share"),
    "trials": ("trials counted", "count"),
    "sharpe_bar": ("Sharpe ratio a bar", "number"),
    "min_track_record_bars": ("minimum track record, in bars", "count"),
    # what came of rows
    "rows_left_out": ("bars without a row", "count"),
    "log_loss_gain": ("gain in log loss", "loss"),
    "return_bar": ("return of a bar", "number"),
}

FORECASTERS = {
    "model": "model",
    "base_rate": "base rate",
    "no_change": "no-change price",
    "logistic": "logistic regression",
    "lightgbm": "LightGBM",
}

OUTCOMES = {
    "promoted": words.Sign("✓", "promoted", "good"),
    "challenger": words.Sign("↗", "challenger", "fair"),
    "kept": words.Sign("–", "kept", "calm"),
    "rejected": words.Sign("✕", "rejected", "fair"),
    "failed": words.Sign("!", "failed", "bad"),
}


def name(key: str) -> str:
    """What a key is called."""
    return NAMES[key][0] if key in NAMES else key.replace("_", " ")


def kind(key: str) -> str:
    """How its value is shown."""
    return NAMES[key][1] if key in NAMES else "bps" if key.endswith("_bps") else "number"


def forecaster(key: str) -> str:
    """Who that is."""
    return FORECASTERS.get(key, key.replace("_", " "))


def outcome(key: str) -> words.Sign:
    """How a refit ended."""
    return OUTCOMES.get(key, words.Sign("?", key, "calm"))


def verdict(key: str) -> words.Sign | None:
    """How healthy a training's gradients were; None where nothing was measured."""
    return words.HEALTH.get(key, words.Sign("?", key, "calm")) if key else None


def reason(key: str) -> str:
    """Why there was no answer."""
    return words.REASONS[Reason(key)] if key in set(Reason) else key.replace("_", " ")


def show(value: Any, how: str = "number") -> str:
    """A value of a document in words: a dash where it has no meaning, true minus signs, no digit that says nothing."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return SHOWN[how](value).replace("-", MINUS)
    if isinstance(value, Mapping):
        return ", ".join(f"{name(str(key))} {show(each)}" for key, each in value.items()) or NOTHING
    if isinstance(value, list | tuple):
        return ", ".join(show(each) for each in value) or NOTHING
    return str(value)


def moment_of(value: str | int | datetime) -> datetime:
    """A time as documents have it: ISO 8601, or microseconds since 1970. Raises ValueError."""
    if isinstance(value, datetime):
        return value
    if isinstance(value, str):
        return datetime.fromisoformat(value)
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=value)


def when(value: str | int | datetime | None) -> str:
    """`1 Jul 2024, 00:00 UTC`."""
    return NOTHING if value is None else words.moment(moment_of(value))


def side(value: str | float | None) -> str:
    """`long` or `short`, by its word or by its sign."""
    return ("long" if value > 0 else "short") if isinstance(value, int | float) else show(value)


def _number(value: float) -> str:
    size = abs(value)
    if isinstance(value, int) or size >= 1e4:
        return f"{value:,.0f}"
    return f"{value:.4g}" if size == 0 or size >= 1e-4 else f"{value:.3g}".replace("e-0", "e-")


def _share(value: float) -> str:
    return f"{value * 100:,.{1 if abs(value) >= 0.01 or value == 0 else 2}f}{NARROW}%"


def _change(value: float) -> str:
    return f"{value * 100:+,.{2 if abs(value) < 10 else 0}f}{NARROW}%"


SHOWN: dict[str, Callable[[float], str]] = {
    "count": lambda value: f"{value:,.0f}",
    "loss": lambda value: f"{value:.5f}",
    "score": lambda value: f"{value:.4f}",
    "ratio": lambda value: f"{value:,.2f}",
    "share": _share,
    "change": _change,
    "bps": lambda value: f"{value:,.4g}{NARROW}bps",
    "p": lambda value: f"{value:.3f}" if value >= 0.001 else "< 0.001",
    "number": _number,
}
