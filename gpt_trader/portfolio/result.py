"""What a portfolio backtest returns: as a single backtest's result, with weights over time and a row a symbol."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from gpt_trader.backtesting.result import Drawdown, Metrics, drawdown_row, iso
from gpt_trader.bars import Flags, Floats, Times
from gpt_trader.portfolio.kernel import Fills
from gpt_trader.portfolio.trades import Holding, SymbolTrade

SCHEMA_VERSION = 1

#: Worst falls in the summary; the report lists more.
DRAWDOWNS_SHOWN = 5


@dataclass(frozen=True)
class PortfolioResult:
    """Everything a portfolio backtest found; arrays over time are (n,), or (n, m) for m symbols.

    `weights` are held at each close, fractions of equity; `cash` is in currency; `rebalanced` says at which bars the
    whole portfolio was traded to its weights.
    """

    symbols: tuple[str, ...]
    timeframe: str
    request: dict[str, Any]
    snapshot_id: str
    bars_hash: str
    metrics: Metrics
    benchmark: Metrics
    trades: tuple[SymbolTrade, ...]
    holdings: tuple[Holding, ...]
    drawdowns: tuple[Drawdown, ...]
    fills: Fills
    time: Times
    equity: Floats
    benchmark_equity: Floats
    drawdown: Floats
    cash: Floats
    weights: Floats
    rebalanced: Flags
    periods_a_year: float
    provenance: dict[str, Any] = field(default_factory=dict)
    #: What the checks say of the bars (`gpt_trader.portfolio.quality`), and what must not be overlooked; not hashed.
    data_quality: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()

    @property
    def symbol(self) -> str:
        """What it is about, in words."""
        shown, more = ", ".join(self.symbols[:3]), len(self.symbols) - 3
        return f"{shown} and {more} more" if more > 0 else shown

    @property
    def strategy(self) -> str:
        """How the weights are found: the strategy's name, or the method's in words."""
        method = str(self.request["weights"]).replace("_", " ")
        return str(self.request["strategy"] or f"{method} weights")

    @property
    def params(self) -> dict[str, Any]:
        """Parameters of the strategy."""
        return dict(self.request["params"])

    @property
    def close(self) -> None:
        """A portfolio has no price of its own."""
        return

    @cached_property
    def rebalances(self) -> int:
        """How often the whole portfolio was traded to its weights, the first time included."""
        return int(np.count_nonzero(self.rebalanced))

    @cached_property
    def result_hash(self) -> str:
        """sha256 over the canonical request, the bars, every fill, equity and metrics, as a backtest's (D12)."""
        digest = hashlib.sha256()
        digest.update(_canonical({"schema": SCHEMA_VERSION, "flow": "portfolio", "request": self.request}))
        digest.update(self.bars_hash.encode())
        for values in self.fills:
            kind = "<i8" if values.dtype.kind == "i" else "<f8"
            digest.update(np.ascontiguousarray(values.astype(kind)).tobytes())
        digest.update(np.ascontiguousarray(self.time.astype("datetime64[us]").astype("<i8")).tobytes())
        digest.update(np.ascontiguousarray(self.equity.astype("<f8")).tobytes())
        digest.update(_canonical({"metrics": self.metrics.as_dict(), "benchmark": self.benchmark.as_dict()}))
        return digest.hexdigest()


def summary(result: PortfolioResult) -> dict[str, Any]:
    """Return what is shown of a result, JSON-ready; run id, state and artifacts are the run's to add.

    Metrics as a backtest's; `turnover` and `final_equity` are among them too.
    """
    benchmark = result.benchmark.as_dict()
    return {
        "schema_version": SCHEMA_VERSION,
        "flow": "portfolio",
        "symbols": list(result.symbols),
        "timeframe": result.timeframe,
        "weights": result.request["weights"],
        "strategy": result.request["strategy"],
        "params": result.params,
        "rebalance": result.request["rebalance"],
        "drift": result.request["drift"],
        "snapshot_id": result.snapshot_id,
        "bars_hash": result.bars_hash,
        "result_hash": result.result_hash,
        "start": str(result.time[0].astype("datetime64[D]")),
        "end": str(result.time[-1].astype("datetime64[D]")),
        "bars": len(result.time),
        "periods_a_year": result.periods_a_year,
        "metrics": {**result.metrics.as_dict(), "benchmark_return": benchmark["total_return"]},
        "benchmark": benchmark,
        "final_equity": result.metrics.final_equity,
        "turnover": result.metrics.turnover,
        "rebalances": result.rebalances,
        "fills": len(result.fills.bar),
        "holdings": [holding_row(holding) for holding in result.holdings],
        "warnings": list(result.warnings),
        "data_quality": result.data_quality,
        "drawdowns": [drawdown_row(d) for d in result.drawdowns[:DRAWDOWNS_SHOWN]],
        "provenance": result.provenance,
    }


def holding_row(holding: Holding) -> dict[str, Any]:
    """Return a holding as JSON-ready values, by field name."""
    return {**asdict(holding), "first": iso(holding.first), "last": iso(holding.last)}


def _canonical(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
