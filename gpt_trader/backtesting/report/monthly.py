"""Returns by calendar month and year, from an equity curve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpt_trader.bars import Floats, Times


@dataclass(frozen=True)
class YearOfReturns:
    """One calendar year (UTC): twelve months, January first (None: no bar, or undefined), and the year's own."""

    year: int
    months: tuple[float | None, ...]
    total: float | None


def monthly_returns(time: Times, equity: Floats) -> tuple[YearOfReturns, ...]:
    """Return the simple returns of every calendar month and year that has bars; `time`, `equity` are (n,).

    Formula: last equity of the period over the last equity of the period before, minus 1. The first period is
    measured against the first equity of all. Fractions; None where the equity it starts from is not positive.
    Time zone UTC, months by the bars' labels.
    """
    months = _period_returns(time.astype("datetime64[M]").astype(np.int64), equity)
    years = _period_returns(time.astype("datetime64[Y]").astype(np.int64), equity)
    return tuple(
        YearOfReturns(
            year=year + 1970,
            months=tuple(months.get(year * 12 + month) for month in range(12)),
            total=total,
        )
        for year, total in years.items()
    )


def _period_returns(
    period: np.ndarray[tuple[int, ...], np.dtype[np.int64]], equity: Floats
) -> dict[int, float | None]:
    last = np.append(np.flatnonzero(np.diff(period)), len(period) - 1)
    ends = equity[last]
    starts = np.concatenate((equity[:1], ends[:-1]))
    return {
        int(name): float(end / start - 1) if start > 0 else None
        for name, start, end in zip(period[last], starts, ends, strict=True)
    }
