"""The backtest: a walk forward by the functions that run live, and a judgement of what was said on the way."""

from model.backtest.answers import REASONS, Said, Standing, answers, caught_up, forecasts, fresh
from model.backtest.beside import beside
from model.backtest.judging import Judgement, Others, judge, plain
from model.backtest.walk import (
    Block,
    Contents,
    Fits,
    Policy,
    Refit,
    Result,
    answered_after,
    decide,
    first_refit,
    known_at_close,
    one_by_one,
    refit_rows,
    result,
    run,
    walk_forward,
    way,
)

__all__ = [
    "REASONS",
    "Block",
    "Contents",
    "Fits",
    "Judgement",
    "Others",
    "Policy",
    "Refit",
    "Result",
    "Said",
    "Standing",
    "answered_after",
    "answers",
    "beside",
    "caught_up",
    "decide",
    "first_refit",
    "forecasts",
    "fresh",
    "judge",
    "known_at_close",
    "one_by_one",
    "plain",
    "refit_rows",
    "result",
    "run",
    "walk_forward",
    "way",
]
