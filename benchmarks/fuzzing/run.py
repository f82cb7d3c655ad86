"""One run of schemathesis over a service: what it asked, and what was not answered as the document says."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import schemathesis
import schemathesis.engine
from schemathesis.engine import events
from schemathesis.engine.recorder import ScenarioRecorder
from schemathesis.engine.run import PhaseName

from benchmarks.fuzzing import past

# A stream never ends: it is left after its first event, or when this has passed.
STREAM, STREAM_SECONDS, STREAM_EXAMPLES = "/v1/signals", 2.0, 20
# Names of what is there, so that most requests that fit the document find something.
NAMES: dict[str, list[str]] = {
    "symbols": [past.SYMBOL, past.PAUSED],
    "timeframes": [past.TIMEFRAME],
    "models": [f"{past.SYMBOL}:{past.TIMEFRAME}", f"{past.SYMBOL}:{past.TIMEFRAME}:bars"],
    "events": ["0"],
    "idents": [str(ident) for ident in range(1, 7)],
}
PLACES = {
    "symbol": "symbols",
    "timeframe": "timeframes",
    "body.symbol": "symbols",
    "body.timeframe": "timeframes",
    "body.markets[*].symbol": "symbols",
    "body.markets[*].timeframe": "timeframes",
    "query.after": "events",
    "model_name": "models",
    "model_version": "idents",
    "version_id": "idents",
    "job_id": "idents",
    "backtest_id": "idents",
    "key_id": "idents",
}
OFTEN = 0.7
# What the document promises of any answer. Left out: `positive_data_acceptance` and `negative_data_rejection`, since a
# request can fit the document and yet name what is not there, and "5" is read as a number where one belongs.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
)


@dataclass(frozen=True)
class Failure:
    """An answer that is not as the document says, and how to get it again."""

    operation: str
    check: str
    message: str
    again: str


@dataclass
class Found:
    """What a run has seen so far."""

    cases: Counter[str] = field(default_factory=Counter)  # by operation
    phases: Counter[str] = field(default_factory=Counter)
    scenarios: int = 0
    done: Counter[str] = field(default_factory=Counter)  # by operation: answers of success
    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)  # of the run itself


def run(url: str, examples: int, scenarios: int, seed: int) -> Found:
    """Asks every operation of the service at `url` with so many made-up requests each, beside those that the document's
    own limits suggest, then goes so many ways along what answers lead to."""
    found = Found()
    _execute(found, url, seed, examples, {"stateful": {"enabled": False}})
    # a round of ways ends early where a request that is made again has another answer by then: another one follows
    while (left := scenarios - found.scenarios) > 0:
        seed, before = seed + 1, found.scenarios
        _execute(found, url, seed, left, {"enabled": False, "stateful": {"enabled": True}})
        if found.scenarios == before:
            raise RuntimeError("answers lead nowhere: no operation can be reached from another")
    return found


def _execute(found: Found, url: str, seed: int, examples: int, phases: dict[str, Any]) -> None:
    config = {
        "base-url": url,
        "seed": seed,
        "continue-on-failure": True,
        "request-timeout": 30,
        "max-stream-events": 1,
        "suppress-health-check": ["all"],
        "dictionaries": {name: {"values": values} for name, values in NAMES.items()},
        "parameters": {place: {"dictionary": name, "probability": OFTEN} for place, name in PLACES.items()},
        "generation": {"max-examples": examples, "no-shrink": True, "database": "none"},
        "phases": phases,
        "operations": [
            {
                "include-path": STREAM,
                "request-timeout": STREAM_SECONDS,
                "generation": {"max-examples": min(examples, STREAM_EXAMPLES)},
            }
        ],
        "checks": {"enabled": False} | {check: {"enabled": True} for check in CHECKS},
    }
    schema = schemathesis.openapi.from_url(
        f"{url}/openapi.json", config=schemathesis.Config.from_dict(config)
    )
    for event in schemathesis.engine.from_schema(schema).execute():
        _see(found, event)


def _see(found: Found, event: Any) -> None:
    if isinstance(event, events.ScenarioFinished):
        found.phases[event.phase.value] += len(event.recorder.interactions)
        found.scenarios += event.phase is PhaseName.STATEFUL_TESTING and bool(event.recorder.interactions)
        _count(found, event.recorder)
    elif isinstance(event, events.NonFatalError):
        found.errors.append(f"{event.label}: {event.info.format()}")
    elif isinstance(event, events.FatalError):
        raise event.exception


def _count(found: Found, recorder: ScenarioRecorder) -> None:
    for ident, interaction in recorder.interactions.items():
        operation = recorder.cases[ident].value.operation.label
        found.cases[operation] += 1
        if interaction.response is not None:
            found.statuses[interaction.response.status_code] += 1
            found.done[operation] += interaction.response.status_code < 400
    for ident, checks in recorder.checks.items():
        operation = recorder.cases[ident].value.operation.label
        for check in checks:
            if check.failure_info is not None:
                failure = check.failure_info.failure
                told = f"{failure.title}: {failure.message}"
                found.failures.append(Failure(operation, check.name, told, check.failure_info.code_sample))
