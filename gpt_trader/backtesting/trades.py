"""Translates vectorbt's trade records into ours: times, costs (rates), and why a trade was closed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from gpt_trader.backtesting.result import Trade
from gpt_trader.costs import Commission, Slippage

if TYPE_CHECKING:
    from gpt_trader.bars import Bars
    from gpt_trader.requests import SimulationRequest

#: Codes in vectorbt's trade records (`TradeDirection`, `TradeStatus` of `vectorbt.portfolio.enums`).
_LONG: Final = 0
_CLOSED: Final = 1


def trades_of(
    records: NDArray[Any], bars: Bars, closing: NDArray[np.bool_], request: SimulationRequest
) -> tuple[Trade, ...]:
    """Return vectorbt's trade records as trades, in order of entry.

    Args:
        records: Structured array of vectorbt's `trade_dt`; its indexes count rows, two a bar.
        bars: The range's bars, (n,).
        closing: Rows at which a change of target closed the position, (2n,).
        request: Slippage and stops of the simulation.
    """
    return tuple(_trade(record, bars, closing, request) for record in records)


def _trade(record: np.void, bars: Bars, closing: NDArray[np.bool_], request: SimulationRequest) -> Trade:
    side = 1 if record["direction"] == _LONG else -1
    size, entry_price, exit_price = (float(record[k]) for k in ("size", "entry_price", "exit_price"))
    entered, left = int(record["entry_idx"]) // 2, int(record["exit_idx"]) // 2
    closed, by_target = bool(record["status"] == _CLOSED), bool(closing[record["exit_idx"]])
    slippage = Slippage.of(request.slippage).rate
    reference = exit_price / (1.0 - side * slippage)
    exit_slippage = _slippage_paid(-side, size, exit_price, slippage) if closed else 0.0
    return Trade(
        entry_time=bars.time[entered],
        exit_time=bars.time[left] if closed else None,
        side=side,
        size=size,
        entry_price=entry_price,
        exit_price=exit_price,
        entry_costs=float(record["entry_fees"]) + _slippage_paid(side, size, entry_price, slippage),
        exit_costs=float(record["exit_fees"]) + exit_slippage,
        pnl=float(record["pnl"]),
        return_=float(record["return"]),
        # Closes it was held over: left at the open of a bar or within it, that bar's close is not one of them.
        bars=(left if closed else len(bars)) - entered,
        exit_reason=_reason(side, by_target, entry_price, reference, request) if closed else "open",
    )


def _slippage_paid(side: int, size: float, price: float, slippage: float) -> float:
    """Return what slippage cost (currency): the fill was `price` = reference · (1 + side · slippage)."""
    return size * price * slippage / (1.0 + side * slippage)


def _reason(
    side: int, by_target: bool, entry_price: float, reference: float, request: SimulationRequest
) -> str:
    """Tell why a closed trade was closed; before slippage a stop-loss lies on the losing side of the entry's fill."""
    if by_target:
        return "target"
    if request.stop_loss is None or request.take_profit is None:
        return "take_profit" if request.stop_loss is None else "stop_loss"
    return "stop_loss" if side * (reference - entry_price) < 0 else "take_profit"


def ruined(trades: tuple[Trade, ...], bars: Bars, bar: int, request: SimulationRequest) -> tuple[Trade, ...]:
    """Close the open short, if there is one, at `bar`, at the price that leaves exactly nothing of the account."""
    if not trades or trades[-1].exit_time is not None:
        return trades
    *earlier, short = trades
    pnl = -(request.capital + math.fsum(t.pnl for t in earlier))
    liquidated = replace(
        short,
        exit_time=bars.time[bar],
        exit_price=short.entry_price * (1.0 - Commission.of(request.commission).rate) - pnl / short.size,
        pnl=pnl,
        return_=pnl / (short.size * short.entry_price),
        bars=short.bars - (len(bars) - bar),
        exit_reason="ruin",
    )
    return (*earlier, liquidated)
