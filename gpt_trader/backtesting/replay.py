"""Keeps the books of the kernel's fills by vectorbt: the way of costs that vectorbt does not know.

vectorbt gets three rows a bar, one for each fill that a bar can have (`kernel.step`): what left a position, what
entered one, what liquidated it at the close. Each is an order of exactly the kernel's units, price and commission;
cash, equity, trades and their results are vectorbt's own sums of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from gpt_trader.backtesting.execution import Execution, books, load_vectorbt, round_trips
from gpt_trader.backtesting.result import Trade, iso
from gpt_trader.errors import GptTraderError
from gpt_trader.simulation import kernel

if TYPE_CHECKING:
    from gpt_trader.bars import Bars, Floats
    from gpt_trader.requests import SimulationRequest

#: Rows a bar.
_ROWS: Final = 3

#: Codes in vectorbt's trade records (`TradeDirection`, `TradeStatus` of `vectorbt.portfolio.enums`).
_LONG: Final = 0
_CLOSED: Final = 1

_REASONS: Final = {
    kernel.TARGET: "target",
    kernel.STOP_LOSS: "stop_loss",
    kernel.TAKE_PROFIT: "take_profit",
    kernel.RUIN: "ruin",
}


def replay(bars: Bars, targets: Floats, request: SimulationRequest) -> Execution:
    """Find the fills of `targets` by the kernel and return what vectorbt makes of them; arguments as `execute`'s.

    Raises GptTraderError with the first bar at which vectorbt's equity is not the kernel's.
    """
    prices, terms = kernel.prices_of(bars), kernel.terms_of(request)
    found = np.zeros((len(bars), _ROWS, len(kernel.Fill._fields)))
    kernel.record(prices, np.ascontiguousarray(targets), request.capital, terms, found)
    fills = found.reshape(len(bars) * _ROWS, -1)
    close = np.repeat(bars.close, _ROWS).reshape(-1, 1)
    orders = _ordered(fills, close, request.capital)
    position, value = books(close, orders, request.capital)
    equity, units = value[_ROWS - 1 :: _ROWS].copy(), position[_ROWS - 1 :: _ROWS].copy()
    ours = kernel.simulate(bars, targets, request)
    _require_same(bars, ours, equity)
    over = ours.equity == 0.0  # nothing is left: what vectorbt has is rounding
    equity[over] = units[over] = 0.0
    trades = tuple(_trade(record, bars, fills) for record in round_trips(orders, close))
    return Execution(equity, units, trades)


def _ordered(fills: Floats, close: Floats, capital: float) -> NDArray[Any]:
    """Return vectorbt's order records of the fills, (m, fields of a `Fill`)."""
    kernels, enums = load_vectorbt()
    units, price, commission = (
        fills[:, kernel.Fill._fields.index(k)] for k in ("units", "price", "commission")
    )
    filled = units != 0.0
    orders, _ = kernels.simulate_from_orders(
        close.shape,
        np.array([1]),
        np.array([capital]),
        np.zeros(close.shape, dtype=np.int64),
        size=np.where(filled, units, np.nan).reshape(-1, 1),
        price=np.where(filled, price, close[:, 0]).reshape(-1, 1),
        size_type=np.asarray(enums.SizeType.Amount),
        direction=np.asarray(enums.Direction.Both),
        fixed_fees=commission.reshape(-1, 1).copy(),
        close=close,
    )
    return np.asarray(orders)


def _require_same(bars: Bars, ours: kernel.Curve, equity: Floats) -> None:
    scale = float(np.abs(equity).max() + np.abs(ours.position * bars.close).max())
    differs = np.abs(ours.equity - equity) > 1e-9 * np.abs(equity) + 1e-12 * scale
    if differs.any():
        at = int(np.argmax(differs))
        raise GptTraderError(
            f"the simulation kernel and vectorbt disagree: at {iso(bars.time[at])} equity is {ours.equity[at]!r} by "
            f"the kernel and {equity[at]!r} by vectorbt. This is a fault of gpt-trader: please report it"
        )


def _trade(record: np.void, bars: Bars, fills: Floats) -> Trade:
    side = 1 if record["direction"] == _LONG else -1
    size, closed = float(record["size"]), bool(record["status"] == _CLOSED)
    entry = kernel.Fill(*fills[record["entry_idx"]].tolist())
    leave = kernel.Fill(*fills[record["exit_idx"]].tolist()) if closed else kernel.NOTHING
    entered, left = int(record["entry_idx"]) // _ROWS, int(record["exit_idx"]) // _ROWS
    # Closes it was held over: liquidated at a close, that close is none of them, as little as a fill's within a bar.
    return Trade(
        entry_time=bars.time[entered],
        exit_time=bars.time[left] if closed else None,
        side=side,
        size=size,
        entry_price=float(record["entry_price"]),
        exit_price=float(record["exit_price"]),
        entry_costs=entry.commission + size * abs(entry.price - entry.reference),
        exit_costs=leave.commission + size * abs(leave.price - leave.reference),
        pnl=float(record["pnl"]),
        return_=float(record["return"]),
        bars=(left if closed else len(bars)) - entered,
        exit_reason=_REASONS[int(leave.reason)] if closed else "open",
    )
