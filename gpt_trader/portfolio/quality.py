"""What a portfolio backtest has to say of the bars it ran on: of all symbols, and of each that has findings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, get_args

from gpt_trader.backtesting.data_quality import affected
from gpt_trader.portfolio.panel import Panel
from gpt_trader.portfolio.result import PortfolioResult
from gpt_trader.portfolio.weights import GONE_AFTER
from gpt_trader.quality import Status, Verdict

#: Symbols with findings that a result lists; their numbers are always whole.
_LISTED: Final = 50


def data_quality(verdicts: Sequence[Verdict], result: PortfolioResult, *, mark: bool) -> dict[str, Any]:
    """Return the verdicts on the bars, JSON-ready; with `mark`, which trades missing bars touch.

    `affected_trades` are places in the list of trades (from 0), as in a backtest.
    """
    series = [_series(verdict) for verdict in verdicts]
    statuses = {verdict.status for verdict in verdicts}
    known = [verdict.expected for verdict in verdicts if verdict.expected is not None]
    return {
        "status": next(s for s in get_args(Status)[::-1] if s in statuses or s == "ok"),
        "bars": sum(verdict.bars for verdict in verdicts),
        "expected_bars": sum(known) if known else None,
        "missing_bars": sum(each["missing_bars"] for each in series) if known else None,
        "gaps": sum(each["gaps"] for each in series),
        "affected_trades": _affected(verdicts, result) if mark else None,
        "series": [each for each in series if each["counts"]][:_LISTED],
    }


def _series(verdict: Verdict) -> dict[str, Any]:
    gaps = [finding for finding in verdict.findings if finding.rule == "gaps"]
    return {
        "symbol": verdict.symbol,
        "status": verdict.status,
        "calendar": verdict.calendar,
        "missing_bars": sum(gap.count for gap in gaps),
        "gaps": len(gaps),
        "counts": dict(verdict.counts()),
    }


def _affected(verdicts: Sequence[Verdict], result: PortfolioResult) -> list[int]:
    places: dict[str, list[int]] = {symbol: [] for symbol in result.symbols}
    for place, trade in enumerate(result.trades):
        places[trade.symbol].append(place)
    found = []
    for verdict in verdicts:
        mine = places[verdict.symbol]
        touched = affected(verdict, [result.trades[place] for place in mine], result.time)
        found += [mine[place] for place in touched]
    return sorted(found)


def warnings(quality: dict[str, Any], panel: Panel, result: PortfolioResult) -> tuple[str, ...]:
    """Return what a user must not overlook, a sentence each."""
    said = []
    if quality["gaps"]:
        touched = quality["affected_trades"]
        said.append(
            f"{quality['missing_bars']} of {quality['expected_bars']} expected bars are missing"
            + (
                f"; {len(touched)} of {len(result.trades)} trades were held across one"
                if touched is not None
                else ""
            )
            + f". Symbols: {_some([e['symbol'] for e in quality['series'] if e['gaps']])}; "
            "`gpt-trader data check` shows where"
        )
    others = [e["symbol"] for e in quality["series"] if e["counts"].keys() - {"gaps", "incomplete"}]
    if others:
        said.append(f"the bars of {_some(others)} have other findings: `gpt-trader data check` shows them")
    if len(panel.currencies) > 1:
        said.append(
            f"prices in {', '.join(panel.currencies)} are added up as they are: returns are each in its own currency, "
            "and changes of their exchange rates are left out"
        )
    gone = [h.symbol for h in result.holdings if result.time[-1] - h.last > GONE_AFTER]
    if gone:
        said.append(
            f"{_some(gone)} had no more bars at the end: what was held is valued at the last close, not sold"
        )
    if not result.trades:
        said.append("nothing was ever bought")
    return tuple(said)


def _some(symbols: Sequence[str]) -> str:
    shown = ", ".join(symbols[:5])
    return f"{shown} and {len(symbols) - 5} more" if len(symbols) > 5 else shown
