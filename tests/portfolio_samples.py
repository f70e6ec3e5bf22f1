"""Made-up panels of prices, and strategies of them, for tests of portfolios."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from gpt_trader.bars import Floats
from gpt_trader.instruments import Instrument
from gpt_trader.portfolio.panel import Panel

NAMES = ("AAA", "BBB", "CCC", "DDD", "EEE", "FFF")


def panel_of(
    opens: dict[str, list[float]],
    closes: dict[str, list[float]] | None = None,
    *,
    start: str = "2020-01-30",
    step: int = 1,
    first: int = 0,
) -> Panel:
    """Return a panel of these prices by symbol, a bar every `step` days; closes are the opens if not given."""
    nan = float("nan")
    prices = [
        np.array([[nan if p is None else p for p in row] for row in given.values()], np.float64).T
        for given in (opens, closes or opens)
    ]
    time = np.datetime64(start, "us") + np.arange(len(prices[0])) * np.timedelta64(step, "D")
    instruments = tuple(Instrument(symbol=symbol) for symbol in opens)
    return Panel(instruments, "1d", time, *prices, first)


def walking_panel(bars: int, symbols: int, seed: int = 0) -> Panel:
    """Return a panel of random walks without a missing bar."""
    random = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(random.normal(0.0002, 0.015, (bars, symbols)), axis=0))
    opened = np.vstack([close[:1], close[:-1]]) * np.exp(random.normal(0, 0.003, (bars, symbols)))
    time = np.datetime64("2000-01-03", "us") + np.arange(bars) * np.timedelta64(1, "D")
    names = tuple(Instrument(symbol=f"S{number:04}") for number in range(symbols))
    return Panel(names, "1d", time, np.asfortranarray(opened), np.asfortranarray(close))


@st.composite
def panels(draw: st.DrawFn, *, whole: bool = False) -> Panel:
    """Panels with gaps at the open, listings and delistings, holidays and history; `whole`: without missing bars."""
    bars, symbols = draw(st.integers(2, 40)), draw(st.integers(2, 5))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    level = draw(st.sampled_from([0.0, 0.005, 0.05, 0.3]))
    base = 10.0 ** random.uniform(-1, 4, symbols)
    steps = random.normal(0, level, (2 * bars, symbols))
    walk = (base * np.exp(np.cumsum(steps, axis=0))).reshape(bars, 2, symbols)
    opened, closed = walk[:, 0].copy(), walk[:, 1].copy()
    first = draw(st.integers(0, min(8, bars - 2)))
    if not whole:
        missing = random.random((bars, symbols)) < draw(st.sampled_from([0.0, 0.1, 0.5]))
        for symbol in range(symbols):
            missing[: draw(st.sampled_from([0, 0, 3, first + 4])), symbol] = True
            gone = draw(st.sampled_from([0, 0, 0, 5, 15]))
            missing[bars - gone :, symbol] = True
            if missing[first:, symbol].all():
                missing[random.integers(first, bars), symbol] = False
        empty = missing.all(axis=1)  # a time is there only where some symbol has a bar
        missing[empty, random.integers(0, symbols, int(empty.sum()))] = False
        opened[missing] = closed[missing] = np.nan
    time = np.datetime64(draw(st.sampled_from(["2020-01-01", "2020-03-20", "2019-12-27"])), "us")
    step = np.timedelta64(draw(st.sampled_from([1, 1, 1, 9])), "D")
    instruments = tuple(Instrument(symbol=name) for name in NAMES[:symbols])
    return Panel(instruments, "1d", time + np.arange(bars) * step, opened, closed, first)


def wishes(panel: Panel, seed: int) -> Floats:
    """Return made-up targets of a strategy (n, m): held for some bars, 0 before the range."""
    random = np.random.default_rng(seed)
    shape = panel.close.shape
    changes = random.random(shape) < 0.3
    levels = random.choice([0.0, 0.5, 1.0, 1.0], shape)
    rows = np.maximum.accumulate(np.where(changes, np.arange(shape[0])[:, None], 0), axis=0)
    found = np.take_along_axis(levels, rows, axis=0)
    found[: panel.first] = 0.0
    return np.asarray(found)
