"""A client for Barprop: ask for Signals, push bars, follow streams and jobs; `Client` waits, `AsyncClient` is awaited."""

from barprop_client.async_client import AsyncClient
from barprop_client.client import Client
from barprop_client.errors import BarpropError, Problem, UnexpectedAnswer, Unreachable
from barprop_client.retrying import Retries
from barprop_client.values import (
    Abstention,
    Bar,
    Doubt,
    Entry,
    Ingested,
    Job,
    Market,
    MarketState,
    Outcome,
    Prediction,
    Readiness,
    Refused,
    Rejected,
    Signal,
    Version,
)

__all__ = [
    "Abstention",
    "AsyncClient",
    "Bar",
    "BarpropError",
    "Client",
    "Doubt",
    "Entry",
    "Ingested",
    "Job",
    "Market",
    "MarketState",
    "Outcome",
    "Prediction",
    "Problem",
    "Readiness",
    "Refused",
    "Rejected",
    "Retries",
    "Signal",
    "UnexpectedAnswer",
    "Unreachable",
    "Version",
]
