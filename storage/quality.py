"""The check of stored bars: SQL over many series at once, and a verdict for each.

What the rules mean and how grave they are is in `gpt_trader.quality`; the queries are in `storage.quality_rules`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

import duckdb
import numpy as np

from gpt_trader.bar_labels import Placement
from gpt_trader.bars import Times
from gpt_trader.errors import Problem, Refused
from gpt_trader.quality import RULES, Finding, Policy, RuleName, Verdict
from storage import quality_rules as rules
from storage.quality_tables import CheckedSeries, Grids, Prepared, connected, prepared, times

__all__ = ["CheckedSeries", "check"]

#: Bars that are checked together: bounds the memory.
_TOGETHER: Final = 2_000_000
_HOUR: Final = np.timedelta64(1, "h")


def check(series: Sequence[CheckedSeries], policy: Policy, now: datetime) -> list[Verdict]:
    """Return a verdict for each series, in order. `now` has a zone: bars that end after it are incomplete.

    Raises Refused for a `now` without a zone.
    """
    if now.tzinfo is None:
        raise Refused.of(Problem("now", now, "is a time without a zone"))
    return [verdict for some in _portions(series) for verdict in _checked(some, policy, now)]


def _portions(series: Sequence[CheckedSeries]) -> Iterator[list[CheckedSeries]]:
    some: list[CheckedSeries] = []
    for one in series:
        if some and sum(len(s.bars) for s in [*some, one]) > _TOGETHER:
            yield some
            some = []
        some.append(one)
    if some:
        yield some


def _checked(series: Sequence[CheckedSeries], policy: Policy, now: datetime) -> Iterator[Verdict]:
    grids = Grids(series)
    every = [prepared(one, grids, now) for one in series]
    findings: list[list[Finding]] = [[] for _ in every]
    remarks: list[list[str]] = [list(p.remarks) for p in every]
    with connected(every, policy) as connection:
        for found in (_named(connection, every, policy), _gaps(connection, every, policy, remarks)):
            for place, finding in found:
                findings[place].append(finding)
    for place, one in enumerate(every):
        findings[place].extend(_clocks(one, policy))
        yield _verdict(one, findings[place], remarks[place])


def _named(
    connection: duckdb.DuckDBPyConnection, every: Sequence[Prepared], policy: Policy
) -> Iterator[tuple[int, Finding]]:
    """Yield the findings of the rules that name bars, with the place of their series."""
    for table in (rules.STEPS, rules.SCALES, rules.STALE, rules.MOVES, rules.SPLITS):
        connection.execute(table)
    for rule, query in rules.RULES.items():
        if policy.severity(rule) == "off":
            continue
        for place, first, last, bars, detail, _ in _rows(connection, query):
            yield place, _finding(rule, every[place], policy, times([first, last]), bars=bars, detail=detail)


def _gaps(
    connection: duckdb.DuckDBPyConnection,
    every: Sequence[Prepared],
    policy: Policy,
    remarks: list[list[str]],
) -> Iterator[tuple[int, Finding]]:
    """Yield the gaps, labelled as the series labels its bars; what is thin trading becomes a remark."""
    if policy.severity("gaps") == "off":
        return
    thin: dict[int, list[int]] = {}
    for place, first, last, bars, is_thin in _rows(connection, rules.GAPS):
        placement = every[place].placement
        if placement is None:
            continue
        if is_thin:
            thin.setdefault(place, []).append(bars)
            continue
        edges = placement.as_stored(times([first, last]))
        yield place, _finding("gaps", every[place], policy, edges, bars=bars, detail=_missing(bars))
    for place, lengths in thin.items():
        remarks[place].append(
            f"{sum(lengths)} bars are missing in {len(lengths)} short gaps (the longest of {max(lengths)}): "
            "what a thinly traded market leaves, no finding."
        )


def _clocks(one: Prepared, policy: Policy) -> Iterator[Finding]:
    """Yield what is found of the series' labels as a whole: their clock, and whether they are closes."""
    placement, time = one.placement, one.series.bars.time
    if placement is None:
        return
    whole = time[[0, -1]]
    if placement.shifted and policy.severity("timezone") != "off":
        yield _finding("timezone", one, policy, whole, bars=len(time), detail=_clock(placement))
    if placement.closed and policy.severity("label") != "off":
        detail = "bars are labelled by their close, not by their open time"
        yield _finding("label", one, policy, whole, bars=len(time), detail=detail)


def _clock(placement: Placement) -> str:
    hours = sorted({float(shift / _HOUR) for shift in placement.shifts}, key=abs)
    behind = "behind" if hours[-1] > 0 else "ahead of"
    said = " or ".join(f"{abs(hour):g}" for hour in hours)
    return f"times are {said} hours {behind} UTC" + (
        ", by the season: the clock of the exchange, or one that does not follow it" if len(hours) > 1 else ""
    )


def _finding(
    rule: RuleName, one: Prepared, policy: Policy, edges: Times, *, bars: int, detail: str
) -> Finding:
    severity = policy.severity(rule)
    return Finding(rule, severity, one.series.symbol, one.series.timeframe, edges[0], edges[1], bars, detail)


def _verdict(one: Prepared, findings: Sequence[Finding], remarks: Sequence[str]) -> Verdict:
    series, time = one.series, one.series.bars.time
    order = list(RULES)
    return Verdict(
        series.symbol,
        series.timeframe,
        len(time),
        None if one.placement is None else _expected(one.placement),
        time[0] if len(time) else None,
        time[-1] if len(time) else None,
        tuple(sorted(findings, key=lambda f: (order.index(f.rule), f.first))),
        tuple(remarks),
        None if one.placement is None else series.instrument.calendar,
    )


def _expected(placement: Placement) -> int:
    """Return how many bars the calendar expects from the first to the last one."""
    labels, label = placement.grid.labels, placement.label
    return int(np.count_nonzero((labels >= label.min()) & (labels <= label.max())))


def _missing(bars: int) -> str:
    return "1 expected bar is missing" if bars == 1 else f"{bars} expected bars are missing"


def _rows(connection: duckdb.DuckDBPyConnection, query: str) -> list[tuple[Any, ...]]:
    return connection.execute(query).fetchall()
