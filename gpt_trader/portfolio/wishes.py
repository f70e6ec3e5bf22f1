"""What a strategy wants of each symbol of a portfolio, on the times of all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from gpt_trader.backtesting.causality import require_causal
from gpt_trader.backtesting.engine import wanted_targets
from gpt_trader.bars import Bars, Floats
from gpt_trader.portfolio.panel import Panel
from gpt_trader.portfolio.request import PortfolioRequest
from gpt_trader.strategies.base import Strategy

#: On so many symbols a strategy is tried for a look into the future: each costs eight more calls.
TRIED: Final = 5


@dataclass(frozen=True, eq=False)
class Wishes:
    """Targets by symbol at each row of a panel (n, m), within [0, 1], and the hash of the bars that they are of."""

    targets: Floats
    bars_hash: str


def wishes(panel: Panel, bars: Iterable[Bars], strategy: Strategy, request: PortfolioRequest) -> Wishes:
    """Return what the strategy wants of each symbol; between bars of a symbol its last target stands.

    Args:
        panel: Prices of the symbols; before its range every target is 0.
        bars: All bars of each symbol, in the panel's order; those after the panel's last time are left out.
        strategy: Long only, as the portfolio is.
        request: For the terms of the strategy's backtests.

    Raises Refused where the targets are no targets, or the strategy looks into the future.
    """
    found = np.zeros(panel.close.shape)
    digest = hashlib.sha256()
    for place, (symbol, of_symbol) in enumerate(zip(panel.symbols, bars, strict=True)):
        first = int(np.searchsorted(of_symbol.time, panel.time[panel.first], "left"))
        stop = int(np.searchsorted(of_symbol.time, panel.time[-1], "right"))
        if place < TRIED:
            require_causal(strategy, of_symbol[:stop], first)
        targets = wanted_targets(strategy, of_symbol[:stop], first, request.backtest(symbol))
        found[:, place] = _spread(panel, of_symbol[first:stop], targets)
        digest.update(of_symbol[:stop].identified().logical_hash.encode())
    return Wishes(found, digest.hexdigest())


def _spread(panel: Panel, bars: Bars, targets: Floats) -> Floats:
    """Return targets (k,) of bars at the rows of a panel (n,): at each row the last one by then."""
    latest = np.searchsorted(bars.time, panel.time, side="right") - 1
    return (
        np.where(latest >= 0, targets[np.maximum(latest, 0)], 0.0)
        if len(targets)
        else np.zeros(len(panel.time))
    )
