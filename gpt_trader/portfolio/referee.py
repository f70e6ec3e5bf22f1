"""Has vectorbt keep the books of the kernel's fills: every run is verified, and the trades are vectorbt's.

vectorbt gets one group of all symbols with shared cash, and of each fill exactly its units, price and commission. It
must come to the same cash, positions and equity at every bar. To be quick, and small in memory, it simulates the bars
with fills alone, and values all of them some symbols at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gpt_trader.backtesting.execution import load_vectorbt
from gpt_trader.backtesting.result import iso
from gpt_trader.bars import Floats
from gpt_trader.errors import GptTraderError
from gpt_trader.portfolio.kernel import Course, Fills
from gpt_trader.portfolio.panel import Panel

#: Symbols that are valued together.
_COLUMNS: Final = 250

_TOLERANCE: Final = 1e-9


def verified_orders(panel: Panel, fills: Fills, course: Course, capital: float) -> NDArray[Any]:
    """Return vectorbt's order records of the fills, `idx` a row of the panel; sorted by symbol, then by bar.

    Args:
        panel: The range alone, (n, m).
        fills: What the kernel traded.
        course: What it says came of it.
        capital: Cash before the first bar.

    Raises GptTraderError with the first bar at which vectorbt's cash, a position or the equity is not the kernel's.
    """
    orders = _orders(panel, fills, capital)
    _compare(panel, orders, course, capital)
    return orders


def exit_trades(panel: Panel, orders: NDArray[Any]) -> NDArray[Any]:
    """Return vectorbt's trade records: one a sale, at the average cost of what is sold, and one for what is left."""
    kernels, _ = load_vectorbt()
    last = np.broadcast_to(panel.marks[-1], (len(panel.time), len(panel.symbols)))
    return np.asarray(kernels.get_exit_trades(orders, np.ascontiguousarray(last), _columns(orders, panel)))


def _orders(panel: Panel, fills: Fills, capital: float) -> NDArray[Any]:
    kernels, enums = load_vectorbt()
    bars, place = np.unique(fills.bar, return_inverse=True)
    shape = (max(len(bars), 1), len(panel.symbols))
    size, fees = np.full(shape, np.nan), np.zeros(shape)
    price = panel.marks[bars] if len(bars) else panel.marks[:1].copy()
    at = (place, fills.symbol)
    size[at], price[at], fees[at] = fills.units, fills.price, fills.commission
    found, _ = kernels.simulate_from_orders(
        shape,
        np.array([shape[1]]),
        np.array([capital]),
        _sells_first(size),
        size=size,
        price=price,
        size_type=np.asarray(enums.SizeType.Amount),
        direction=np.asarray(enums.Direction.LongOnly),
        fixed_fees=fees,
        close=price,
        max_orders=max(len(fills.bar), 1),
    )
    orders = np.array(found)
    if len(orders):
        orders["idx"] = bars[orders["idx"]]
    # Records come in the order of the simulation; vectorbt's accounts go by symbol.
    return np.asarray(orders[np.lexsort((orders["idx"], orders["col"]))])


def _sells_first(size: Floats) -> NDArray[np.int64]:
    """Return the order in which each bar's symbols are filled: sells, then buys, then what is not traded."""
    side = np.where(np.isnan(size), 1, np.sign(size)).astype(np.int8)
    return np.argsort(side, axis=1, kind="stable").astype(np.int64)


def _columns(orders: NDArray[Any], panel: Panel) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return vectorbt's map of columns: places of the orders, and how many each column has."""
    counts = np.bincount(orders["col"], minlength=len(panel.symbols)).astype(np.int64)
    return np.arange(len(orders), dtype=np.int64), counts


def _compare(panel: Panel, orders: NDArray[Any], course: Course, capital: float) -> None:
    kernels, enums = load_vectorbt()
    n, m = len(panel.time), len(panel.symbols)
    spent, held = np.zeros(n), np.zeros(n)
    scale = np.abs(course.equity)
    found = []
    for first in range(0, m, _COLUMNS):
        stop = min(first + _COLUMNS, m)
        some = orders[(orders["col"] >= first) & (orders["col"] < stop)].copy()
        some["col"] -= first
        counts = np.bincount(some["col"], minlength=stop - first).astype(np.int64)
        columns = (np.arange(len(some), dtype=np.int64), counts)
        shape = (n, stop - first)
        units = kernels.assets(kernels.asset_flow(shape, some, columns, enums.Direction.Both))
        marks = np.ascontiguousarray(panel.marks[:, first:stop])
        worth = kernels.asset_value(marks, units)
        names = [f"the position of {symbol} is worth" for symbol in panel.symbols[first:stop]]
        found += _differences(names, course.units[:, first:stop] * marks, worth, scale)
        group = np.array([stop - first])
        spent += kernels.cash_flow_grouped(kernels.cash_flow(shape, some, columns, False), group)[:, 0]
        held += kernels.asset_value_grouped(worth, group)[:, 0]
    cash = kernels.cash_grouped((n, m), spent[:, None], np.array([m]), np.array([capital]))
    equity = kernels.value(cash, held[:, None])
    found += _differences(["the cash is"], course.cash[:, None], cash, scale)
    found += _differences(["the equity is"], course.equity[:, None], equity, scale)
    if found:
        bar, said = min(found, key=lambda difference: difference[0])
        raise GptTraderError(
            f"the portfolio simulation and vectorbt disagree: at {iso(panel.time[bar])} {said}. This is a fault of "
            "gpt-trader: please report it"
        )


def _differences(names: Sequence[str], ours: Floats, theirs: Floats, scale: Floats) -> list[tuple[int, str]]:
    """Return where two (n, k) first differ by more than 1e-9 of the equity (n,): the bar, and what it is there."""
    differs = ~(np.abs(ours - theirs) <= _TOLERANCE * scale[:, None])
    if not differs.any():
        return []
    bar, place = (int(at) for at in np.unravel_index(int(np.argmax(differs)), differs.shape))
    values = f"{float(ours[bar, place])!r} by the kernel and {float(theirs[bar, place])!r} by vectorbt"
    return [(bar, f"{names[place]} {values}")]
