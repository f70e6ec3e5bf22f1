"""Yahoo's chart endpoint on loopback, with faults to order.

Answers have the shapes of recorded ones (the fixtures of gadicc/node-yahoo-finance2, February 2025) and the errors that
users of yfinance report. Like the real one it keeps intraday bars for a while only, restates prices, volumes and
dividends for every later split, and stores prices in single precision.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

#: Seconds since 1970, open, high, low, close, volume: as printed. What is null is None.
Row = tuple[Any, ...]

#: What one question may span, and how far back bars are kept, in days.
_SPANS = {"1m": 8, "5m": 60, "15m": 60, "1h": 730, "1d": 36525}
_KEPT = {"1m": 30, "5m": 60, "15m": 60, "1h": 730}


@dataclass(frozen=True)
class Fault:
    """What goes wrong with the next request; `body` may also be a chart's error, with its status."""

    kind: Literal["status", "hang", "cut", "lost"] = "status"
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    body: str = "<html>Will be right back</html>"


@dataclass
class Listing:
    """One symbol: its metadata, rows as printed by interval, and actions as they were."""

    meta: dict[str, Any]
    rows: dict[str, list[Row]] = field(default_factory=dict)
    splits: dict[date, tuple[float, float]] = field(default_factory=dict)
    dividends: dict[date, float] = field(default_factory=dict)
    dividend_currency: str = ""

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.meta["exchangeTimezoneName"])

    def later_splits(self, day: date) -> float:
        """Return what all splits after `day` have made of one share."""
        return math.prod(new / old for on, (new, old) in self.splits.items() if on > day)

    def day(self, seconds: float) -> date:
        return datetime.fromtimestamp(seconds, self.zone).date()


class YahooServer:
    """What Yahoo charts, what its clock shows, the faults to come, and what was asked."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._over = threading.Event()
        self.reset()

    def reset(self) -> None:
        """Forget everything; requests that hang are let go."""
        self._over.set()
        self._over = threading.Event()
        self.now = datetime(2026, 11, 20, 18, 0, tzinfo=UTC)
        self.listings: dict[str, Listing] = {}
        self.spoil: Callable[[list[Row]], list[Row]] = list
        self.faults: deque[Fault] = deque()
        self.asked: list[tuple[str, dict[str, str]]] = []

    def intervals(self) -> list[str]:
        return [query["interval"] for _, query in self.asked]

    def serving(self) -> contextlib.AbstractContextManager[YahooServer]:
        return _serving(self)

    async def http(self, request: Request) -> Response:
        self.asked.append((request.url.path, dict(request.query_params)))
        if self.faults:
            return await self._fail(self.faults.popleft(), request)
        return self._answer(request)

    def _answer(self, request: Request) -> Response:
        prefix, _, symbol = request.url.path.rpartition("/")
        listing = self.listings.get(symbol)
        if prefix != "/v8/finance/chart":
            return Response("<html>Not found on this server</html>", 404)
        if listing is None:
            return error(404, "Not Found", "No data found, symbol may be delisted")
        return self._chart(listing, request.query_params)

    def _chart(self, listing: Listing, query: Any) -> Response:
        interval = query["interval"]
        if "range" in query:
            begin, end = self.now.timestamp() - 86400, self.now.timestamp()
        else:
            begin, end = float(query["period1"]), float(query["period2"])
        what = f"{interval} data not available for startTime={begin:.0f} and endTime={end:.0f}."
        if (end - begin) / 86400 > _SPANS[interval]:
            most = f"Only {_SPANS[interval]} days worth of {interval} granularity data are allowed"
            return error(422, "Unprocessable Entity", f"{what} {most} to be fetched per request.")
        if interval in _KEPT and begin < self.now.timestamp() - _KEPT[interval] * 86400:
            kept = f"The requested range must be within the last {_KEPT[interval]} days."
            return error(422, "Unprocessable Entity", f"{what} {kept}")
        first = listing.meta.get("firstTradeDate")
        if first is not None and end < first:
            says = f"Data doesn't exist for startDate = {begin:.0f}, endDate = {end:.0f}"
            return error(400, "Bad Request", says)
        rows = [row for row in listing.rows.get(interval, []) if row[0] is None or begin <= row[0] < end]
        return _json(self._content(listing, interval, self.spoil(rows), begin, end))

    def _content(
        self, listing: Listing, interval: str, rows: list[Row], begin: float, end: float
    ) -> dict[str, Any]:
        columns = list(zip(*(_restated(row, listing) for row in rows), strict=True))
        quote = dict(zip(("open", "high", "low", "close", "volume"), columns[1:], strict=False))
        result: dict[str, Any] = {
            "meta": {**listing.meta, "dataGranularity": interval, "range": ""},
            "indicators": {"quote": [quote]},
        }
        if columns:
            result["timestamp"] = columns[0]
        events = _events(listing, begin, end)
        if events:
            result["events"] = events
        if interval == "1d" and columns:
            result["indicators"]["adjclose"] = [{"adjclose": adjusted_closes(listing, rows)}]
        return {"chart": {"result": [result], "error": None}}

    async def _fail(self, fault: Fault, request: Request) -> Response:
        if fault.kind == "hang":
            await asyncio.to_thread(self._over.wait)
        if fault.kind in ("hang", "status"):
            return Response(fault.body, fault.status, fault.headers)
        whole = bytes(self._answer(request).body)
        half = whole[: len(whole) // 2]
        if fault.kind == "cut":
            return Response(half)

        async def pieces() -> Any:
            yield half

        return StreamingResponse(pieces(), headers={"Content-Length": str(len(whole))})


def error(status: int, code: str, description: str) -> Response:
    """Return a chart's error as Yahoo writes it."""
    return Response(error_body(code, description), status, media_type="application/json")


def error_body(code: str, description: str) -> str:
    return json.dumps({"chart": {"result": None, "error": {"code": code, "description": description}}})


def single(value: float) -> float:
    """Return the number as single precision holds it."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def adjusted_closes(listing: Listing, rows: list[Row]) -> list[float | None]:
    """Return closes adjusted for splits and dividends as Yahoo documents it: by 1 − dividend / the close before."""
    factor, later_day = 1.0, date.max
    result: list[float | None] = []
    for row in reversed(rows):
        if row[0] is None:
            result.append(None)
            continue
        day, close = listing.day(row[0]), row[4]
        if close is not None:
            for on, paid in listing.dividends.items():
                if day < on <= later_day:
                    factor *= 1 - paid / close
            later_day = day
        restated = None if close is None else single(close / listing.later_splits(day) * factor)
        result.append(restated)
    return result[::-1]


def _restated(row: Row, listing: Listing) -> Row:
    if row[0] is None:
        return row
    by = listing.later_splits(listing.day(row[0]))
    prices = (None if price is None else single(price / by) for price in row[1:5])
    return (row[0], *prices, None if row[5] is None else round(row[5] * by))


def _events(listing: Listing, begin: float, end: float) -> dict[str, Any]:
    """Return what happened in a span, by the time of the session's open; dividends in the terms of today's shares."""
    found: dict[str, Any] = {}
    for day, (new, old) in listing.splits.items():
        at = _open(listing, day)
        if begin <= at < end:
            event = {"date": at, "numerator": new, "denominator": old, "splitRatio": f"{new:g}:{old:g}"}
            found.setdefault("splits", {})[str(at)] = event
    for day, paid in listing.dividends.items():
        at = _open(listing, day)
        if begin <= at < end:
            # What is paid on the day of a split is cash for an old share: that split counts too.
            amount = round(paid / listing.later_splits(day - timedelta(days=1)), 6)
            event = {"amount": amount, "date": at}
            named = {"currency": listing.dividend_currency} if listing.dividend_currency else {}
            found.setdefault("dividends", {})[str(at)] = event | named
    return found


def _open(listing: Listing, day: date) -> int:
    return int(datetime.combine(day, time(9, 30), tzinfo=listing.zone).timestamp())


def _json(content: object) -> Response:
    return Response(json.dumps(content), media_type="application/json;charset=utf-8")


@contextlib.contextmanager
def _serving(fake: YahooServer) -> Iterator[YahooServer]:
    app = Starlette(routes=[Route("/{path:path}", fake.http)])
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="critical", access_log=False))
    # It listens already: whoever connects before the thread is up waits in the backlog.
    thread = threading.Thread(target=server.run, kwargs={"sockets": [fake._listener]})
    thread.start()
    try:
        yield fake
    finally:
        fake._over.set()
        server.should_exit = server.force_exit = True
        thread.join(timeout=30)


# --- listings to serve


def meta(symbol: str, **facts: object) -> dict[str, Any]:
    """Return the metadata of a chart; of a share at Nasdaq, but for the facts given."""
    return {
        "currency": "USD",
        "symbol": symbol,
        "exchangeName": "NMS",
        "fullExchangeName": "NasdaqGS",
        "instrumentType": "EQUITY",
        "firstTradeDate": 345479400,
        "regularMarketTime": 1795197600,
        "gmtoffset": -18000,
        "timezone": "EST",
        "exchangeTimezoneName": "America/New_York",
        "regularMarketPrice": 244.87,
        "longName": f"{symbol} Inc.",
        "shortName": f"{symbol}",
        "priceHint": 2,
        **facts,
    }


def row(at: datetime, price: float, volume: float = 1000) -> Row:
    """Return a bar whose close is `price`."""
    prices = (round(price + step, 4) for step in (-0.25, 0.5, -0.5, 0))
    return (int(at.timestamp()), *prices, volume)


def daily(days: list[date], zone: str = "America/New_York", opens: time = time(9, 30)) -> list[Row]:
    """Return a bar for each day, labeled by its open; prices have two decimals."""
    at = (datetime.combine(day, opens, tzinfo=ZoneInfo(zone)) for day in days)
    return [row(moment, 100 + (n * 37 % 1009) / 100, 3000 + 30 * n) for n, moment in enumerate(at)]


def every(step: timedelta, first: datetime, count: int) -> list[Row]:
    """Return `count` bars from `first` on."""
    return [row(first + n * step, 50 + n % 13 / 8) for n in range(count)]
