"""One backtest, three engines: ours, plain vectorbt, backtesting.py.

The same work for each: SMA(10) above SMA(30), long only, on the daily AAPL sample (2000 to 2013, adjusted), decided
at the close and filled at the next open, 0.1 % commission, no slippage, all in and fractional; equity, trades and
the usual metrics. Rounds are interleaved, so that a busy machine hurts all alike; read the ratios.

Run: `python benchmarks/peers_backtest.py` (`--rounds 30 --cold-rounds 3`).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable

CAPITAL, COMMISSION, FAST, SLOW = 10_000.0, 0.001, 10, 30
Run = Callable[[], float]


def prepare_ours() -> Run:
    from gpt_trader.backtesting.engine import simulate
    from gpt_trader.requests import BacktestRequest
    from gpt_trader.strategies.registry import build, strategy_type
    from tests.sample_bars import sample_bars

    bars = sample_bars("AAPL")
    strategy = build(strategy_type("ma_crossover"), {"fast": FAST, "slow": SLOW})
    request = BacktestRequest(
        symbol="AAPL", strategy="ma_crossover", capital=CAPITAL, commission=COMMISSION, slippage=0.0
    )
    return lambda: simulate(bars, 0, strategy, request).metrics.final_equity


def prepare_vectorbt() -> Run:
    import vectorbt as vbt

    prices = _frame()

    def run() -> float:
        fast, slow = prices["Close"].rolling(FAST).mean(), prices["Close"].rolling(SLOW).mean()
        portfolio = vbt.Portfolio.from_signals(
            prices["Close"],
            (fast > slow).vbt.signals.fshift(1),
            (fast <= slow).vbt.signals.fshift(1),
            price=prices["Open"],
            init_cash=CAPITAL,
            fees=COMMISSION,
            freq="1D",
        )
        return float(portfolio.stats(settings={"year_freq": "252 days"})["End Value"])

    return run


def prepare_backtesting() -> Run:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it asks for bokeh's notebook mode
        from backtesting import Strategy
        from backtesting.lib import FractionalBacktest

    prices = _frame()

    class SmaCross(Strategy):
        def init(self) -> None:
            close = self.data.Close.s
            # One indicator without NaN: it skips the first bar on which all indicators are defined.
            self.above = self.I(
                lambda: (close.rolling(FAST).mean() > close.rolling(SLOW).mean()).astype(float)
            )

        def next(self) -> None:
            if self.above[-1]:
                if not self.position:
                    self.buy(size=1 - 1e-12)
            elif self.position:
                self.position.close()

    def run() -> float:
        # It warns of a trade left open at the end, which is what we want, and draws a progress bar.
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            backtest = FractionalBacktest(
                prices, SmaCross, cash=CAPITAL, commission=COMMISSION, fractional_unit=1e-9
            )
            return float(backtest.run()["Equity Final [$]"])

    return run


def _frame():
    import pandas as pd

    from tests.sample_bars import sample_bars

    bars = sample_bars("AAPL")
    columns = {name.capitalize(): getattr(bars, name) for name in ("open", "high", "low", "close", "volume")}
    return pd.DataFrame(columns, index=pd.DatetimeIndex(bars.time))


PEERS: dict[str, Callable[[], Run]] = {
    "gpt-trader": prepare_ours,
    "vectorbt": prepare_vectorbt,
    "backtesting.py": prepare_backtesting,
}


def warm(rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return final equities and median seconds of a run in a process that has run it before."""
    runs = {name: prepare() for name, prepare in PEERS.items()}
    equity = {name: run() for name, run in runs.items()}
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            taken[name].append(time.perf_counter() - started)
    return equity, {name: statistics.median(seconds) for name, seconds in taken.items()}


def cold(rounds: int) -> dict[str, float]:
    """Return median seconds of a fresh interpreter that runs it once."""
    taken: dict[str, list[float]] = {name: [] for name in PEERS}
    for _ in range(rounds):
        for name in PEERS:
            started = time.perf_counter()
            subprocess.run([sys.executable, "-P", __file__, "--once", name], check=True, timeout=300)
            taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=30)
    options.add_argument("--cold-rounds", type=int, default=3)
    options.add_argument("--once", choices=PEERS, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.once:
        PEERS[given.once]()()
        return
    equity, median = warm(given.rounds)
    fresh = cold(given.cold_rounds)
    ours = "gpt-trader"
    print(
        f"{'':16}{'final equity':>16}{'off by':>10}{'warm run':>12}{'ratio':>8}{'fresh process':>16}{'ratio':>8}"
    )
    for name in PEERS:
        off = abs(equity[name] / equity[ours] - 1)
        print(
            f"{name:16}{equity[name]:16,.4f}{off:10.1e}{median[name] * 1000:9.1f} ms{median[name] / median[ours]:8.1f}"
            f"{fresh[name]:14.2f} s{fresh[name] / fresh[ours]:8.2f}"
        )


if __name__ == "__main__":
    main()
