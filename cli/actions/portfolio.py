"""The portfolio command's way: check here, send, follow, show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cli.client.connect import connect
from cli.runs.prepare import prepare
from cli.runs.submit import finish, start
from cli.terminal.result import show_result
from gpt_trader.errors import Problem, Refused
from gpt_trader.portfolio.request import PortfolioRequest
from gpt_trader.slices import SLICES


def run_portfolio(values: Mapping[str, Any]) -> None:
    """Run a portfolio backtest of `values` (fields of the request; None: not given) and show what it found."""
    if values.get("symbols") is None and values.get("weight") is None:
        raise Refused.of(
            Problem(
                "symbol", None, "is missing: give --symbol twice or more, e.g. --symbol AAPL --symbol MSFT"
            )
        )
    prepared = prepare(PortfolioRequest, values)
    with connect() as client:
        started = start(prepared, lambda server, body: server.submit(SLICES["portfolio"].route, body), client)
        result = finish(client, started, "portfolio backtest")
        show_result(result, links=client.absolute(started.links))
