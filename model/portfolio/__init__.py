"""The portfolio: what to hold on a forecast, and what holding it comes to after costs.

costs        what it costs to trade, and to hold
policies     from a forecast to a target position, for a bot's next bar and for a whole walk alike
trading      from positions to returns, bar by bar and trade by trade
performance  the figures of that
sensitivity  how much of it depends on what trading costs
"""

from model.portfolio.costs import SECONDS_PER_YEAR, Costs

__all__ = ["SECONDS_PER_YEAR", "Costs"]
