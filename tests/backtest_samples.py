"""Results of backtests for tests of what presents them: real prices, a small simulation written out in numpy."""

from __future__ import annotations

import csv
import gzip
from dataclasses import replace
from importlib import resources
from typing import Any

import numpy as np

from gpt_trader.backtesting.result import BacktestResult, Drawdown, Metrics, Trade
from gpt_trader.bars import Floats, Times

COMMISSION, SLIPPAGE, CAPITAL = 0.001, 0.0005, 10_000.0


def aapl() -> tuple[Times, Floats, Floats]:
    """Return times, opens and closes of AAPL's daily sample bars, scaled by Adj Close / Close; each (3270,)."""
    packed = resources.files("bokeh_sampledata").joinpath("_data/stocks.csv.gz").read_bytes()
    rows = [
        row
        for row in csv.DictReader(gzip.decompress(packed).decode().splitlines())
        if row["Ticker"] == "AAPL"
    ]
    column = {name: np.array([float(row[name]) for row in rows]) for name in ("Open", "Close", "Adj Close")}
    time = np.array([row["Date"] for row in rows], dtype="datetime64[us]")
    return time, column["Open"] * column["Adj Close"] / column["Close"], column["Adj Close"]


def walk(bars: int, *, step: str = "D", seed: int = 7) -> tuple[Times, Floats, Floats]:
    """Return times, opens and closes of a random walk."""
    generator = np.random.default_rng(seed)
    drift, deviation = (0.0002, 0.01) if step == "D" else (0.0000005, 0.0006)
    close = 100 * np.exp(np.cumsum(generator.normal(drift, deviation, bars)))
    time = np.datetime64("2004-01-05", "us") + np.arange(bars) * np.timedelta64(1, step)
    return time, np.append(close[:1], close[:-1]), close


def sma_cross(
    prices: tuple[Times, Floats, Floats], *, fast: int = 20, slow: int = 60, **changes: Any
) -> BacktestResult:
    """Simulate long-while-SMA(fast)>SMA(slow), next-open fills, costs on both sides; fields may be replaced."""
    time, open_, close = prices
    wanted = np.nan_to_num(_sma(close, fast)) > np.nan_to_num(_sma(close, slow), nan=np.inf)
    cash, shares, entry = CAPITAL, 0.0, -1
    equity, position, trades = np.empty(len(close)), np.zeros(len(close)), []
    for bar in range(len(close)):
        if bar and wanted[bar - 1] and not shares:
            shares, entry = cash / (open_[bar] * (1 + SLIPPAGE) * (1 + COMMISSION)), bar
            cash = 0.0
        elif bar and not wanted[bar - 1] and shares:
            trades.append(_trade(time, entry, bar, shares, open_, close, closed=True))
            cash, shares = shares * open_[bar] * (1 - SLIPPAGE) * (1 - COMMISSION), 0.0
        equity[bar], position[bar] = cash + shares * close[bar], float(shares > 0)
    if shares:
        trades.append(_trade(time, entry, len(close) - 1, shares, open_, close, closed=False))
    held = CAPITAL * close / close[0]
    result = BacktestResult(
        symbol="AAPL",
        timeframe="1d",
        strategy="ma_crossover",
        params={"fast": fast, "slow": slow},
        request={
            "schema_version": 1, "symbol": "AAPL", "strategy": "ma_crossover", "params": {"fast": fast, "slow": slow},
            "start": None, "end": None, "timeframe": "1d", "direction": "long", "capital": CAPITAL,
            "commission": COMMISSION, "slippage": SLIPPAGE, "size": 1.0, "stop_loss": None, "take_profit": None,
            "source": None, "seed": 0,
        },
        snapshot_id="5f1a6c0e9d77",
        bars_hash="c0ffee" * 10 + "abcd",
        metrics=metrics(equity, tuple(trades), float(position.mean())),
        benchmark=metrics(held, (), 1.0),
        trades=tuple(trades),
        drawdowns=falls(time, equity),
        time=time,
        close=close,
        equity=equity,
        benchmark_equity=held,
        drawdown=equity / np.maximum.accumulate(equity) - 1,
        position=position,
        periods_a_year=252.0,
        provenance={
            "code_version": "0.1.0", "seed": 0, "libraries": {"numpy": np.__version__},
            "durations": {"simulate_s": 0.0412},
        },
    )  # fmt: skip
    return replace(result, **changes)


def metrics(equity: Floats, trades: tuple[Trade, ...], exposure: float) -> Metrics:
    """Return plausible metrics of a curve, for display only: the definitions are the engine's."""
    returns = np.diff(equity, prepend=equity[0]) / np.append(equity[:1], equity[:-1])
    drawdown = equity / np.maximum.accumulate(equity) - 1
    growth = float((equity[-1] / equity[0]) ** (252 / len(equity)) - 1)
    deviation = float(returns.std(ddof=1)) if len(equity) > 1 else 0.0
    downside = float(np.sqrt(np.mean(np.minimum(returns, 0) ** 2)))
    closed = [trade for trade in trades if trade.exit_time is not None]
    made, gains = [trade.return_ for trade in trades], sum(max(trade.pnl, 0) for trade in closed)
    losses = -sum(min(trade.pnl, 0) for trade in closed)
    return Metrics(
        total_return=float(equity[-1] / equity[0] - 1),
        annualized_return=growth,
        annualized_volatility=deviation * 252**0.5,
        sharpe=float(returns.mean() / deviation * 252**0.5) if deviation else None,
        sortino=float(returns.mean() / downside * 252**0.5) if downside else None,
        calmar=growth / -float(drawdown.min()) if drawdown.min() < 0 else None,
        max_drawdown=float(drawdown.min()),
        max_drawdown_bars=max(
            (fall.bars for fall in falls(np.arange(len(equity)).astype("M8[D]"), equity)), default=0
        ),
        win_rate=sum(trade.pnl > 0 for trade in closed) / len(closed) if closed else None,
        profit_factor=gains / losses if losses else None,
        expectancy=float(np.mean([trade.pnl for trade in closed])) if closed else None,
        exposure=exposure,
        turnover=float(sum(2 * t.size * t.entry_price for t in trades) / equity.mean()),
        average_trade=float(np.mean(made)) if made else None,
        best_trade=max(made, default=None),
        worst_trade=min(made, default=None),
        trades=len(trades),
        costs=sum(trade.entry_costs + trade.exit_costs for trade in trades),
        final_equity=float(equity[-1]),
    )


def falls(time: Times, equity: Floats) -> tuple[Drawdown, ...]:
    """Return the falls from a peak, each until it is made good or the end."""
    peaks = np.maximum.accumulate(equity)
    under = np.flatnonzero(np.diff(np.concatenate(([0], (equity < peaks).astype(int), [0]))))
    found = []
    for start, stop in zip(under[::2], under[1::2], strict=True):
        valley = start + int(np.argmin(equity[start:stop]))
        depth = float(equity[valley] / peaks[valley] - 1)
        recovery = time[stop] if stop < len(time) else None
        found.append(Drawdown(time[start - 1], time[valley], recovery, depth, int(stop - start)))
    return tuple(found)


def _sma(close: Floats, period: int) -> Floats:
    total = np.cumsum(np.insert(close, 0, 0.0))
    mean = np.full(len(close), np.nan)
    if len(close) >= period:
        mean[period - 1 :] = (total[period:] - total[:-period]) / period
    return mean


def _trade(
    time: Times, entry: int, exit_: int, shares: float, open_: Floats, close: Floats, *, closed: bool
) -> Trade:
    bought = float(open_[entry] * (1 + SLIPPAGE))
    sold = float(open_[exit_] * (1 - SLIPPAGE)) if closed else float(close[exit_])
    paid, charged = shares * bought * COMMISSION, shares * sold * COMMISSION * closed
    pnl = float(shares * (sold - bought) - paid - charged)
    return Trade(
        entry_time=time[entry],
        exit_time=time[exit_] if closed else None,
        side=1,
        size=float(shares),
        entry_price=bought,
        exit_price=sold,
        entry_costs=float(paid),
        exit_costs=float(charged),
        pnl=pnl,
        return_=pnl / (shares * bought),
        bars=exit_ - entry,
        exit_reason="target" if closed else "open",
    )
