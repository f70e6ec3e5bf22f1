"""Live bars over ccxt.pro, connected again when the connection is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from gpt_trader.adapters.base import LiveBar
from gpt_trader.adapters.ccxt import faults
from gpt_trader.adapters.ccxt.bars import Row, raw_bars, whole_rows
from gpt_trader.adapters.ccxt.venue import Venue
from gpt_trader.adapters.patience import Passing
from gpt_trader.bars import instant
from gpt_trader.errors import SourceUnavailable
from gpt_trader.instruments import TIMEFRAMES

#: A connection that held for so long was a good one: what comes after it is a new failure, not one more.
_GOOD_SECONDS: Final = 60.0


async def live_bars(
    venue: Venue, markets: Mapping[str, str], timeframe: str
) -> AsyncGenerator[LiveBar, None]:
    """Yield each bar once a later one has begun, every market's in order; `markets` maps ccxt's symbols to ours.

    A bar that began before a connection was lost comes if the venue still builds it when it is made again.
    Raises what `Venue.ask` does.
    """
    newest: dict[str, np.datetime64] = {}
    clock = asyncio.get_running_loop().time
    failures = 0
    while True:
        began = clock()
        try:
            async with aclosing(_session(venue, markets, timeframe)) as session:
                async for bar in session:
                    if bar.bar.time[0] > newest.get(bar.symbol, np.datetime64(0, "us")):
                        newest[bar.symbol] = bar.bar.time[0]
                        failures = 0
                        yield bar
        except Passing as passing:
            failures = 1 if clock() - began > _GOOD_SECONDS else failures + 1
            wait = venue.patience.wait_before(failures, passing.retry_after)
            if failures >= venue.patience.attempts or wait > venue.patience.longest_wait:
                raise SourceUnavailable(
                    f"{venue.source}: stream of {', '.join(markets.values())[:80]}: {passing.reason} "
                    f"(tried {failures} times)"
                ) from None
        await asyncio.sleep(wait)


async def _session(venue: Venue, markets: Mapping[str, str], timeframe: str) -> AsyncGenerator[LiveBar, None]:
    """Yield completed bars until the connection is lost (Passing)."""
    import ccxt

    exchange = venue.streaming()
    # Some venues begin with bars of the past.
    since = instant(datetime.now(UTC)) - np.timedelta64(TIMEFRAMES[timeframe])
    forming: dict[str, Row] = {}
    connected: list[str] = []
    exchange.on_connected = lambda client, _=None: connected.append(client.url)
    watched: dict[asyncio.Task[Any], str] = {}
    try:
        for market in markets:
            watched[asyncio.ensure_future(exchange.watch_ohlcv(market, timeframe))] = market
        while True:
            done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            if len(set(connected)) < len(connected):
                # ccxt has made it again without a word: the bar that was forming lacks a part.
                raise Passing("connection lost")
            for task in done:
                market = watched.pop(task)
                for row in _completed(forming, market, task.result()):
                    raw = raw_bars([row], venue.source, markets[market], timeframe)
                    if raw.time[0] > since:
                        yield LiveBar(markets[market], timeframe, raw)
                watched[asyncio.ensure_future(exchange.watch_ohlcv(market, timeframe))] = market
    except (ccxt.BaseError, ConnectionError, *faults.UNREADABLE) as error:
        raise venue.meaning(error, f"stream of {timeframe} bars", None) from None
    finally:
        for task in watched:
            task.cancel()
        await asyncio.gather(*watched, return_exceptions=True)
        await exchange.close()


def _completed(forming: dict[str, Row], market: str, rows: list[Any]) -> list[Row]:
    """Return the bars that later ones have followed."""
    found = []
    for row in sorted((row for row in whole_rows(rows) if row[0] is not None), key=lambda row: row[0]):
        before = forming.get(market, row)
        if row[0] > before[0]:
            found.append(before)
        if row[0] >= before[0]:
            forming[market] = row
    return found
