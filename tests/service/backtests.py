"""A backtest as it is stored, made up: a document with every key, and its frame of judged rows on a synthetic random walk."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

START = datetime(2023, 3, 1, tzinfo=UTC)
LAYERS = ("dense 1", "dense 2", "dense 3", "heads")
NUMBERS = {
    "brier_reliability": 0.0006,
    "brier_resolution": 0.0021,
    "brier_uncertainty": 0.24991,
    "brier_within_variance": 0.0001,
    "brier_within_covariance": 0.0001,
    "mcc": 0.061,
    "rank_ic": 0.052,
    "icir": 0.71,
    "rank_icir": 0.75,
    "mae": 0.0031,
    "rmse": 0.0042,
    "r2": 0.0019,
    "pinball_low": 0.00052,
    "pinball_high": 0.00051,
    "interval_score": 0.0184,
    "sharpness": 0.0139,
}


def frame(rows: int = 5_000, skill: float = 0.08, seed: int = 3) -> pl.DataFrame:
    """The judged rows of a synthetic random walk of hourly bars, two days of which are missing in the middle; the forecast
    knows something of what comes, and abstains here and there."""
    rng = np.random.default_rng(seed)
    moved = rng.normal(0, 0.004, rows)
    close = 3_000 * np.exp(np.cumsum(moved) - moved)
    expected = 0.004 * skill * (skill * moved / 0.004 + rng.normal(0, 1, rows))
    p_up = 1 / (1 + np.exp(-400 * expected))
    hours = np.arange(rows) + np.where(np.arange(rows) > rows // 2, 48, 0)
    quiet = (np.arange(rows) // max(rows // 12, 1)) % 4 == 1
    position = np.where(quiet, 0.0, np.sign(expected))
    reason = np.where(
        rng.random(rows) < 0.03, "out_of_domain", np.where(rng.random(rows) < 0.02, "low_confidence", None)
    )
    return pl.DataFrame(
        {
            "as_of": pl.Series(hours * 3_600_000_000 + int(START.timestamp() * 1e6)).cast(
                pl.Datetime("us", "UTC")
            ),
            "refit": np.arange(rows) // 500,
            "base_rate": np.full(rows, 0.503),
            "p_up": p_up,
            "expected_return": expected,
            "price": close * np.exp(expected),
            "low": close * np.exp(expected - 0.0066),
            "high": close * np.exp(expected + 0.0066),
            "close": close,
            "log_return": moved,
            "up": moved > 0,
            "reason": pl.Series(reason.tolist(), dtype=pl.String),
            "position": position,
            "net_return": position * np.expm1(moved) - 0.0002 * np.abs(np.diff(position, prepend=0.0)),
            "buy_and_hold": np.expm1(moved),
        }
    )


def document(rows: int = 5_000, refits: int = 10) -> dict[str, Any]:
    """A document with every key that a backtest writes."""
    rng = np.random.default_rng(5)
    losses = {
        "model": 0.68857,
        "base_rate": 0.69312,
        "no_change": 0.69315,
        "logistic": 0.69011,
        "lightgbm": 0.68901,
    }
    scores = {name: _scores(rows, loss, name) for name, loss in losses.items()}
    return {
        "id": 12,
        "created_at": "2024-07-01T00:03:11Z",
        "market": {"symbol": "ETHUSDT", "timeframe": "1h"},
        "rows": rows,
        "first_read": "2022-01-01T00:00:00Z",
        "first_judged": "2023-03-01T00:00:00Z",
        "last_judged": "2023-09-27T07:00:00Z",
        "window": 10_000,
        "refit_every": 500,
        "config": {
            "horizon": 1,
            "window": 10_000,
            "hidden": [64, 32, 16],
            "activation": "relu",
            "half_life": None,
            "dropout": 0.3,
        },
        "policy": {
            "refit_every": 500,
            "first": None,
            "by_need": False,
            "warm": False,
            "caution": {"confidence": 0.0, "distance": 12.5},
        },
        "refits": [_refit(i, rng) for i in range(refits)],
        "scores": scores,
        "intervals": {
            who: {
                key: [value - abs(value) * 0.01, value + abs(value) * 0.01]
                for key, value in found.items()
                if value is not None and key != "rows"
            }
            for who, found in scores.items()
        },
        "paired": {
            who: {
                "rows": rows,
                "gain": loss - losses["model"],
                "error": 0.0011,
                "z": (loss - losses["model"]) / 0.0011,
                "p": 0.0004,
            }
            for who, loss in losses.items()
            if who != "model"
        },
        "reliability": [
            {
                "p": 0.40 + 0.01 * i,
                "up": 0.41 + 0.0095 * i + float(rng.normal(0, 0.02)),
                "rows": rows // 20 + (i < rows % 20),
            }
            for i in range(20)
        ],
        "outcomes": {"scored": rows, "void": 3, "pending": 1, "overdue": 0},
        "abstained": {
            "rows": 243,
            "reasons": {"out_of_domain": 150, "low_confidence": 93},
            "scores": _scores(rows - 243, 0.68822, "model"),
        },
        "trading": {
            "strategy": _performance(0.312, 412),
            "buy_and_hold": _performance(-0.083, 1),
            "costs": {"fee_bps": 1.0, "slippage_bps": 1.0, "spread_bps": 0.5, "latency_bars": 0},
            "break_even_bps": 3.4,
            "sweep": [
                {"each_way_bps": float(b), "net_return": 0.62 - 0.18 * b, "sharpe_annual": 2.4 - 0.7 * b}
                for b in range(9)
            ],
            "trades": [_trade(i, rng) for i in range(200)],
            "text": "After costs the strategy earned 31.2 % where buying and holding lost 8.3 %.",
        },
        "significance": {
            "probabilistic_sharpe": 0.973,
            "deflated_sharpe": 0.812,
            "trials": 24,
            "min_track_record_bars": 3_871,
            "sharpe_bar": 0.0213,
            "benchmark_bar": 0.0104,
            "skewness": -0.21,
            "kurtosis": 6.3,
        },
        "controls": [
            {
                "name": name,
                "figure": figure,
                "expected": expected,
                "tolerance": 1e-3,
                "found": expected + 2e-4,
                "passed": True,
            }
            for name, figure, expected in (
                ("perfect_oracle", "log_loss", 1e-7),
                ("noisy_oracle", "auc", 0.7602),
                ("base_rate", "gain", 0.0),
                ("no_change", "r2", 0.0),
                ("shuffled_labels", "auc", 0.5),
            )
        ],
        "verdict": {
            "skill": True,
            "text": "skill: log loss 0.00455 below the base rate's over 5,000 bars, z = 4.1",
            "gain": 0.00455,
            "z": 4.14,
        },
        "breaks": {"gaps": 1, "jumps": 2, "rows_left_out": 96},
    }


def old_document() -> dict[str, Any]:
    """A document as backtests wrote it before there was a report."""
    new = document()
    kept = (
        "market",
        "rows",
        "first_read",
        "first_judged",
        "last_judged",
        "window",
        "refit_every",
        "refits",
        "verdict",
        "breaks",
    )
    old = {key: new[key] for key in kept}
    short = ("rows", "log_loss", "brier", "accuracy", "auc", "ic", "ece", "coverage_90")
    old["scores"] = {who: {key: new["scores"][who][key] for key in short} for who in ("model", "base_rate")}
    parts = ("net_return", "sharpe_annual", "max_drawdown", "turnover_annual", "trades", "exposure")
    old["trading"] = {
        who: {key: new["trading"][who][key] for key in parts} for who in ("strategy", "buy_and_hold")
    }
    return {**old, "trading": {**old["trading"], "costs": {"fee_bps": 10.0, "slippage_bps": 5.0}}}


def _scores(rows: int, log_loss: float, who: str) -> dict[str, Any]:
    learned = who not in ("base_rate", "no_change")
    first = {
        "rows": rows,
        "log_loss": log_loss,
        "brier": log_loss - 0.4434,
        "accuracy": 0.5321 if learned else 0.5034,
    }
    then = {
        "auc": 0.5466 if learned else 0.5,
        "ic": 0.0557 if learned else None,
        "ece": 0.0118,
        "coverage_90": 0.9012 if who == "model" else None,
    }
    without = {"pinball_low", "pinball_high", "interval_score", "sharpness"}
    return {
        **first,
        **then,
        **{key: None if key in without and who != "model" else value for key, value in NUMBERS.items()},
    }


def _performance(net_return: float, trades: int) -> dict[str, Any]:
    return {
        "net_return": net_return,
        "cagr_annual": net_return * 1.7,
        "volatility_annual": 0.41,
        "sharpe_annual": net_return * 4,
        "sortino_annual": net_return * 6,
        "calmar_annual": net_return * 3,
        "max_drawdown": 0.184,
        "max_drawdown_bars": 1_204,
        "turnover_annual": 812.4,
        "trades": trades,
        "exposure": 0.751,
        "hit_rate": 0.541,
        "profit_factor": 1.21 if trades > 1 else None,
        "expectancy": 0.0009,
        "tail_ratio_bar": 1.08,
        "var_95_bar": -0.0061,
        "es_95_bar": -0.0089,
    }


def _refit(i: int, rng: np.random.Generator) -> dict[str, Any]:
    outcome = ("promoted", "promoted", "challenger", "promoted", "rejected", "promoted", "failed")[i % 7]
    ill = i % 7 == 4
    health = [
        {
            "layer": layer,
            "gradient_norm": float(np.exp(rng.normal(-3 - k, 0.3))) * (1e-5 if ill and k == 0 else 1),
            "update_ratio": float(np.exp(rng.normal(-6, 0.2))),
            "dead_fraction": 0.01,
            "saturated_fraction": 0.0,
            "verdict": "vanishing" if ill and k == 0 else "healthy",
        }
        for k, layer in enumerate(LAYERS)
    ]
    return {
        "row": 500 * i,
        "closed_at": int((START + timedelta(hours=500 * i)).timestamp() * 1e6),
        "outcome": outcome,
        "reason": {
            "promoted": "not worse on the held-back rows",
            "challenger": "worse on the held-back rows by 0.0011, z = 1.9",
            "rejected": "layer dense 1 is vanishing",
            "failed": "the loss is not finite in epoch 3",
        }[outcome],
        "verdict": "" if outcome == "failed" else "vanishing" if ill else "healthy",
        "health": [] if outcome == "failed" else health,
    }


def _trade(i: int, rng: np.random.Generator) -> dict[str, Any]:
    left = START + timedelta(hours=4_900 - 20 * i)
    bars = int(rng.integers(1, 18))
    entered = left - timedelta(hours=bars)
    return {
        "entered": entered.isoformat().replace("+00:00", "Z"),
        "left": left.isoformat().replace("+00:00", "Z"),
        "side": "long" if i % 3 else "short",
        "bars": bars,
        "net_return": float(rng.normal(0.001, 0.008)),
    }
