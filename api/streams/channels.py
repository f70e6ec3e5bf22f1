"""The channels a client may name, what each is in the event log, and who may have it.

A channel of another owner does not exist for a client: it is answered as one that nobody knows.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final
from uuid import UUID

import orjson

from api import runs
from api.context import Context
from api.principals import Principal
from gpt_trader.errors import EngineUnreachable, NotFound, Problem, Refused, UnknownName
from gpt_trader.instruments import valid_symbol
from gpt_trader.runs import channel_of
from storage.events import Position
from storage.market_stream import SYSTEM_CHANNEL, channel_of_symbol, newest
from storage.session_stream import owner_part, portfolio_channel, trades_channel

MARKET: Final = "market.stream"
PORTFOLIO: Final = "portfolio.updates"
TRADES: Final = "trades.live"
CUSTOM: Final = "custom."
RUNS: Final = "runs."

#: What the error of an unknown name shows.
NAMES: Final = (MARKET, PORTFOLIO, TRADES, SYSTEM_CHANNEL, "runs.{id}", "custom.*")

#: Most bars of each series that a subscription's snapshot holds.
MOST_SNAPSHOT_BARS: Final = 200

#: Most that the snapshot of portfolios holds, half of what may wait for a client: the newest sessions come first.
MOST_SNAPSHOT_BYTES: Final = 512 * 1024

_CUSTOM_NAME: Final = re.compile(r"custom(\.[A-Za-z0-9_-]{1,40}){1,3}")

#: What stands at a subscription's beginning: the state, and the position it is at (None: take the stream's own).
Snapshot = Callable[[], Awaitable[tuple[Position | None, dict[str, Any]]]]


@dataclass(frozen=True)
class Stream:
    """One stream of publications that a client may have.

    Args:
        channel: Its name on the wire.
        log: Its channel in the event log.
        key: What tells the channel's streams apart (the symbol of `market.stream`).
        conflates: Whether the latest publication may stand for earlier ones where a client does not keep up.
        snapshot: Returns the state that publications go on from; None: it has none.
        attended: Makes what keeps the stream complete while somebody follows it; None: it needs nothing.
    """

    channel: str
    log: str
    key: str | None = None
    conflates: bool = False
    snapshot: Snapshot | None = None
    attended: Callable[[], AbstractAsyncContextManager[None]] | None = None


async def stream_of(context: Context, principal: Principal, name: str, given: Mapping[str, Any]) -> Stream:
    """Return the stream that a client means by a channel's name and the subscription's data.

    Raises:
        NotFound: nobody knows the channel, or it is another owner's.
        Refused: the data does not fit it.
        Denied: the principal may not read.
    """
    principal.must("read")
    if name == MARKET:
        return _market(context, given)
    if name.startswith(RUNS):
        return await _run(context, principal, name, given)
    _only(given, ())
    if name == PORTFOLIO:
        return _portfolio(context, principal.id)
    if name == TRADES:
        return Stream(name, trades_channel(principal.id), snapshot=_nothing)
    if name == SYSTEM_CHANNEL:
        return Stream(name, SYSTEM_CHANNEL)
    if name.startswith(CUSTOM):
        return custom(principal, name)
    unknown = UnknownName.among("channel", name, NAMES)
    raise NotFound(unknown.detail, problems=unknown.problems)


def custom(principal: Principal, name: str) -> Stream:
    """Return a `custom.*` stream: each owner has names of their own, so nobody meets another's.

    Raises Refused where the name is none.
    """
    if not _CUSTOM_NAME.fullmatch(name):
        allowed = "custom. and one to three words of letters, digits, _ or -, joined by dots"
        raise Refused.of(Problem("channel", name, "is not the name of a channel", allowed=allowed))
    return Stream(name, f"custom.{owner_part(principal.id)}.{name.removeprefix(CUSTOM)}")


def _portfolio(context: Context, owner: str) -> Stream:
    async def snapshot() -> tuple[Position | None, dict[str, Any]]:
        found = await asyncio.to_thread(context.sessions.views.standings, owner)
        kept = _within(MOST_SNAPSHOT_BYTES, found)
        return None, {"schema_version": 1, "sessions": kept, "omitted": len(found) - len(kept)}

    return Stream(PORTFOLIO, portfolio_channel(owner), snapshot=snapshot)


def _market(context: Context, given: Mapping[str, Any]) -> Stream:
    _only(given, ("symbol", "bars"))
    if "symbol" not in given:
        raise Refused.of(Problem("data.symbol", None, "is missing", allowed="an instrument id, e.g. AAPL"))
    try:
        symbol = valid_symbol(str(given["symbol"]))
    except ValueError as error:
        raise Refused.of(Problem("data.symbol", given["symbol"], str(error))) from None
    bars = given.get("bars", 1)
    if not isinstance(bars, int) or isinstance(bars, bool) or not 0 <= bars <= MOST_SNAPSHOT_BARS:
        raise Refused.of(
            Problem("data.bars", bars, "is no number of bars", allowed=f"0 to {MOST_SNAPSHOT_BARS}")
        )

    async def snapshot() -> tuple[Position | None, dict[str, Any]]:
        return None, await asyncio.to_thread(newest, context.lake, symbol, bars)

    return Stream(
        MARKET, channel_of_symbol(symbol), symbol, conflates=True, snapshot=snapshot if bars else None
    )


async def _run(context: Context, principal: Principal, name: str, given: Mapping[str, Any]) -> Stream:
    _only(given, ())
    try:
        run_id = UUID(name.removeprefix(RUNS))
    except ValueError:
        raise NotFound(f"no run {name.removeprefix(RUNS)[:80]!r}: runs are named by their whole id") from None
    await runs.must_see(context, run_id, principal)
    log = channel_of(run_id)

    async def snapshot() -> tuple[Position | None, dict[str, Any]]:
        with suppress(EngineUnreachable):  # Prefect is restarting: the log itself can be read
            await context.run_states.sync(run_id)
        return await context.reader.latest(log, ("state", "progress", "result"))

    return Stream(log, log, snapshot=snapshot, attended=lambda: context.run_states.watched(run_id))


def _within(size: int, standings: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the first standings that together are no longer than that as JSON."""
    ends = accumulate(len(orjson.dumps(each)) for each in standings)
    return [each for each, end in zip(standings, ends, strict=True) if end <= size]


async def _nothing() -> tuple[Position | None, dict[str, Any]]:
    return None, {}


def _only(given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for field in given:
        if field not in known:
            raise UnknownName.among(f"data.{field}", field, known)
