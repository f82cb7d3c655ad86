"""`barprop doctor`: is the mathematics right here, and is this market's training healthy?"""

import typer

from service.cli import opening, options, output
from service.cli.options import AnySymbol, AnyTimeframe, AsJson, WrongUsage


def doctor(symbol: AnySymbol = None, timeframe: AnyTimeframe = None, as_json: AsJson = False) -> None:
    raise WrongUsage("not yet")
