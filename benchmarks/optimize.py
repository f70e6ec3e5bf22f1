"""How fast a sweep is, beside vectorbt, backtesting.py and a bare hand-written numba loop, in one run.

    python -m benchmarks.optimize

The same work for each: SMA pairs on the same random walk, long only, next-open fills, 0.1 % commission, all in; final
equities must agree. The bare loop is the limit: it computes each average once, as ours does, and keeps the final equity
and nothing else. Ours checks parameters and targets, and keeps each trial's sums, drawdown and blocks of time.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from benchmarks.lake import row
from gpt_trader.backtesting.execution import load_vectorbt
from gpt_trader.bars import Bars, Floats
from gpt_trader.indicators import exceeds, remembering, sma
from gpt_trader.instruments import Instrument
from gpt_trader.optimization.screening import COLUMNS, WIDTH
from gpt_trader.optimization.space import search_space, trial_numbers
from gpt_trader.optimization.study import Study
from gpt_trader.optimization.walk_forward import walk
from gpt_trader.requests import BacktestRequest, OptimizeRequest, WalkForward
from gpt_trader.simulation import kernel
from gpt_trader.strategies.registry import strategy_type

COMMISSION = 0.001
CAPITAL = 10_000.0
BARS = 5_040


def walking_bars(n: int, seed: int = 7) -> Bars:
    random = np.random.default_rng(seed)
    close = np.round(100 * np.exp(np.cumsum(random.normal(0.0002, 0.015, n))), 4) + 1
    open_ = np.concatenate([close[:1], close[:-1]]) * np.exp(random.normal(0, 0.002, n))
    high, low = np.maximum(open_, close) * 1.002, np.minimum(open_, close) * 0.998
    time_ = np.datetime64("1900-01-01", "us") + np.arange(n) * np.timedelta64(1, "D")
    return Bars(Instrument(symbol="WALK"), "1d", time_, open_, high, low, close, np.full(n, 1e6))


@njit(cache=True)
def bare(
    open_: Floats, close: Floats, fast: Floats, slow: Floats, commission: float, capital: float
) -> float:
    cash, units, held, wanted = capital, 0.0, 0.0, 0.0
    for i in range(len(close)):
        if wanted != held:
            if units != 0.0:
                cash += units * open_[i] * (1.0 - commission)
                units = 0.0
            if wanted != 0.0:
                units = cash / (open_[i] * (1.0 + commission))
                cash = 0.0
            held = wanted
        wanted = 1.0 if fast[i] - slow[i] > 1e-12 * abs(slow[i]) else 0.0
    return cash + units * close[-1]


def cpu(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the CPU seconds of the work, and what it returned."""
    started = time.process_time()
    found = work()
    return time.process_time() - started, found


def study_of(bars: Bars, fasts: int, slows: int) -> tuple[Study, list[int]]:
    request = OptimizeRequest(
        symbol="WALK",
        strategy="ma_crossover",
        space={"fast": {"low": 2, "high": fasts + 1}, "slow": {"low": fasts + 2, "high": fasts + 1 + slows}},
        objective="total_return",
        commission=COMMISSION,
        slippage=0,
        capital=CAPITAL,
    )
    strategy = strategy_type("ma_crossover")
    space = search_space(strategy, request)
    return Study(bars, 0, strategy, space, request), trial_numbers(space, request)


def by_bare(study: Study, numbers: list[int]) -> Floats:
    bars = study.bars
    averages = {
        period: sma(bars.close, period) for values in study.space.values.values() for period in values
    }
    pairs = [study.space.at(number) for number in numbers]
    return np.array(
        [
            bare(bars.open, bars.close, averages[p["fast"]], averages[p["slow"]], COMMISSION, CAPITAL)
            for p in pairs
        ]
    )


def by_vectorbt(study: Study, numbers: list[int]) -> Floats:
    """All pairs as the columns of one portfolio: how vectorbt is meant to be used."""
    import vectorbt as vbt

    bars = study.bars
    pairs = [study.space.at(number) for number in numbers]
    averages = {
        period: sma(bars.close, period) for values in study.space.values.values() for period in values
    }
    above = np.column_stack([exceeds(averages[p["fast"]], averages[p["slow"]]) for p in pairs])
    wanted = np.vstack([np.zeros((1, len(pairs)), bool), above[:-1]])
    before = np.vstack([np.zeros((1, len(pairs)), bool), wanted[:-1]])
    portfolio = vbt.Portfolio.from_signals(
        np.broadcast_to(bars.close[:, None], wanted.shape),
        wanted & ~before,
        ~wanted & before,
        price=np.broadcast_to(bars.open[:, None], wanted.shape),
        fees=COMMISSION,
        init_cash=CAPITAL,
        freq="1D",
    )
    found: Floats = portfolio.final_value().to_numpy()
    return found


def by_backtesting(study: Study, numbers: list[int]) -> Floats:
    import pandas as pd
    from backtesting import Backtest, Strategy

    bars = study.bars

    class Cross(Strategy):  # type: ignore[misc, unused-ignore]
        fast, slow = 2, 3

        def init(self) -> None:
            self.above = self.I(
                lambda: exceeds(sma(bars.close, self.fast), sma(bars.close, self.slow)).astype(float)
            )

        def next(self) -> None:
            if self.above[-1] and not self.position:
                self.buy()
            elif not self.above[-1] and self.position:
                self.position.close()

    frame = pd.DataFrame(
        {"Open": bars.open, "High": bars.high, "Low": bars.low, "Close": bars.close},
        index=pd.DatetimeIndex(bars.time),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        test = Backtest(
            frame, Cross, cash=CAPITAL, commission=COMMISSION, trade_on_close=False, finalize_trades=False
        )
        finals = [float(test.run(**study.space.at(number))["Equity Final [$]"]) for number in numbers]
    return np.array(finals)


def by_backtrader(study: Study, numbers: list[int]) -> Floats:
    """Orders are given at the open, sized by it, from what was decided at the close before: our rules."""
    import backtrader as bt
    import pandas as pd

    bars = study.bars
    index = pd.DatetimeIndex(bars.time)
    frame = pd.DataFrame(
        {"open": bars.open, "high": bars.high, "low": bars.low, "close": bars.close, "volume": bars.volume},
        index,
    )

    class Cross(bt.Strategy):  # type: ignore[misc, unused-ignore]
        params = (("above", None),)

        def next_open(self) -> None:
            known = len(self.data) - 1  # closes; this bar has opened
            wanted = known > 0 and bool(self.p.above[known - 1])
            if wanted and not self.position:
                price = self.data.open[0] * (1 + COMMISSION)
                self.buy(size=self.broker.get_cash() / price * (1 - 1e-12))
            elif not wanted and self.position:
                self.close()

    def final(number: int) -> float:
        pair = study.space.at(number)
        above = exceeds(sma(bars.close, int(pair["fast"])), sma(bars.close, int(pair["slow"])))
        cerebro = bt.Cerebro(stdstats=False, cheat_on_open=True)
        cerebro.adddata(bt.feeds.PandasData(dataname=frame))
        cerebro.addstrategy(Cross, above=above)
        cerebro.broker.setcash(CAPITAL)
        cerebro.broker.setcommission(commission=COMMISSION)
        cerebro.run()
        return float(cerebro.broker.getvalue())

    return np.array([final(number) for number in numbers])


def sweeps() -> None:
    study, numbers = study_of(walking_bars(BARS), 100, 100)
    study.screen(numbers[:10])
    by_bare(study, numbers[:10])
    ours, limit = [], []
    for _ in range(7):  # in turns
        spent, screened = cpu(lambda: study.screen(numbers))
        ours.append(spent)
        spent, finals = cpu(lambda: by_bare(study, numbers))
        limit.append(spent)
    np.testing.assert_allclose(screened.sums[:, COLUMNS.index("final")], finals, rtol=1e-9)
    mine, theirs = statistics.median(ours), statistics.median(limit)
    ratio = statistics.median(one / other for one, other in zip(ours, limit, strict=True))
    count = len(numbers)
    row(
        "10,000 pairs × 5,040 bars (CPU)",
        f"{mine:.2f} s",
        f"{theirs:.2f} s",
        f"{ratio:.2f}×",
        "≤ 2× bare",
    )
    row("  trials a second", f"{count / mine:,.0f}", f"{count / theirs:,.0f}")
    parts(study, numbers, count)
    few = numbers[:: count // 200]
    load_vectorbt()
    by_vectorbt(study, few[:2])
    spent, found = cpu(lambda: by_vectorbt(study, few))
    np.testing.assert_allclose(found, finals[few], rtol=1e-6)
    each = spent / len(few)
    row(
        "  vectorbt, columns of one portfolio, a trial",
        f"{each * 1e3:.2f} ms",
        f"{mine / count * 1e3:.3f} ms",
        f"{each / (mine / count):.0f}×",
        "≥ 20×",
    )
    few = numbers[:: count // 5]
    spent, found = cpu(lambda: by_backtesting(study, few))
    each = spent / len(few)
    apart = float(np.abs(found / finals[few] - 1).max())
    row(
        "  backtesting.py, a trial",
        f"{each * 1e3:.0f} ms",
        f"{mine / count * 1e3:.3f} ms",
        f"{each / (mine / count):,.0f}×",
        "≥ 500×",
    )
    spent, from_backtrader = cpu(lambda: by_backtrader(study, few))
    each = spent / len(few)
    row(
        "  backtrader, a trial",
        f"{each * 1e3:.0f} ms",
        f"{mine / count * 1e3:.3f} ms",
        f"{each / (mine / count):,.0f}×",
    )
    np.testing.assert_allclose(from_backtrader, finals[few], rtol=1e-6)
    print(f"  backtesting.py's final equities differ by up to {apart:.2%}: it buys whole shares only")


def parts(study: Study, numbers: list[int], count: int) -> None:
    """Say where the CPU of a trial goes, each part on its own."""
    room = np.empty(len(study.bars), np.int8)
    prices, terms = kernel.prices_of(study.bars), kernel.terms_of(study.request)
    with remembering():
        study.screen(numbers)
        candidates = cpu(lambda: [study.candidate(number) for number in numbers])[0]
        written = cpu(
            lambda: [study.write(number, lambda whole: room, unchecked=True) for number in numbers]
        )[0]
        targets = np.array([study.targets(number) for number in numbers[::100]]).astype(np.int8)
    wishes = kernel.Wishes.of(targets)
    rows = kernel.Rows(
        kernel.market(prices.close), 0.0, 1.0, np.empty((len(targets), WIDTH)), np.zeros(len(targets), bool)
    )
    simulated = statistics.median(
        cpu(lambda: kernel.sweep(prices, wishes, CAPITAL, terms, rows))[0] for _ in range(20)
    )
    row("  of a trial: checking its parameters", f"{candidates / count * 1e6:.1f} µs")
    row("  of a trial: its targets", f"{(written - candidates) / count * 1e6:.1f} µs")
    row("  of a trial: trading and its sums", f"{simulated / len(targets) * 1e6:.1f} µs")


def single() -> None:
    bars = walking_bars(1_000_000 // 10)
    long = np.tile(bars.close, 10)
    open_ = np.tile(bars.open, 10)
    fast, slow = sma(long, 10), sma(long, 30)
    targets = exceeds(fast, slow).astype(float)
    prices = kernel.Prices(open_, np.maximum(open_, long), np.minimum(open_, long), long)
    terms = kernel.terms_of(BacktestRequest(symbol="WALK", commission=COMMISSION, slippage=0))
    curve = kernel.Curve.empty(len(long))
    kernel.run(prices, targets, CAPITAL, terms, curve)
    both = [
        (
            cpu(lambda: kernel.run(prices, targets, CAPITAL, terms, curve))[0],
            cpu(lambda: bare(open_, long, fast, slow, COMMISSION, CAPITAL))[0],
        )
        for _ in range(9)
    ]  # in turns: alone, one that runs again has its branches guessed from the time before
    ours, limit = (statistics.median(each) for each in zip(*both, strict=True))
    row(
        "1 M bars, one simulation (CPU)",
        f"{ours * 1e3:.1f} ms",
        f"{limit * 1e3:.1f} ms",
        f"{ours / limit:.1f}×",
        "≤ 3× bare",
    )


def walks() -> None:
    study, _ = study_of(walking_bars(BARS), 25, 40)
    wanted = WalkForward(windows=16)
    study.screen([0, 1])
    spent, _ = cpu(lambda: list(walk(study, wanted)))
    row("walk-forward, 1,000 variants × 16 windows (CPU)", f"{spent:.2f} s", "", "", "≤ 2 s")


def growth() -> None:
    base_study, base_numbers = study_of(walking_bars(BARS), 25, 40)
    base = cpu(lambda: base_study.screen(base_numbers))[0]
    row("1,000 variants × 5,040 bars (CPU)", f"{base:.3f} s")
    study, numbers = study_of(walking_bars(BARS), 100, 100)
    more = cpu(lambda: study.screen(numbers))[0]
    row("  variants ×10", f"{more:.2f} s", "", f"{more / base:.1f}×")
    study, numbers = study_of(walking_bars(BARS * 10), 25, 40)
    longer = cpu(lambda: study.screen(numbers))[0]
    row("  bars ×10", f"{longer:.2f} s", "", f"{longer / base:.1f}×")


def memory() -> None:
    """Say what sweeps add to a process at its peak, each in one of its own."""
    for trials, *words in (
        ("10,000 trials × 5,040 bars", "5040", "100", "100"),
        ("20,000 trials × 500 bars", "500", "200", "100"),
        ("784 trials × 125,000 bars", "125000", "4", "196"),
        ("250,000 trials × 5,040 bars", "5040", "500", "500"),
        ("250,000 trials × 5,040 bars, up to the report", "5040", "500", "500", "concluded"),
    ):
        command = [sys.executable, "-m", "benchmarks.sweep_memory", *words]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        row(f"memory added: {trials}", f"{float(found.stdout):.0f} MB", "", "", "≤ 100 MB")


def main() -> None:
    print("load average " + " ".join(f"{load:.1f}" for load in os.getloadavg()))
    row("what", "ours", "beside", "ratio", "bound")
    sweeps()
    single()
    walks()
    growth()
    memory()
    print("load average " + " ".join(f"{load:.1f}" for load in os.getloadavg()))


if __name__ == "__main__":
    main()
