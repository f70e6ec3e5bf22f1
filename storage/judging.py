"""Verdicts on series of the lake: loads what is stored, a bounded number of bars at a time, and has it judged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Final

from gpt_trader.adapters.base import within
from gpt_trader.errors import NotEnoughBars
from gpt_trader.quality import Policy, Verdict
from gpt_trader.raw_bars import RawBars
from storage.lake import Lake, Version
from storage.quality import check
from storage.quality_tables import CheckedSeries

#: Bars that are judged together; at 56 bytes each this is what a check needs of memory, some times over.
BARS_AT_ONCE: Final = 1_000_000

#: A series: symbol and timeframe.
Key = tuple[str, str]


def verdicts(
    lake: Lake,
    keys: Iterable[Key],
    policy: Policy,
    *,
    snapshot: Version = None,
    start: date | None = None,
    end: date | None = None,
    revised: Mapping[Key, RawBars] | None = None,
    now: datetime | None = None,
) -> Iterator[Verdict]:
    """Yield a verdict on each series, in order, from `start` to `end` (days, inclusive).

    `revised` holds what some series were before they were fetched again. Errors as `Lake.raw_bars`; a series without
    a bar in the range has an empty verdict.
    """
    now = now or datetime.now(UTC)
    batch: list[CheckedSeries] = []
    bars = 0
    for key in keys:
        raw = _within(lake.raw_bars(*key, snapshot=snapshot), start, end)
        actions = lake.actions(key[0], snapshot=snapshot)
        instrument = lake.instrument(key[0], snapshot)
        found = CheckedSeries(instrument, key[1], raw, actions, (revised or {}).get(key))
        batch.append(found)
        bars += len(found.bars)
        if bars >= BARS_AT_ONCE:
            yield from check(batch, policy, now)
            batch, bars = [], 0
    if batch:
        yield from check(batch, policy, now)


def _within(raw: RawBars, start: date | None, end: date | None) -> RawBars:
    try:
        return within(raw, start, end, "")
    except NotEnoughBars:
        return RawBars.empty()
