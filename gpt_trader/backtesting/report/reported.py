"""What a result must have to be shown as a report: a single backtest's has it, and a portfolio's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from gpt_trader.backtesting.result import Drawdown, Metrics, Trade
from gpt_trader.bars import Floats, Times


class Reported(Protocol):
    """Fields as in `gpt_trader.backtesting.result.BacktestResult`; arrays are (n,), one value a bar."""

    @property
    def symbol(self) -> str:
        """What was traded, in words where it is more than one symbol."""

    @property
    def strategy(self) -> str:
        """What decided: a strategy's name, or a method's."""

    @property
    def params(self) -> Mapping[str, Any]:
        """Parameters of it."""

    @property
    def timeframe(self) -> str:
        """Length of a bar."""

    @property
    def request(self) -> Mapping[str, Any]:
        """What was asked, JSON-ready."""

    @property
    def snapshot_id(self) -> str:
        """Where the bars came from."""

    @property
    def bars_hash(self) -> str:
        """Hash of the bars."""

    @property
    def result_hash(self) -> str:
        """Hash of everything that was found."""

    @property
    def metrics(self) -> Metrics:
        """Its numbers."""

    @property
    def benchmark(self) -> Metrics:
        """Those of buying and holding."""

    @property
    def trades(self) -> Sequence[Trade]:
        """Round trips."""

    @property
    def drawdowns(self) -> Sequence[Drawdown]:
        """Falls from a peak."""

    @property
    def time(self) -> Times:
        """Times of the bars."""

    @property
    def close(self) -> Floats | None:
        """The price that was traded; None where there is no single one."""

    @property
    def equity(self) -> Floats:
        """Equity at each close."""

    @property
    def benchmark_equity(self) -> Floats:
        """That of buying and holding."""

    @property
    def drawdown(self) -> Floats:
        """Fall from the highest equity so far."""

    @property
    def periods_a_year(self) -> float:
        """Bars in a year."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What it was made with."""

    @property
    def data_quality(self) -> Mapping[str, Any] | None:
        """The verdict on the bars."""

    @property
    def warnings(self) -> Sequence[str]:
        """What must not be overlooked."""
