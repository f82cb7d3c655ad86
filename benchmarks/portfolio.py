"""The portfolio step beside vectorbt: `python -m benchmarks.portfolio [--vectorbt PYTHON] [--quick] [--json]`.

vectorbt's requirements clash with this project's, so it lives in a virtual environment of its own (`pip install
"vectorbt[rust]==1.2.*"`), whose Python --vectorbt names; without it, its rows are left out. Both sides get the same prices
and the same positions, a share of the capital for each bar, and make of them returns, equity, positions from entering to
leaving, and the figures of those. First without costs, where both must agree on what was earned; then with a fee, timed:
the first call apart (vectorbt compiles then, or reads what it has compiled), then medians of rounds in which the sides
take turns. Every side has one thread, and what is counted is the time that it really had a processor: what else the
machine does then matters less.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks import report
from benchmarks.report import Row
from model.portfolio import Costs, performance, policies, sensitivity, trading
from model.portfolio.policies import Forecasts, Policy

Float64 = NDArray[np.float64]
Said = dict[str, float]  # by one side of one portfolio
Process = subprocess.Popen[str]

BARS, QUICK_BARS = 1_000_000, 200_000
ROUNDS, QUICK_ROUNDS = 7, 3
SECONDS_A_BAR = 60.0
FEE_BPS = 0.5
ENGINES = ("numba", "rust")
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("NUMBA", "RAYON", "OMP", "OPENBLAS", "MKL")}
FREE, DEAR = Costs(0, 0), Costs(FEE_BPS, 0)
AGREE = 1e-8  # vectorbt holds units and cash, we shares of the capital
COMPARED = ("net_return", "max_drawdown", "hit_rate", "trades")
CASES = {
    "orders alone (ours: trades too)": "ordered",
    "returns, equity and trades": "traded",
    "returns, equity, trades, figures": "measured",
}
SWEEP = tuple(float(bps) for bps in range(20))


def market(n: int) -> tuple[Float64, Forecasts]:
    """n + 1 prices that move by a tenth of a per cent a bar, and forecasts that know a little of it for some bars on."""
    rng = np.random.default_rng(0)
    returns = 0.001 * rng.standard_t(4, n) / math.sqrt(2)
    prices = 100 * np.cumprod(np.append(1.0, 1 + returns))
    ahead = np.convolve(returns, np.full(30, 0.002), "full")[29:]
    noise = np.convolve(rng.normal(0, 0.001, n), np.full(30, 0.06), "same")
    return prices, Forecasts(np.full(n, 0.5), ahead + noise, np.full(n, 0.001))


def own(prices: Float64, position: Float64, costs: Costs) -> Said:
    """Our side: seconds to what each step came to, to equity and trades, and to the figures."""
    start = time.process_time()
    returns = trading.bar_returns(prices[:-1], float(prices[-1]))
    traded = trading.trade(position, returns, SECONDS_A_BAR * len(position), costs)
    until_ordered = time.process_time() - start
    traded.equity  # noqa: B018  the other side makes it here
    until_traded = time.process_time() - start
    found = performance.measure(traded)
    seconds = time.process_time() - start
    figures = {name: float(value or 0) for name, value in found.document().items() if name in COMPARED}
    return {"ordered": until_ordered, "traded": until_traded, "measured": seconds, **figures}


@dataclass(frozen=True)
class Peer:
    """One engine of vectorbt, warm and waiting for work in a process of its own."""

    name: str
    process: Process
    first: float  # seconds that its first call took


def started(python: str, engine: str, given: Path, ours: Said) -> Peer:
    """vectorbt by that engine, once it has agreed with us on what comes of positions that cost nothing.

    Raises ValueError, with what it said last, where it does not run.
    """
    command = [python, str(Path(__file__).parent / "sides" / "vbt.py"), engine, str(given)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, env=os.environ | ONE_THREAD, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )
    try:
        version = answer(process)["version"]
        theirs = ask(process, FREE)
    except ValueError:
        process.communicate()
        raise
    agreed(ours, theirs, engine)
    return Peer(f"vectorbt {version}, {engine}", process, theirs["measured"])


def ask(process: Process, costs: Costs) -> Said:
    """What vectorbt makes of the positions at these costs."""
    assert process.stdin is not None
    process.stdin.write(f"{costs.each_way}\n")
    process.stdin.flush()
    return answer(process)


def answer(process: Process) -> dict[str, Any]:
    """The next line of vectorbt's side. Raises ValueError where it has ended, with the last that it said."""
    assert process.stdout is not None
    assert process.stderr is not None
    if line := process.stdout.readline():
        return json.loads(line)  # type: ignore[no-any-return]
    raise ValueError((process.stderr.read().strip().splitlines() or ["it ended"])[-1][:90])


def agreed(ours: Said, theirs: Said, engine: str) -> None:
    """Refuses to go on where the two made something else of the same positions: times would mean nothing."""
    for name in COMPARED:
        if not math.isclose(ours[name], theirs[name], rel_tol=AGREE, abs_tol=AGREE):
            raise SystemExit(f"{engine} finds {name} {theirs[name]!r} without costs, we find {ours[name]!r}")


def beside(prices: Float64, position: Float64, python: str | None, rounds: int) -> list[Row]:
    """Our times beside vectorbt's, for each engine that is there."""
    exact = own(prices, position, FREE)
    peers: list[Peer] = []
    absent: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "given.npz"
        np.savez(given, prices=prices, positions=np.append(position, 0.0))
        for engine in ENGINES:
            if python is None:
                absent.append(f"vectorbt, {engine}: --vectorbt names no Python")
                continue
            try:
                peers.append(started(python, engine, given, exact))
            except (OSError, ValueError) as error:
                absent.append(f"vectorbt, {engine}: {error}")
    ours: list[Said] = []
    theirs: list[list[Said]] = [[] for _ in peers]
    for _ in range(rounds):
        ours.append(own(prices, position, DEAR))
        for peer, found in zip(peers, theirs, strict=True):
            found.append(ask(peer.process, DEAR))
    for peer in peers:
        peer.process.communicate()
    rows = []
    for peer, found in zip(peers, theirs, strict=True):
        rows += [
            Row(case, 1, _ms(ours, key), "ms", peer.name, _ms(found, key)) for case, key in CASES.items()
        ]
        rows.append(
            Row("the last, first call", 1, 1e3 * exact["measured"], "ms", peer.name, 1e3 * peer.first)
        )
    case, key = list(CASES.items())[-1]
    return rows + [Row(case, 1, _ms(ours, key), "ms", reason) for reason in absent]


def alone(prices: Float64, said: Forecasts, rounds: int) -> list[Row]:
    """What vectorbt has no counterpart for: positions by each policy, break-even cost and cost sweep."""
    cases: dict[str, Callable[[], object]] = {
        f"positions, {name}": partial(policies.positions, Policy(name), DEAR, said) for name in policies.RULES
    }
    returns = trading.bar_returns(prices[:-1], float(prices[-1]))
    position = policies.positions(Policy(), DEAR, said)
    traded = trading.trade(position, returns, SECONDS_A_BAR * len(position), DEAR)
    cases["break-even cost"] = partial(sensitivity.break_even_bps, traded)
    cases[f"sweep over {len(SWEEP)} costs"] = partial(sensitivity.sweep, traded, SWEEP)
    rows = []
    for case, call in cases.items():
        call()
        seconds = []
        for _ in range(rounds):
            start = time.process_time()
            call()
            seconds.append(time.process_time() - start)
        rows.append(Row(case, 1, 1e3 * statistics.median(seconds), "ms"))
    return rows


def _ms(found: list[Said], key: str) -> float:
    return 1e3 * statistics.median(each[key] for each in found)


def main() -> None:
    """Measures the portfolio step of so many bars."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="fewer and smaller cases, within 60 s")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    parser.add_argument("--vectorbt", metavar="PYTHON", help="the Python of an environment with vectorbt 1.2")
    asked = parser.parse_args()
    n, rounds = (QUICK_BARS, QUICK_ROUNDS) if asked.quick else (BARS, ROUNDS)
    prices, said = market(n)
    position = policies.positions(Policy(), DEAR, said)
    with threadpool_limits(1):
        rows = beside(prices, position, asked.vectorbt, rounds) + alone(prices, said, rounds)
    report.show("portfolio", rows, asked.json)


if __name__ == "__main__":
    main()
