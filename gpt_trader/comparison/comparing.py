"""Compares finished runs: which is best by each metric, and everything beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from gpt_trader.backtesting.report.glossary import METRICS
from gpt_trader.backtesting.report.thinning import display_indices
from gpt_trader.backtesting.result import iso
from gpt_trader.comparison.common_dates import CommonDates, common_dates, correlation
from gpt_trader.comparison.comparability import Mismatch, mismatches
from gpt_trader.comparison.contenders import Contender
from gpt_trader.errors import UnknownName

SCHEMA_VERSION: Final = 1


@dataclass(frozen=True)
class Comparison:
    """Runs side by side, in the order they are shown in.

    `best` has for each metric of which more, or less, is better the runs that have most, or least, of it: several where
    they are equal, none where it is undefined for all. `correlated` is (runs, runs), of the runs in `common`.
    """

    contenders: tuple[Contender, ...]
    sort: str | None
    best: dict[str, tuple[str, ...]]
    warnings: tuple[Mismatch, ...]
    common: CommonDates | None
    correlated: list[list[float | None]] | None

    def document(self, points: int) -> dict[str, Any]:
        """Return it JSON-ready, with at most `points` dates of the curves: highs and lows of each are kept."""
        return {
            "schema_version": SCHEMA_VERSION,
            "sort": self.sort,
            "runs": [each.document() for each in self.contenders],
            "best": {name: list(runs) for name, runs in self.best.items()},
            "warnings": [warning.document() for warning in self.warnings],
            "curves": None if self.common is None else _curves(self.common, points),
            "correlation": self._correlation(),
        }

    def _correlation(self) -> dict[str, Any] | None:
        if self.common is None or self.correlated is None:
            return None
        returns = len(self.common.time) - 1
        return {"returns": returns, "run_ids": list(self.common.run_ids), "values": self.correlated}


def compare(contenders: Sequence[Contender], sort: str | None = None) -> Comparison:
    """Compare runs; `sort` names the metric by which the best comes first (undefined last; default: as given).

    Raises UnknownName for a metric that none of the runs has.
    """
    ordered = _ordered(contenders, sort) if sort else tuple(contenders)
    common = common_dates(ordered)
    return Comparison(
        contenders=ordered,
        sort=sort,
        best={name: _best(ordered, name, entry.better) for name, entry in METRICS.items() if entry.better},
        warnings=mismatches(ordered, common),
        common=common,
        correlated=None if common is None else correlation(common.growth),
    )


def _ordered(contenders: Sequence[Contender], metric: str) -> tuple[Contender, ...]:
    known = list(dict.fromkeys(name for each in contenders for name in each.metrics))
    if metric not in known:
        raise UnknownName.among("sort", metric, known, shown=len(known))
    entry = METRICS.get(metric)
    sign = 1.0 if entry is not None and entry.better == "less" else -1.0

    def place(each: Contender) -> tuple[bool, float]:
        value = each.metrics.get(metric)
        return value is None, 0.0 if value is None else sign * value

    return tuple(sorted(contenders, key=place))


def _best(contenders: Sequence[Contender], metric: str, better: str) -> tuple[str, ...]:
    values = {each.run_id: each.metrics.get(metric) for each in contenders}
    defined = [value for value in values.values() if value is not None]
    if not defined:
        return ()
    best = max(defined) if better == "more" else min(defined)
    return tuple(run_id for run_id, value in values.items() if value == best)


def _curves(common: CommonDates, points: int) -> dict[str, Any]:
    shown = display_indices(list(common.growth), points)
    return {
        "bars": len(common.time),
        "time": [iso(moment) for moment in common.time[shown]],
        "growth": {
            run_id: np.round(curve[shown], 10).tolist()
            for run_id, curve in zip(common.run_ids, common.growth, strict=True)
        },
    }
