"""The table of the slices: one row says where a slice is found on every face of the program.

The surface test walks this table: a row without its flow, deployment, route, command or docs page fails it.
Importing it is cheap; requests are named by path and loaded on demand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from gpt_trader.requests import Request


@dataclass(frozen=True)
class Slice:
    """One capability and its names: snake_case in Python, kebab-case in the CLI and in URLs."""

    name: str
    summary: str
    request: str
    flow: str
    route: str
    command: str
    #: What a caller must be allowed to (`api.principals.Scope`).
    scope: Literal["research", "trade"] = "research"

    @property
    def deployment(self) -> str:
        """The deployment's full name in Prefect, `flow/deployment`."""
        return f"{self.name}/{self.name}"

    def request_type(self) -> type[Request]:
        """Import and return the request model."""
        from importlib import import_module

        module, _, name = self.request.rpartition(".")
        found: type[Request] = getattr(import_module(module), name)
        return found


SLICES: Final[dict[str, Slice]] = {
    row.name: row
    for row in (
        Slice(
            name="backtest",
            summary="Simulate a strategy on stored bars, with a report",
            request="gpt_trader.requests.BacktestRequest",
            flow="flows.backtest.backtest",
            route="/api/v1/strategies/backtest",
            command="backtest",
        ),
        Slice(
            name="optimize",
            summary="Search a strategy's parameters, and tell whether to believe the best",
            request="gpt_trader.requests.OptimizeRequest",
            flow="flows.optimize.optimize",
            route="/api/v1/strategies/optimize",
            command="optimize",
        ),
        Slice(
            name="portfolio",
            summary="Simulate a portfolio of many symbols: target weights, rebalancing, shared cash",
            request="gpt_trader.portfolio.request.PortfolioRequest",
            flow="flows.portfolio.portfolio",
            route="/api/v1/portfolio/backtest",
            command="portfolio backtest",
        ),
        Slice(
            name="paper_trade",
            summary="Trade strategies on paper: one account, a ledger, a certificate that proves it",
            request="gpt_trader.trading.request.PaperTradeRequest",
            flow="flows.paper_trade.paper_trade",
            route="/api/v1/paper-trade/sessions",
            command="paper start",
            scope="trade",
        ),
        Slice(
            name="paper_certificate",
            summary="Replay a paper session and compare it with a backtest over the same bars",
            request="gpt_trader.trading.request.PaperCertificateRequest",
            flow="flows.paper_certificate.paper_certificate",
            route="/api/v1/paper-trade/certificates",
            command="paper replay",
            scope="trade",
        ),
        Slice(
            name="paper_daily",
            summary="Bring in new bars and let each scheduled paper session trade them",
            request="gpt_trader.trading.request.PaperDailyRequest",
            flow="flows.paper_daily.paper_daily",
            route="/api/v1/paper-trade/daily",
            command="paper step",
            scope="trade",
        ),
        Slice(
            name="data",
            summary="Bring bars from a source into the lake",
            request="gpt_trader.requests.DataRequest",
            flow="flows.data.data",
            route="/api/v1/market/ingest",
            command="data ingest",
        ),
    )
}
