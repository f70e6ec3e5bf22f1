"""Alpaca on loopback: assets, bars, corporate actions, newest prices and the stream of bars, with faults to order.

One URL stands for its data, trading and stream hosts. Answers have the shapes of Alpaca's published OpenAPI (2026)
and of its page on the WebSocket protocol; like the real one it makes weekly bars of what the question spans, cuts
pages where it likes, and knows a symbol's asset by CUSIP too.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

KEY, SECRET = "PKFAKE4KEY", "s3cretOfNobody/+x"
NEW_YORK = ZoneInfo("America/New_York")
Row = dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """What goes wrong with the next request whose path begins with `path`, and whose page token is given or not."""

    kind: Literal["status", "hang", "cut", "lost", "empty", "body"] = "status"
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    body: str = "<html>gateway</html>"
    path: str = "/"
    later_page: bool = False

    def hits(self, request: Request) -> bool:
        later = "page_token" in request.query_params
        return request.url.path.startswith(self.path) and later >= self.later_page


@dataclass(frozen=True)
class Session:
    """How one connection to the stream goes: a refusal at some step, or frames and then an end."""

    handshake: int = 0
    silent: bool = False
    auth_error: int = 0
    subscribe_error: int = 0
    frames: tuple[object, ...] = ()
    end: Literal["hold", "cut", "close"] = "hold"


class AlpacaServer:
    """What the account may see, the faults to come, and what was asked. Rows are as Alpaca writes them."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._over = threading.Event()
        self.reset()

    def reset(self) -> None:
        """Forget everything; requests that hang are let go."""
        self._over.set()
        self._over = threading.Event()
        self.assets: list[Row] = []
        self.bars: dict[tuple[str, str], list[Row]] = {}
        self.actions: dict[str, list[Row]] = {}
        self.latest: dict[str, dict[str, Row]] = {"quotes": {}, "trades": {}}
        self.page_size = 10_000
        self.repeats_pages = False
        self.same_token = 0
        self.spoil: Callable[[list[Row]], list[Any]] = list
        self.faults: deque[Fault] = deque()
        self.sessions: deque[Session] = deque()
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.heard: list[dict[str, Any]] = []
        self.said: list[Row] = []
        self.cuts = 0

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]

    def say(self, *messages: Row) -> None:
        """Stream messages to whoever holds a connection and has subscribed to their symbol; others never get them."""
        self.said += messages

    def cut(self) -> None:
        """Drop every connection that is held, without a word."""
        self.cuts += 1

    def serving(self) -> contextlib.AbstractContextManager[AlpacaServer]:
        return _serving(self)

    # --- HTTP

    async def http(self, request: Request) -> Response:
        self.asked.append((request.scope["raw_path"].decode(), dict(request.query_params)))
        fault = next((each for each in self.faults if each.hits(request)), None)
        if fault is not None:
            self.faults.remove(fault)
            return await self._fail(fault, request)
        headers = request.headers
        if (headers.get("apca-api-key-id"), headers.get("apca-api-secret-key")) != (KEY, SECRET):
            return _json({"message": "unauthorized."}, 401)
        return self._answer(request.url.path, request.query_params)

    def _answer(self, path: str, query: Any) -> Response:
        if path == "/v2/assets":
            return _json([each for each in self.assets if each.get("class") == query["asset_class"]])
        if path.startswith("/v2/assets/"):
            name = path.removeprefix("/v2/assets/")
            found = [each for each in self.assets if name in (each.get("symbol"), each.get("cusip"))]
            if not found:
                return _json({"code": 40410000, "message": f"asset not found for {name}"}, 404)
            return _json(found[0])
        if path in ("/v2/stocks/bars", "/v1beta3/crypto/us/bars"):
            return self._bars(query, stocks="stocks" in path)
        if path == "/v1/corporate-actions":
            return self._actions(query)
        if path.endswith("/latest") or "/latest/" in path:
            kind = "quotes" if "quotes" in path else "trades"
            symbol = query["symbols"]
            found_one = self.latest[kind].get(symbol)
            return _json({kind: {symbol: found_one} if found_one else {}})
        return _json({"message": "Not Found"}, 404)

    def _bars(self, query: Any, *, stocks: bool) -> Response:
        if stocks and (query.get("adjustment"), query.get("feed")) != ("raw", "iex"):
            return _json({"message": "subscription does not permit querying recent SIP data"}, 403)
        symbol, timeframe = query["symbols"], query["timeframe"]
        start, end = (datetime.fromisoformat(query[name]) for name in ("start", "end"))
        source = "1Day" if timeframe == "1Week" else timeframe
        rows = [row for row in self.bars.get((symbol, source), []) if start <= _time(row["t"]) <= end]
        rows = weekly(rows) if timeframe == "1Week" else rows
        rows = rows[::-1] if query.get("sort") == "desc" else rows
        page, token = self._page(rows, query)
        return _json({"bars": {symbol: self.spoil(page)} if page else {}, "next_page_token": token})

    def _actions(self, query: Any) -> Response:
        rows = [
            (f"{kind}s", row)
            for kind in query["types"].split(",")
            for row in self.actions.get(f"{kind}s", [])
            if row["symbol"] == query["symbols"] and query["start"] <= row["process_date"] <= query["end"]
        ]
        page, token = self._page(rows, query)
        content: dict[str, list[Row]] = {}
        for kind, row in page:
            content.setdefault(kind, []).append(row)
        return _json({"corporate_actions": content, "next_page_token": token})

    def _page(self, rows: list[Any], query: Any) -> tuple[list[Any], str | None]:
        """Return the page that the token names, and the next token; a repeated page has a token of its own."""
        given = base64.b64decode(query.get("page_token", "")).decode() or "0|0"
        at, turn = (int(part) for part in given.split("|"))
        size = min(int(query.get("limit", 1000)), self.page_size)
        again = self.repeats_pages and not turn
        following = (at, 1) if again else (at + size, 0)
        if self.same_token and "page_token" in query:
            self.same_token -= 1
            return rows[at : at + size], query["page_token"]
        more = again or at + size < len(rows)
        token = base64.b64encode("{}|{}".format(*following).encode()).decode()
        return rows[at : at + size], token if more else None

    async def _fail(self, fault: Fault, request: Request) -> Response:
        if fault.kind == "hang":
            await asyncio.to_thread(self._over.wait)
        if fault.kind in ("hang", "status"):
            return Response(fault.body, fault.status, fault.headers)
        if fault.kind == "empty":
            return Response("")
        if fault.kind == "body":
            return Response(fault.body)
        whole = self._answer(request.url.path, request.query_params).body
        half = bytes(whole[: len(whole) // 2])
        if fault.kind == "cut":
            return Response(half)

        async def pieces() -> Any:
            yield half

        return StreamingResponse(pieces(), headers={"Content-Length": str(len(whole))})

    # --- stream

    async def stream(self, websocket: WebSocket) -> None:
        session = self.sessions.popleft() if self.sessions else Session()
        if session.handshake:
            await websocket.send_denial_response(Response("", session.handshake))
            return
        await websocket.accept()
        if session.silent:
            await websocket.receive()
            return
        with contextlib.suppress(WebSocketDisconnect):
            await _send(websocket, [{"T": "success", "msg": "connected"}])
            await self._talk(websocket, session)
        if session.end == "close":
            await websocket.close(1012)

    async def _talk(self, websocket: WebSocket, session: Session) -> None:
        auth = await websocket.receive_json()
        right = (auth.get("key"), auth.get("secret")) == (KEY, SECRET)
        wrong = session.auth_error or (0 if right else 402)
        if wrong:
            await _refuse(websocket, wrong)
            return
        await _send(websocket, [{"T": "success", "msg": "authenticated"}])
        request = await websocket.receive_json()
        said = len(self.said)
        self.heard.append(request)
        if session.subscribe_error:
            await _refuse(websocket, session.subscribe_error)
            return
        bars = self.heard[-1].get("bars", [])
        await _send(websocket, [{"T": "subscription", "trades": [], "quotes": [], "bars": bars}])
        for frame in session.frames:
            await _send(websocket, frame)
        if session.end == "hold":
            await self._hold(websocket, bars, said)

    async def _hold(self, websocket: WebSocket, symbols: list[str], heard: int) -> None:
        """Pass on what is said behind the first so many, until either side ends the connection."""
        cuts = self.cuts
        gone = asyncio.ensure_future(websocket.receive())
        try:
            while not gone.done() and cuts == self.cuts:
                news = [message for message in self.said[heard:] if message["S"] in symbols]
                heard = len(self.said)
                if news:
                    await _send(websocket, news)
                await asyncio.wait({gone}, timeout=0.01)
        finally:
            gone.cancel()


def _json(content: object, status: int = 200) -> Response:
    return Response(json.dumps(content), status, media_type="application/json")


async def _send(websocket: WebSocket, frame: object) -> None:
    await websocket.send_text(frame if isinstance(frame, str) else json.dumps(frame))


async def _refuse(websocket: WebSocket, code: int) -> None:
    """Say an error, repeating the secret as a careless server might; the connection stays open, as the real one's."""
    await _send(websocket, [{"T": "error", "code": code, "msg": f"refused {SECRET}"}])
    await websocket.receive()


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


@contextlib.contextmanager
def _serving(fake: AlpacaServer) -> Iterator[AlpacaServer]:
    paths = ("/v2/iex", "/v1beta3/crypto/us")
    routes = [WebSocketRoute(path, fake.stream) for path in paths]
    app = Starlette(routes=[*routes, Route("/{path:path}", fake.http)])
    config = uvicorn.Config(
        app, ws="websockets-sansio", lifespan="off", log_level="critical", access_log=False
    )
    server = uvicorn.Server(config)
    # It listens already: whoever connects before the thread is up waits in the backlog.
    thread = threading.Thread(target=server.run, kwargs={"sockets": [fake._listener]})
    thread.start()
    try:
        yield fake
    finally:
        fake._over.set()
        server.should_exit = server.force_exit = True
        thread.join(timeout=30)


# --- rows to serve


def asset(symbol: str, exchange: str = "NASDAQ", **facts: object) -> Row:
    """Return an asset as `/v2/assets` has it; crypto by the slash in its symbol."""
    pair = {"class": "crypto", "min_trade_increment": "0.000000001", "price_increment": "0.5"}
    kind = pair if "/" in symbol else {"class": "us_equity"}
    common = {"id": f"id-{symbol}", "exchange": exchange, "symbol": symbol, "name": f"{symbol} Inc."}
    flags = {"status": "active", "tradable": True, "shortable": True, "fractionable": True}
    return {**common, **flags, **kind, **facts}


def row(time: datetime, price: float, volume: float = 1000) -> Row:
    """Return a bar as the data API has it; its close is `price`."""
    at = time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    span = {"o": price - 0.25, "h": price + 0.5, "l": price - 0.5, "c": price}
    return {"t": at, **span, "v": volume, "n": 7, "vw": price}


def daily(first: date, count: int, *, zone: Any = NEW_YORK, weekends: bool = False) -> list[Row]:
    """Return `count` daily bars from `first` on, labeled at midnight in `zone`."""
    days = (first + timedelta(days=n) for n in range(count * 2))
    open_days = [day for day in days if weekends or day.weekday() < 5][:count]
    return [row(datetime(d.year, d.month, d.day, tzinfo=zone), 100 + n % 17) for n, d in enumerate(open_days)]


def minutes(first: datetime, count: int) -> list[Row]:
    """Return `count` minute bars from `first` on."""
    return [row(first + timedelta(minutes=n), 50 + n % 13 / 8) for n in range(count)]


def weekly(rows: list[Row]) -> list[Row]:
    """Return the weeks that daily rows make, labeled at their Monday's midnight in New York."""
    weeks: dict[datetime, list[Row]] = {}
    for each in rows:
        local = _time(each["t"]).astimezone(NEW_YORK)
        monday = (local - timedelta(days=local.weekday())).replace(hour=0, minute=0)
        weeks.setdefault(monday, []).append(each)
    return [
        {
            **week[-1],
            "t": monday.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "o": week[0]["o"],
            "h": max(each["h"] for each in week),
            "l": min(each["l"] for each in week),
            "v": sum(each["v"] for each in week),
        }
        for monday, week in weeks.items()
    ]
