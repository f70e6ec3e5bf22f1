"""What a backtest has to say of the bars it ran on: what is missing, which trades that touches, what looks wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from gpt_trader.backtesting.result import Trade, iso
from gpt_trader.bars import Times
from gpt_trader.errors import Problem, Refused
from gpt_trader.quality import Verdict, gap_spans

#: Findings that a result lists; their numbers are always whole.
_LISTED: Final = 50


def data_quality(verdict: Verdict, trades: Sequence[Trade], time: Times, *, mark: bool) -> dict[str, Any]:
    """Return the verdict on the bars of a backtest, JSON-ready; with `mark`, which trades missing bars touch.

    `affected_trades` are places in the list of trades (from 0): trades held, or entered or left, across a stretch of
    which bars are missing. Their fills may have jumped over it.
    """
    gaps = [finding for finding in verdict.findings if finding.rule == "gaps"]
    return {
        "status": verdict.status,
        "calendar": verdict.calendar,
        "bars": verdict.bars,
        "expected_bars": verdict.expected,
        "missing_bars": sum(gap.count for gap in gaps) if verdict.expected is not None else None,
        "gaps": len(gaps),
        "affected_trades": affected(verdict, trades, time) if mark else None,
        "findings": [finding.document() for finding in verdict.findings[:_LISTED]],
        "counts": dict(verdict.counts()),
        "notes": list(verdict.notes),
    }


def affected(verdict: Verdict, trades: Sequence[Trade], time: Times) -> list[int]:
    """Return the places of the trades with missing bars between the bar that decided the entry and the exit.

    `time` (n,) are the bars that were traded: an entry is decided on the bar before the one that it is filled on.
    """
    starts, ends = gap_spans(verdict)
    if not len(starts):
        return []
    last = verdict.last if verdict.last is not None else ends[-1]
    entered = (
        np.searchsorted(time, [trade.entry_time for trade in trades]) if trades else np.empty(0, np.intp)
    )
    decided = time[np.maximum(entered - 1, 0)]
    return [
        number
        for number, trade in enumerate(trades)
        if (
            (starts < (trade.exit_time if trade.exit_time is not None else last)) & (ends > decided[number])
        ).any()
    ]


def refuse_gaps(verdict: Verdict) -> None:
    """Raise Refused that names the first stretch of missing bars, if there is one."""
    gaps = [finding for finding in verdict.findings if finding.rule == "gaps"]
    if gaps:
        missing = sum(gap.count for gap in gaps)
        raise Refused.of(
            Problem(
                "on_gaps",
                "refuse",
                f"{missing} bars are missing in {_places(len(gaps))}, the first from {iso(gaps[0].first)} to "
                f"{iso(gaps[0].last)}: {_fill(verdict)}",
                allowed="warn or mark, to run all the same",
            )
        )


def refuse_blocked(verdict: Verdict) -> None:
    """Raise Refused that names the first finding for which the quality policy blocks a series."""
    blocking = [finding for finding in verdict.findings if finding.severity == "block"]
    if blocking:
        first = blocking[0]
        raise Refused(
            f"{verdict.symbol} {verdict.timeframe}: the quality policy blocks {first.rule} ({first.detail}, "
            f"{iso(first.first)} to {iso(first.last)}); mend the bars, or change the setting quality.rules"
        )


def warnings(quality: dict[str, Any], verdict: Verdict, trades: Sequence[Trade]) -> tuple[str, ...]:
    """Return what a user must not overlook, a sentence each."""
    said = []
    if quality["gaps"]:
        touched = quality["affected_trades"]
        said.append(
            f"{quality['missing_bars']} of {quality['expected_bars']} expected bars are missing in "
            f"{_places(quality['gaps'])}"
            + (
                f"; {len(touched)} of {len(trades)} trades were held across one"
                if touched is not None
                else ""
            )
            + f". {_fill(verdict)}"
        )
    said.extend(
        f"{count} findings of rule {rule} in the bars: `gpt-trader data check --symbol {verdict.symbol}` shows them"
        for rule, count in quality["counts"].items()
        if rule not in ("gaps", "incomplete")
    )
    if not trades:
        said.append("the strategy never traded: its target was flat on every bar of the range")
    return tuple(said)


def _places(count: int) -> str:
    return "one place" if count == 1 else f"{count} places"


def _fill(verdict: Verdict) -> str:
    timeframe = "" if verdict.timeframe == "1d" else f" --timeframe {verdict.timeframe}"
    again = f"gpt-trader data ingest --symbol {verdict.symbol}{timeframe}"
    return f"Bring them in from their source ({again} --source NAME --refetch) or from a file ({again} --file PATH)"
