"""Target weights of a portfolio at each decision: from what is known at that close, and nothing later.

A symbol takes part from the close of its first bar on: before it its weight is 0, and the others share it. One that
has had no bar for `GONE_AFTER` counts as delisted from then on: its weight is NaN, which says that it is not traded,
whatever it is worth, and the others share the rest. A day without a bar (a holiday of its market) changes nothing.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from gpt_trader.bars import Flags, Floats
from gpt_trader.compiling import compiled
from gpt_trader.portfolio.panel import Panel, last_rows
from gpt_trader.portfolio.request import PortfolioRequest

#: A symbol that has had no bar for so long is not traded any more: longer than any market's holidays.
GONE_AFTER: Final = np.timedelta64(30, "D")

#: A weight below this is none.
_NOTHING: Final = 1e-9


def target_weights(
    panel: Panel,
    rows: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    request: PortfolioRequest,
    wanted: Floats | None,
) -> Floats:
    """Return the target weights (k, m) at the closes of some rows of the panel.

    Weights are fractions of equity, each at most `max_weight`, together at most `exposure` (what a capped one leaves
    goes to the others in proportion, as far as they have room; the rest is cash). NaN: not traded any more.

    Args:
        panel: Prices, with the history before the range.
        rows: Rows of the panel, ascending, (k,).
        request: Method and bounds.
        wanted: Each symbol's target by its strategy at each row of the panel, (n, m), within [0, 1]; for weights
            strategy.
    """
    last = last_rows(panel.close)[rows]
    listed: Flags = last >= 0
    age = panel.time[rows][:, None] - panel.time[np.maximum(last, 0)]
    gone: Flags = listed & (age > GONE_AFTER)
    raw = np.where(listed & ~gone, _raw(panel, rows, request), 0.0)
    total = sum(request.weight.values()) if request.weights == "given" else request.exposure
    weights = capped(raw, min(total, request.exposure), request.max_weight)
    if wanted is not None:
        weights = weights * wanted[rows]
    weights[weights < _NOTHING] = 0.0
    weights[gone] = np.nan
    return weights


def _raw(
    panel: Panel, rows: np.ndarray[tuple[int, ...], np.dtype[np.int64]], request: PortfolioRequest
) -> Floats:
    """Return by what the total is shared out, (k, m), ≥ 0."""
    if request.weights == "given":
        return np.broadcast_to(
            [request.weight[symbol] for symbol in panel.symbols], (len(rows), len(panel.symbols))
        )
    if request.weights == "inverse_volatility":
        deviation = np.empty((len(rows), len(panel.symbols)))
        _deviations(np.asfortranarray(panel.close), rows, request.window, deviation)
        # Without volatility (too short a history, or a price that stands still) there is no inverse of it.
        return np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 0)
    return np.ones((len(rows), len(panel.symbols)))


def capped(raw: Floats, total: float, most: float) -> Floats:
    """Share `total` out in proportion to each row of `raw` (k, m), none getting more than `most`.

    What one cannot take the others get, in the same proportion; what nobody can take is left over.
    """
    weights = np.zeros(raw.shape)
    open_ = raw > 0
    left = np.full((len(raw), 1), total)
    while True:
        parts = np.where(open_, raw, 0.0)
        sums = parts.sum(axis=1, keepdims=True)
        shares = parts * np.divide(left, sums, out=np.zeros_like(left), where=sums > 0)
        over = open_ & (shares > most)
        if not over.any():
            return np.asarray(np.where(open_, shares, weights))
        weights[over] = most
        left = np.maximum(left - most * over.sum(axis=1, keepdims=True), 0.0)
        open_ = open_ & ~over


@compiled(nogil=True)
def _deviations(
    close: Floats, rows: np.ndarray[tuple[int, ...], np.dtype[np.int64]], window: int, found: Floats
) -> None:
    """Write the sample standard deviation (n − 1) of each symbol's last `window` simple returns up to each row.

    Over the symbol's own bars, whatever days it skips; 0 where it has fewer.
    """
    n, m = close.shape
    own = np.empty(n)
    for s in range(m):
        count, row = 0, 0
        for k in range(len(rows)):
            while row <= rows[k]:
                if not np.isnan(close[row, s]):
                    own[count] = close[row, s]
                    count += 1
                row += 1
            found[k, s] = 0.0
            if count <= window:
                continue
            mean = 0.0
            for i in range(count - window, count):
                mean += own[i] / own[i - 1] - 1.0
            mean /= window
            squares = 0.0
            for i in range(count - window, count):
                off = own[i] / own[i - 1] - 1.0 - mean
                squares += off * off
            deviation = np.sqrt(squares / (window - 1))
            # Rounding of a price that stands still, or that grows by the same fraction each bar.
            found[k, s] = deviation if deviation > 1e-12 else 0.0
