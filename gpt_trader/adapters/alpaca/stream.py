"""Alpaca's stream of minute bars over a WebSocket, connected again when it is lost.

alpaca-py has a client for it that cannot be used: its loop ends only when told to, it logs the vendor's errors and a
refused key and tries again for ever, and it stands on the part of `websockets` that is going away.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gpt_trader.adapters.alpaca.assets import our_symbol, vendor_symbol
from gpt_trader.adapters.alpaca.bars import raw_bars
from gpt_trader.adapters.alpaca.client import Client, wait_asked
from gpt_trader.adapters.base import LiveBar
from gpt_trader.adapters.patience import Passing, Patience
from gpt_trader.errors import BadBars, Denied, Refused, SourceUnavailable

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection
    from websockets.http11 import Response

#: A connection that held for so long was a good one: what comes after it is a new failure, not one more.
_GOOD_SECONDS: Final = 60.0
#: How often the other side must show that it is alive; minutes without a bar are usual.
_PING_SECONDS: Final = 20.0
_LARGEST_FRAME: Final = 1 << 20

_DENIED: Final = frozenset({401, 402, 403, 405, 409})
_REFUSED: Final = frozenset({400, 410})
_TOO_MANY_CONNECTIONS: Final = 406


@dataclass(frozen=True)
class Link:
    """Where the stream is and how long to try; `timeout` (seconds) is that of each step of connecting."""

    client: Client
    path: str
    patience: Patience
    timeout: float


async def live_bars(
    link: Link, symbols: Sequence[str], known: Callable[[str], object]
) -> AsyncIterator[LiveBar]:
    """Yield each bar once, every symbol's in order of time; `known` raises UnknownName for a symbol that is none.

    Raises Denied, Refused, and SourceUnavailable when patience is at an end; bars and time reset it.
    """
    for symbol in symbols:
        await asyncio.to_thread(known, symbol)
    newest: dict[str, np.datetime64] = {}
    clock = asyncio.get_running_loop().time
    held = False
    failures = 0
    while True:
        began: float | None = None
        try:
            async with aclosing(_session(link, symbols, again=held)) as session:
                async for bar in session:
                    if bar is None:
                        held, began = True, clock()
                    elif _newer(bar, newest):
                        failures = 0
                        yield bar
        except Passing as passing:
            good = began is not None and clock() - began > _GOOD_SECONDS
            failures = 1 if good else failures + 1
            wait = link.patience.wait_before(failures, passing.retry_after)
            if failures >= link.patience.attempts or wait > link.patience.longest_wait:
                raise SourceUnavailable(
                    f"alpaca: stream of {', '.join(symbols)[:80]}: {passing.reason} (tried {failures} times)"
                ) from None
        await asyncio.sleep(wait)


def _newer(bar: LiveBar, newest: dict[str, np.datetime64]) -> bool:
    """Return whether the bar is not one that has been given already, or older; remember it."""
    label = bar.bar.time[0]
    if not label > newest.get(bar.symbol, np.datetime64(0, "us")):
        return False
    newest[bar.symbol] = label
    return True


async def _session(
    link: Link, symbols: Sequence[str], *, again: bool
) -> AsyncGenerator[LiveBar | None, None]:
    """Yield None once subscribed, then bars, until the connection is lost (Passing)."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidStatus, WebSocketException

    key, secret = link.client.keys()
    try:
        async with connect(
            link.client.stream_url + link.path,
            logger=_silent(),
            open_timeout=link.timeout,
            close_timeout=link.timeout,
            ping_interval=_PING_SECONDS,
            ping_timeout=_PING_SECONDS,
            max_size=_LARGEST_FRAME,
        ) as socket:
            steps: list[dict[str, Any]] = [
                {"action": "auth", "key": key, "secret": secret},
                {"action": "subscribe", "bars": [vendor_symbol(symbol) for symbol in symbols]},
            ]
            await _answered(link, socket, again=again)
            for step in steps:
                await socket.send(json.dumps(step))
                await _answered(link, socket, again=again)
            yield None
            async for frame in socket:
                for message in _messages(frame):
                    _no_error(link, message, again=True)
                    if message.get("T") == "b":
                        yield _live_bar(message)
    except InvalidStatus as error:
        raise _handshake(error.response) from None
    except (WebSocketException, OSError, EOFError) as error:
        raise Passing(f"connection lost ({type(error).__name__})") from None
    raise Passing("connection closed")


async def _answered(link: Link, socket: ClientConnection, *, again: bool) -> None:
    """Wait until the server has confirmed a step; raise what it says instead."""
    async with asyncio.timeout(link.timeout):  # its TimeoutError is an OSError
        frame = await socket.recv()
    for message in _messages(frame):
        _no_error(link, message, again=again)
        if message.get("T") not in ("success", "subscription"):
            raise Passing("an answer that is none of the protocol's")


def _messages(frame: str | bytes) -> list[dict[str, Any]]:
    try:
        messages = json.loads(frame)
    except ValueError:
        raise Passing("a frame that is no JSON") from None
    if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
        raise Passing("a frame that holds no messages")
    return messages


def _no_error(link: Link, message: dict[str, Any], *, again: bool) -> None:
    """Raise what an error of the vendor means; `again`: this stream had a connection before."""
    if message.get("T") != "error":
        return
    code = message.get("code")
    said = f"alpaca's stream: error {code} ({link.client.redacted(str(message.get('msg')))})"
    if code in _DENIED:
        raise Denied(f"{said}: check its key and secret, and whether your plan allows it")
    if code in _REFUSED:
        raise Refused(said)
    if code == _TOO_MANY_CONNECTIONS and not again:
        raise SourceUnavailable(f"{said}: another stream with this key is open; end it first")
    raise Passing(said)  # 406 among them: a connection just lost may count for some seconds


def _handshake(response: Response) -> Exception:
    status = response.status_code
    if status in (401, 403):
        return Denied(f"alpaca's stream answers HTTP {status}: check its key and secret")
    if status == 429 or status >= 500:
        return Passing(f"HTTP {status}", wait_asked(response.headers))
    return SourceUnavailable(f"alpaca's stream answers HTTP {status}: there is no such stream")


def _live_bar(message: dict[str, Any]) -> LiveBar:
    try:
        symbol = our_symbol(str(message.get("S")))
        return LiveBar(symbol, "1m", raw_bars([message], "1m", symbol))
    except (ValueError, BadBars):
        raise Passing("a bar that cannot be read") from None


def _silent() -> logging.Logger:
    """Return a logger that drops what `websockets` says when debugging: every frame, and so the secret."""
    logger = logging.getLogger("gpt_trader.adapters.alpaca.websocket")
    logger.setLevel(logging.WARNING)
    return logger
