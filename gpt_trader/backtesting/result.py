"""What a backtest returns: typed, JSON-ready, and hashed the same way everywhere."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from gpt_trader.bars import Floats, Times

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Metrics:
    """The numbers a user is shown. Fractions, not percent; an undefined metric is None, never NaN.

    Formulas and their sources are in `gpt_trader.backtesting.metrics`, the only place that computes them.
    """

    total_return: float
    annualized_return: float | None
    annualized_volatility: float | None
    sharpe: float | None
    sortino: float | None
    calmar: float | None
    max_drawdown: float
    max_drawdown_bars: int
    win_rate: float | None
    profit_factor: float | None
    expectancy: float | None
    exposure: float
    turnover: float | None
    average_trade: float | None
    best_trade: float | None
    worst_trade: float | None
    trades: int
    costs: float
    final_equity: float

    def as_dict(self) -> dict[str, float | int | None]:
        """Return the metrics by name."""
        return asdict(self)


@dataclass(frozen=True)
class Trade:
    """One round trip, or the open position at the end (`exit_time` None, valued at the last close).

    Prices include slippage; `pnl` is after commission, in the instrument's currency; `return_` is
    `pnl` over the entry's notional. `side` is +1 long, −1 short; `size` > 0 in units of the instrument.
    Costs are commission and slippage paid, in currency. `bars` counts the closes it was held over.
    """

    entry_time: np.datetime64
    exit_time: np.datetime64 | None
    side: int
    size: float
    entry_price: float
    exit_price: float
    entry_costs: float
    exit_costs: float
    pnl: float
    return_: float
    bars: int
    exit_reason: str  # "target", "stop_loss", "take_profit", "ruin" or "open"


@dataclass(frozen=True)
class Drawdown:
    """One fall from a peak of equity: times of peak, valley and recovery (None: not yet), depth ≤ 0."""

    peak_time: np.datetime64
    valley_time: np.datetime64
    recovery_time: np.datetime64 | None
    depth: float
    bars: int


@dataclass(frozen=True)
class BacktestResult:
    """Everything a backtest found. Arrays are (n,), one value a bar of the range, aligned with `time`."""

    symbol: str
    timeframe: str
    strategy: str
    params: dict[str, Any]
    request: dict[str, Any]
    snapshot_id: str
    bars_hash: str
    metrics: Metrics
    benchmark: Metrics
    trades: tuple[Trade, ...]
    drawdowns: tuple[Drawdown, ...]
    time: Times
    close: Floats
    equity: Floats
    benchmark_equity: Floats
    drawdown: Floats
    position: Floats
    periods_a_year: float
    provenance: dict[str, Any] = field(default_factory=dict)
    #: The verdict on the bars (`gpt_trader.backtesting.data_quality`) and what a user must not overlook; not hashed.
    data_quality: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()

    @property
    def result_hash(self) -> str:
        """sha256 over the canonical request, the bars' logical hash, trades, equity and metrics (D12).

        Not in it: run id, times of the run, durations, host, code and library versions.
        """
        digest = hashlib.sha256()
        digest.update(_canonical({"schema": SCHEMA_VERSION, "request": self.request, "params": self.params}))
        digest.update(self.bars_hash.encode())
        digest.update(_canonical([trade_row(t) for t in self.trades]))
        digest.update(np.ascontiguousarray(self.time.astype("datetime64[us]").astype("<i8")).tobytes())
        digest.update(np.ascontiguousarray(self.equity.astype("<f8")).tobytes())
        digest.update(_canonical({"metrics": self.metrics.as_dict(), "benchmark": self.benchmark.as_dict()}))
        return digest.hexdigest()


def iso(time: np.datetime64 | None) -> str | None:
    """Return a time as UTC ISO 8601 with `Z`, to the second; None stays None."""
    return None if time is None else f"{np.datetime_as_string(time, unit='s')}Z"


def trade_row(trade: Trade) -> dict[str, Any]:
    """Return a trade as JSON-ready values, by field name."""
    row = {f.name: getattr(trade, f.name) for f in fields(trade)}
    row["entry_time"], row["exit_time"] = iso(trade.entry_time), iso(trade.exit_time)
    return row


def drawdown_row(drawdown: Drawdown) -> dict[str, Any]:
    """Return a drawdown as JSON-ready values, by field name."""
    row = {f.name: getattr(drawdown, f.name) for f in fields(drawdown)}
    for name in ("peak_time", "valley_time", "recovery_time"):
        row[name] = iso(row[name])
    return row


def finite(value: float) -> float | None:
    """Return the value, or None where it is not a finite number."""
    return float(value) if math.isfinite(value) else None


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
