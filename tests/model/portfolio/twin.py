"""Trading by hand: an account with units of the asset and cash, one bar after another, as a broker's statement has it."""

from dataclasses import dataclass

from model.portfolio.costs import Costs

YEAR = 365.25 * 86_400


@dataclass(frozen=True)
class Statement:
    """What the account says: capital after each step, what was traded, and of each trade how much the capital grew."""

    capital: list[float]
    traded: list[float]  # as shares of the capital before
    trades: list[tuple[int, int, int, float]]  # entered, left, side, net return


def by_hand(
    positions: list[float], prices: list[float], seconds: float, costs: Costs, latency: int = 0
) -> Statement:
    """Trades `positions` (n) at `prices` (n + 1): the opens at which each is traded, and the close at which all is sold.

    The money that a trade moved is cash and units; growth of the capital in a trade leaves out what other trades cost.
    """
    n = len(positions)
    cash, units = 1.0, 0.0
    capital, traded, trades = [], [], []
    entered, side, grown = 0, 0, 1.0
    each_way = (costs.fee_bps + costs.slippage_bps + costs.spread_bps / 2) * 1e-4
    step = seconds / n
    ruined = False

    def leave(at: int) -> None:
        if side:
            trades.append((entered, at, side, grown - 1))

    for i in range(n):
        wanted = positions[i - latency] if i >= latency and not ruined else 0.0
        price, after = prices[i], prices[i + 1]
        whole = cash + units * price
        share = units * price / whole if whole > 0 else 0.0
        amount = abs(wanted - share)
        traded.append(amount)
        kept = max(1 - each_way * amount, 0.0)
        now = (wanted > 0) - (wanted < 0)
        if now != side:
            closing, opening = abs(share), abs(wanted)
            if side:
                grown *= kept ** (closing / (closing + opening)) if closing + opening else 1.0
                leave(i)
            entered, side = i, now
            grown = kept ** (opening / (closing + opening)) if opening else 1.0
        else:
            grown *= kept
        whole *= kept
        units = wanted * whole / price
        cash = whole - units * price
        cash -= wanted * whole * costs.funding_bps_8h * 1e-4 * step / (8 * 3_600)
        if wanted < 0:
            cash -= -wanted * whole * costs.borrow_bps_annual * 1e-4 * step / YEAR
        end = cash + units * after
        if end <= 0 and not ruined:
            cash, units, end, ruined = 0.0, 0.0, 0.0, True
        grown *= end / whole if whole > 0 else (0.0 if side else 1.0)
        if i == n - 1:
            amount = abs(units * after / end) if end > 0 else 0.0
            traded.append(amount)
            kept = max(1 - each_way * amount, 0.0)
            end *= kept
            grown *= kept
            leave(n)
        capital.append(end)
    return Statement(capital, traded, trades)
