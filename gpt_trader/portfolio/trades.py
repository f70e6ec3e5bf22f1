"""Round trips of a portfolio at average cost, from vectorbt's trade records, and what each symbol came to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gpt_trader.backtesting.result import Trade
from gpt_trader.portfolio.kernel import Course, Fills
from gpt_trader.portfolio.panel import Panel
from gpt_trader.portfolio.referee import exit_trades

#: Code in vectorbt's trade records (`TradeStatus` of `vectorbt.portfolio.enums`).
_CLOSED: Final = 1


@dataclass(frozen=True)
class SymbolTrade(Trade):
    """A sale, in full or in part, with the average cost of what was sold; or what is left of a position at the end.

    As in `Trade`, of one symbol. `entry_time` is when the position was opened, `entry_price` the average of all that
    was bought of it by then. `exit_reason`: "target" where its weight became 0, "rebalance" for a part, or "open".
    """

    symbol: str


@dataclass(frozen=True)
class Holding:
    """What one symbol did in a portfolio. Weights are fractions of equity at the close; money in its currency.

    `target` is the last target weight (None: not traded any more), `first` and `last` the times of its first and last
    bar in the range, `pnl` of all its trades, the open one included.
    """

    symbol: str
    weight: float
    average_weight: float
    highest_weight: float
    target: float | None
    pnl: float
    costs: float
    fills: int
    trades: int
    first: np.datetime64
    last: np.datetime64


def trades_of(panel: Panel, fills: Fills, course: Course, orders: NDArray[Any]) -> tuple[SymbolTrade, ...]:
    """Return the trades in order of their end (open ones last), then of symbol.

    Arguments as `referee.verified_orders`, and what it returned.
    """
    records = exit_trades(panel, orders)
    if not len(records):
        return ()
    # vectorbt averages what was paid; the same average of the prices before slippage tells what slippage cost.
    before = orders.copy()
    before["price"] = _by_symbol(fills, fills.reference)
    references = exit_trades(panel, before)
    closed = records["status"] == _CLOSED
    slipped_in = records["size"] * np.abs(records["entry_price"] - references["entry_price"])
    slipped_out = np.where(
        closed, records["size"] * np.abs(records["exit_price"] - references["exit_price"]), 0.0
    )
    left = course.units[records["exit_idx"], records["col"]] > 0.0
    order = np.lexsort((records["col"], records["exit_idx"], ~closed)).tolist()
    symbols, bars = panel.symbols, len(panel.time)
    column = {name: records[name].tolist() for name in records.dtype.names or ()}
    entry_costs = (records["entry_fees"] + slipped_in).tolist()
    exit_costs = (records["exit_fees"] + slipped_out).tolist()
    times, whole, partial = list(panel.time), closed.tolist(), left.tolist()
    return tuple(
        SymbolTrade(
            entry_time=times[column["entry_idx"][k]],
            exit_time=times[column["exit_idx"][k]] if whole[k] else None,
            side=1,
            size=column["size"][k],
            entry_price=column["entry_price"][k],
            exit_price=column["exit_price"][k],
            entry_costs=entry_costs[k],
            exit_costs=exit_costs[k],
            pnl=column["pnl"][k],
            return_=column["return"][k],
            bars=(column["exit_idx"][k] if whole[k] else bars) - column["entry_idx"][k],
            exit_reason=("rebalance" if partial[k] else "target") if whole[k] else "open",
            symbol=symbols[column["col"][k]],
        )
        for k in order
    )


def _by_symbol(fills: Fills, values: NDArray[Any]) -> NDArray[Any]:
    """Return values of the fills in the order of `referee.verified_orders`."""
    return np.asarray(values[np.lexsort((fills.bar, fills.symbol))])


def holdings_of(
    panel: Panel,
    weights: NDArray[np.float64],
    targets: NDArray[np.float64],
    fills: Fills,
    trades: Sequence[SymbolTrade],
) -> tuple[Holding, ...]:
    """Return what each symbol did, in the order of the panel; `weights` (n, m) held, `targets` (m,) the last ones."""
    pnl: dict[str, list[float]] = {symbol: [] for symbol in panel.symbols}
    costs: dict[str, list[float]] = {symbol: [] for symbol in panel.symbols}
    for trade in trades:
        pnl[trade.symbol].append(trade.pnl)
        costs[trade.symbol] += (trade.entry_costs, trade.exit_costs)
    counts = np.bincount(fills.symbol, minlength=len(panel.symbols))
    has_bar = ~np.isnan(panel.close)
    firsts = panel.time[has_bar.argmax(axis=0)]
    lasts = panel.time[len(panel.time) - 1 - has_bar[::-1].argmax(axis=0)]
    means, highest = weights.mean(axis=0), weights.max(axis=0)
    return tuple(
        Holding(
            symbol=symbol,
            weight=float(weights[-1, s]),
            average_weight=float(means[s]),
            highest_weight=float(highest[s]),
            target=None if math.isnan(targets[s]) else float(targets[s]),
            pnl=math.fsum(pnl[symbol]),
            costs=math.fsum(costs[symbol]),
            fills=int(counts[s]),
            trades=len(pnl[symbol]),
            first=firsts[s],
            last=lasts[s],
        )
        for s, symbol in enumerate(panel.symbols)
    )
