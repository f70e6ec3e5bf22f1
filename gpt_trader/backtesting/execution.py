"""Turns targets into fills, equity and trades. vectorbt executes and keeps the books; nobody else imports it.

How a target is executed
------------------------
`targets[i]`, decided at the close of bar `i`, is wanted from the open of bar `i + 1` on. Nothing is traded while
the wanted target stays the same. Where it changes from `a` to `b`, at that open `p`:

1. a position that is still there is closed in full: sold at `p·(1 − slippage)` or covered at `p·(1 + slippage)`;
2. if `b ≠ 0`, a position of `|b|·size` of the cash then held (= equity: nothing else is left) is opened:
   long  `shares = |b|·size·cash / (p·(1 + slippage)·(1 + commission))`, so that the outlay with its commission is
   `|b|·size·cash`; short `shares = |b|·size·cash / (p·(1 − slippage)·(1 + commission))`, the mirror.

So a reversal (+1 → −1) is two fills at one open with commission on both, and so is a change of fraction
(0.5 → 1): a new trade of the new size, never a silent drift. Commission is a fraction of each fill's notional.

Stops (`stop_loss`, `take_profit`) hang on the entry's fill price. They are watched from the bar after the entry's
(a bar does not tell what came first within it) and in the order of time as far as bars tell it: at the open a change
of target and a gap beyond a stop fill at the open, then within the bar the stop-loss goes before the take-profit.
Slippage applies to stops as to every other fill. After a stop the position stays flat until the target changes.

A short can lose more than the account holds. At the first open or close where equity is not positive, the position
is liquidated at the price that leaves exactly nothing (exit reason `ruin`): equity is 0 from that bar on and nothing
more is traded. The loss beyond the account is the broker's; it is not modeled.

A cost that is more than a rate (`gpt_trader.costs`: an amount a unit or an order, a minimum, a maximum) is charged by
the same rules, with the shares solved for so that outlay and commission are `|b|·size·cash`; a position worth less
than its own commission is not opened, and a sale costs no more than it brings.

How vectorbt is asked
---------------------
`Portfolio.from_signals` places at most one order a bar, lets a stop suppress the signal of its bar, and refuses
reversals of a percentage size. So each bar is given to it as two rows: the **auction** (open = high = low = close =
the open), where positions are closed, and the **session** (the bar itself), where they are opened. Its simulation
kernels are called through `vectorbt.portfolio.dispatch`, which takes the compiled Rust ones: no JIT, no pandas,
1 ms for eight years of daily bars where `from_signals` needs 5. Tests hold the outcome equal to
`Portfolio.from_signals` and to a plain-Python simulation. vectorbt knows rates and fixed fees alone: where costs are
more, `gpt_trader.simulation.kernel` finds the fills, and vectorbt keeps the books of them (`replay`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpt_trader.backtesting.trades import ruined, trades_of
from gpt_trader.costs import Commission, Slippage

if TYPE_CHECKING:
    from types import ModuleType

    from gpt_trader.backtesting.result import Trade
    from gpt_trader.bars import Bars, Floats
    from gpt_trader.requests import SimulationRequest


@dataclass(frozen=True)
class Execution:
    """What came of the targets: arrays (n,), a value a bar, and the trades in order of entry.

    `equity` is at the bar's close, in currency; `position` is held over the close, in signed units.
    """

    equity: Floats
    position: Floats
    trades: tuple[Trade, ...]


def execute(bars: Bars, targets: Floats, request: SimulationRequest) -> Execution:
    """Simulate `targets` on `bars` with the request's capital, costs, size and stops (see the module).

    Args:
        bars: Bars of the range only, (n,), n ≥ 1.
        targets: Wanted position decided at each bar's close, (n,), finite, within [−1, 1]; the last one is never
            filled.
        request: Terms of the simulation; its direction has been applied to `targets` already.

    Returns:
        Equity and position, (n,) each, and the trades. `equity[0]` is the capital.
    """
    commission, slippage = Commission.of(request.commission), Slippage.of(request.slippage)
    if not (commission.is_rate and slippage.is_rate):
        from gpt_trader.backtesting.replay import replay

        return replay(bars, targets, request)
    rows = _Rows.of(bars, targets)
    orders = _simulate(rows, request, commission.rate, slippage.rate)
    position, value = books(rows.close, orders, request.capital)
    equity, units = value[1::2].copy(), position[1::2].copy()
    broke = value <= 0.0
    if not broke.any():
        return Execution(
            equity, units, trades_of(round_trips(orders, rows.close), bars, rows.closing, request)
        )
    row = int(np.argmax(broke))
    equity[row // 2 :] = units[row // 2 :] = 0.0
    affordable = _affordable(orders, position, row)
    records = round_trips(affordable, rows.close[: row + 1])
    return Execution(
        equity, units, ruined(trades_of(records, bars, rows.closing, request), bars, row // 2, request)
    )


@dataclass(frozen=True)
class _Rows:
    """Bars and signals as vectorbt gets them: (2n, 1), row 2i the auction of bar i, row 2i + 1 its session."""

    open: Floats
    high: Floats
    low: Floats
    close: Floats
    long_entries: NDArray[np.bool_]
    long_exits: NDArray[np.bool_]
    short_entries: NDArray[np.bool_]
    short_exits: NDArray[np.bool_]
    fraction: Floats

    @classmethod
    def of(cls, bars: Bars, targets: Floats) -> _Rows:
        wanted = np.concatenate(([0.0], targets[:-1]))
        held = np.concatenate(([0.0], wanted[:-1]))
        changed = wanted != held
        never = np.zeros(len(bars), dtype=np.bool_)
        return cls(
            open=_interleaved(bars.open, bars.open),
            high=_interleaved(bars.open, bars.high),
            low=_interleaved(bars.open, bars.low),
            close=_interleaved(bars.open, bars.close),
            long_entries=_interleaved(never, changed & (wanted > 0)),
            long_exits=_interleaved(changed & (held > 0), never),
            short_entries=_interleaved(never, changed & (wanted < 0)),
            short_exits=_interleaved(changed & (held < 0), never),
            fraction=_interleaved(np.abs(wanted), np.abs(wanted)),
        )

    @property
    def closing(self) -> NDArray[np.bool_]:
        """Rows where a change of target closes what is held, (2n,)."""
        return (self.long_exits | self.short_exits)[:, 0]


def _interleaved(auction: NDArray[Any], session: NDArray[Any]) -> NDArray[Any]:
    return np.stack((auction, session), axis=1).reshape(-1, 1)


def _simulate(rows: _Rows, request: SimulationRequest, commission: float, slippage: float) -> NDArray[Any]:
    """Run vectorbt's signal simulation and return its order records."""
    kernels, enums = load_vectorbt()
    stops = request.stop_loss is not None or request.take_profit is not None
    orders, _ = kernels.simulate_from_signals(
        rows.open.shape,
        np.array([1]),
        np.array([request.capital]),
        np.zeros(rows.open.shape, dtype=np.int64),
        long_entries=rows.long_entries,
        long_exits=rows.long_exits,
        short_entries=rows.short_entries,
        short_exits=rows.short_exits,
        size=rows.fraction * request.size,
        size_type=np.asarray(enums.SizeType.Percent),
        price=rows.open,
        fees=np.asarray(commission),
        slippage=np.asarray(slippage),
        # After a ruin a short that could not be covered meets entries again: they are void.
        upon_opposite_entry=np.asarray(enums.OppositeEntryMode.Ignore),
        open=rows.open,
        high=rows.high,
        low=rows.low,
        close=rows.close,
        sl_stop=np.asarray(np.nan if request.stop_loss is None else request.stop_loss),
        tp_stop=np.asarray(np.nan if request.take_profit is None else request.take_profit),
        stop_entry_price=np.asarray(enums.StopEntryPrice.FillPrice),
        stop_exit_price=np.asarray(enums.StopExitPrice.StopMarket),
        use_stops=stops,
    )
    return np.asarray(orders)


def books(close: Floats, orders: NDArray[Any], capital: float) -> tuple[Floats, Floats]:
    """Return units held and equity after each row of `close` (m, 1), (m,) each, by vectorbt's own accounting."""
    kernels, enums = load_vectorbt()
    shape, of_column = close.shape, _column_map(orders)
    units = kernels.assets(kernels.asset_flow(shape, orders, of_column, enums.Direction.Both))
    cash = kernels.cash(kernels.cash_flow(shape, orders, of_column, False), np.array([capital]))
    value = kernels.value(cash, kernels.asset_value(close, units))
    return np.asarray(units)[:, 0], np.asarray(value)[:, 0]


def round_trips(orders: NDArray[Any], close: Floats) -> NDArray[Any]:
    """Return vectorbt's trade records, what is open valued at the last `close`."""
    kernels, _ = load_vectorbt()
    return np.asarray(kernels.get_exit_trades(orders, close, _column_map(orders)))


def _column_map(orders: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.arange(len(orders), dtype=np.int64), np.array([len(orders)], dtype=np.int64)


def _affordable(orders: NDArray[Any], position: Floats, row: int) -> NDArray[Any]:
    """Return the orders up to the ruin at `row`, without a cover there that could be paid in part only."""
    _, enums = load_vectorbt()
    kept = orders[orders["idx"] <= row]
    last = kept[-1]
    partial = position[row] < 0 and last["idx"] == row and last["side"] == enums.OrderSide.Buy
    return kept[:-1] if partial else kept


def load_vectorbt() -> tuple[ModuleType, ModuleType]:
    """Import vectorbt (2–4 s, once a process) and return its kernels and its enumerations."""
    if "vectorbt" not in sys.modules:
        with _without_widgets():
            import vectorbt  # noqa: F401
    from vectorbt.portfolio import dispatch, enums

    return dispatch, enums


def vectorbt_version() -> str:
    """Return the version of the engine of record, `1.2.0`."""
    load_vectorbt()
    return str(sys.modules["vectorbt"].__version__)


@contextmanager
def _without_widgets() -> Iterator[None]:
    """Import vectorbt as where ipywidgets is not installed: notebook widgets, which plotly treats as optional.

    They pull in IPython and jsonschema, a quarter of vectorbt's import time, for plots that no flow draws. Later
    imports of ipywidgets work as ever; plotly's `FigureWidget` says in this process what it says without them.
    """
    if "ipywidgets" in sys.modules:
        yield
        return
    sys.modules["ipywidgets"] = None  # type: ignore[assignment]  # the import system's own sign for "not there"
    try:
        yield
    finally:
        del sys.modules["ipywidgets"]
