"""Venues on loopback as ccxt's classes binance and kraken ask them, with faults to order.

The first part of a path is the host that it stands for (`/api.binance.com/api/v3/klines`). Answers have the shapes of
the venues' own documentation, as quoted in ccxt's sources. Their habits differ, and that is the point: Binance's spot
market gives the next bars since a time, its coin-margined one those of a span, Kraken the newest 720 whatever is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

KEY, SECRET = "k3yOfNobody", "s3cretOfNobody"
SPOT, LINEAR, INVERSE = "api.binance.com", "fapi.binance.com", "dapi.binance.com"
KRAKEN = "api.kraken.com"
KRAKEN_NEWEST = 720

#: Milliseconds since 1970, open, high, low, close, volume.
Row = list[Any]

STEPS = {"1m": 60, "5m": 300, "15m": 900, "1h": 3600, "4h": 14400, "1d": 86400, "1w": 604800}
_MONDAY = 4 * 86400


@dataclass(frozen=True)
class Fault:
    """What goes wrong with the next request whose path holds `path`."""

    kind: Literal["status", "hang", "cut", "lost", "body"] = "status"
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    body: str = "<html>gateway</html>"
    path: str = "/"


@dataclass(frozen=True)
class Session:
    """How one connection to Binance's stream goes: frames after the subscription, the last one again and again.

    "close": it is closed as soon as the server's `closing` is set.
    """

    handshake: int = 0
    frames: tuple[dict[str, Any], ...] = ()
    end: Literal["hold", "close"] = "hold"


class CcxtServer:
    """The bars there are by (host, market's id, timeframe), oldest first, the faults to come, and what was asked."""

    def __init__(self) -> None:
        self.bars: dict[tuple[str, str, str], list[Row]] = {}
        self.spoil: Callable[[list[Row]], list[Any]] = list
        #: The most rows of an answer (or of its span), whatever was asked for; and how many bars ago a start may be.
        self.most = 1000
        self.points = 1_000_000_000
        self.faults: deque[Fault] = deque()
        self.sessions: deque[Session] = deque()
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.heard: list[dict[str, Any]] = []
        self.closing = threading.Event()
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def trade(
        self, host: str, market: str, minutes_from: datetime, until: datetime, *timeframes: str
    ) -> None:
        """Have a market trade all the time from one moment to another; its bars close at 100 and more."""
        for timeframe in timeframes:
            step = STEPS[timeframe]
            shift = _MONDAY if timeframe == "1w" and host != KRAKEN else 0
            first = (int(minutes_from.timestamp()) - shift) // step * step + shift
            stop = int(until.timestamp())
            self.bars[host, market, timeframe] = [
                row(second * 1000, 100 + second // step % 17) for second in range(first, stop, step)
            ]

    def asked_for(self, part: str) -> list[dict[str, str]]:
        return [params for path, params in self.asked if part in path]

    async def http(self, request: Request) -> Response:
        host, _, path = request.url.path.strip("/").partition("/")
        params = dict(request.query_params)
        self.asked.append((f"{host}/{path}", params))
        fault = next((each for each in self.faults if each.path in request.url.path), None)
        if fault is not None:
            self.faults.remove(fault)
            if fault.kind == "hang":
                while not self._over.is_set():  # noqa: ASYNC110 - another thread sets it
                    await asyncio.sleep(0.01)
            if fault.kind in ("status", "hang"):
                return Response(fault.body, fault.status, fault.headers)
            if fault.kind == "body":
                return Response(fault.body, media_type="application/json")
        whole = self._answer(host, path, params)
        if fault is not None:
            return _cut(whole, lost=fault.kind == "lost")
        return whole

    def _answer(self, host: str, path: str, params: dict[str, str]) -> Response:
        kind = path.rpartition("/")[2]
        if host == KRAKEN:
            return self._kraken(kind, params)
        if kind == "exchangeInfo":
            return _json({"timezone": "UTC", "symbols": [s for h, s in MARKETS if h == host]})
        if kind == "klines":
            return self._klines(host, params)
        if kind == "24hr":
            return self._ticker(host, params["symbol"])
        # The only signed endpoint that load_markets asks: the key is a wrong one.
        return _json({"code": -2014, "msg": f"API-key format invalid. {SECRET}"}, 401)

    def _klines(self, host: str, params: dict[str, str]) -> Response:
        rows = self.bars.get((host, params["symbol"], params["interval"]), [])
        limit = min(int(params["limit"]), self.most)
        upto = int(params.get("endTime", 1 << 62))
        if "startTime" not in params:
            return _json([_kline(each) for each in self.spoil(rows[-limit:])])
        since = int(params["startTime"])
        if since < 1000 * (datetime.now(UTC).timestamp() - self.points * STEPS[params["interval"]]):
            return _json({"code": -1100, "msg": "Candlestick too long ago."}, 400)
        if host == INVERSE:
            upto = min(upto, since + 1000 * limit * STEPS[params["interval"]] - 1)
        found = [each for each in rows if since <= each[0] <= upto][:limit]
        return _json([_kline(each) for each in self.spoil(found)])

    def _ticker(self, host: str, symbol: str) -> Response:
        ticker = {
            "symbol": symbol,
            "lastPrice": "101.5",
            "weightedAvgPrice": "100.1",
            "openPrice": "99",
            "highPrice": "102",
            "lowPrice": "98",
            "volume": "1234.5",
            "quoteVolume": "123450",
            "openTime": 1735689600000,
            "closeTime": 1735776000123,
        }
        book = {"bidPrice": "101.4", "bidQty": "2.5", "askPrice": "101.6", "askQty": "0.5"}
        return _json(ticker | book if host == SPOT else ticker)

    def _kraken(self, kind: str, params: dict[str, str]) -> Response:
        if kind == "Assets":
            return _kraken_json({"XXBT": _asset("XBT", 10), "ZUSD": _asset("USD", 4)})
        if kind == "AssetPairs":
            return _kraken_json({"XXBTZUSD": KRAKEN_PAIR})
        if kind == "Ticker":
            sides = {"a": ["101.6", "1", "0.5"], "b": ["101.4", "2", "2.5"], "c": ["101.5", "0.1"]}
            day = {"v": ["1", "2"], "p": ["100", "100"], "l": ["98", "98"], "h": ["102", "102"], "o": "99"}
            return _kraken_json({"XXBTZUSD": sides | day | {"t": [1, 2]}})
        timeframe = next(name for name, step in STEPS.items() if step == 60 * int(params["interval"]))
        newest = self.bars.get((KRAKEN, params["pair"], timeframe), [])[-KRAKEN_NEWEST:]
        rows = [each for each in newest if each[0] > 1000 * int(params.get("since", 0))]
        said = [[t // 1000, *map(_text, prices), "0", _text(v), 3] for t, *prices, v in self.spoil(rows)]
        return _kraken_json({params["pair"]: said, "last": 0})

    async def stream(self, websocket: WebSocket) -> None:
        session = self.sessions.popleft() if self.sessions else Session()
        if session.handshake:
            await websocket.send_denial_response(Response("", session.handshake))
            return
        await websocket.accept()
        with contextlib.suppress(WebSocketDisconnect):
            self.heard.append(await websocket.receive_json())
            await websocket.send_text(json.dumps({"result": None, "id": self.heard[-1]["id"]}))
            for frame in session.frames:
                await websocket.send_text(json.dumps(frame))
            while session.end == "hold" or not self.closing.is_set():
                await asyncio.sleep(0.02)
                await websocket.send_text(json.dumps(session.frames[-1]))
            await websocket.close(1012)


def row(at: int, close: float, volume: float = 5.0) -> Row:
    """Return a bar that begins at `at` (ms)."""
    return [at, close - 0.25, close + 0.5, close - 0.5, close, volume]


def frame(market: str, timeframe: str, bar: Row) -> dict[str, Any]:
    """Return what Binance's stream says of a bar, forming or over."""
    t, o, h, low, c, v = bar
    kline = {"t": t, "T": t + 1000 * STEPS[timeframe] - 1, "s": market, "i": timeframe, "x": False, "n": 3}
    prices = {"o": _text(o), "h": _text(h), "l": _text(low), "c": _text(c), "v": _text(v), "q": "0"}
    return {"e": "kline", "E": t, "s": market, "k": kline | prices}


def _kline(bar: Any) -> Any:
    if bar is None:
        return None
    t, *prices, v = bar
    return [t, *map(_text, prices), _text(v), (t or 0) + 59999, _text(v), 3, "1", "1", "0"]


def _text(value: object) -> str | None:
    """Return a number as these venues write it."""
    return None if value is None else str(value)


def _cut(whole: Response, *, lost: bool) -> Response:
    """Return an answer of which the second half is missing: with a right length, or with the connection lost."""
    half = bytes(whole.body)[: len(whole.body) // 2]
    if not lost:
        return Response(half, media_type="application/json")

    async def parts() -> Any:
        yield half

    length = {"Content-Length": str(len(whole.body))}
    return StreamingResponse(parts(), headers=length, media_type="application/json")


def _json(content: object, status: int = 200) -> Response:
    return Response(json.dumps(content), status, media_type="application/json")


def _kraken_json(result: object) -> Response:
    return _json({"error": [], "result": result})


def _asset(name: str, decimals: int) -> dict[str, Any]:
    return {
        "aclass": "currency",
        "altname": name,
        "decimals": decimals,
        "display_decimals": 5,
        "status": "enabled",
    }


KRAKEN_PAIR = {
    "altname": "XBTUSD",
    "wsname": "XBT/USD",
    "aclass_base": "currency",
    "base": "XXBT",
    "aclass_quote": "currency",
    "quote": "ZUSD",
    "pair_decimals": 1,
    "lot_decimals": 8,
    "lot_multiplier": 1,
    "leverage_buy": [],
    "leverage_sell": [],
    "fees": [[0, 0.26]],
    "fees_maker": [[0, 0.16]],
    "ordermin": "0.0001",
    "status": "online",
}


def _market(
    host: str, symbol: str, base: str, quote: str, tick: str, lot: str, **facts: Any
) -> tuple[str, Any]:
    filters = [
        {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "1000000", "tickSize": tick},
        {"filterType": "LOT_SIZE", "minQty": lot, "maxQty": "9000", "stepSize": lot},
    ]
    common = {"symbol": symbol, "status": "TRADING", "baseAsset": base, "quoteAsset": quote}
    digits = {"baseAssetPrecision": 8, "quotePrecision": 8, "quoteAssetPrecision": 8}
    spot = {"isSpotTradingAllowed": True, "isMarginTradingAllowed": False, "permissions": ["SPOT"]}
    return host, {**common, **digits, **(spot if host == SPOT else {}), "filters": filters, **facts}


def _contract(kind: str, margin: str, delivery: int = 4133404800000, **facts: Any) -> dict[str, Any]:
    dates = {"deliveryDate": delivery, "onboardDate": 1596006000000}
    return {"contractType": kind, "marginAsset": margin, **dates, **facts}


MARKETS = [
    _market(SPOT, "BTCUSDT", "BTC", "USDT", "0.01000000", "0.00001000"),
    _market(SPOT, "ETHBTC", "ETH", "BTC", "0.00000010", "0.00010000"),
    _market(SPOT, "币安USDT", "币安", "USDT", "0.01000000", "0.10000000"),
    _market(
        LINEAR, "BTCUSDT", "BTC", "USDT", "0.10", "0.001", **_contract("PERPETUAL", "USDT", pair="BTCUSDT")
    ),
    _market(
        INVERSE,
        "BTCUSD_PERP",
        "BTC",
        "USD",
        "0.1",
        "1",
        **_contract("PERPETUAL", "BTC", pair="BTCUSD", contractSize=100, contractStatus="TRADING"),
    ),
    _market(
        INVERSE,
        "BTCUSD_270326",
        "BTC",
        "USD",
        "0.1",
        "1",
        **_contract(
            "CURRENT_QUARTER",
            "BTC",
            int(datetime(2027, 3, 26, 8, tzinfo=UTC).timestamp()) * 1000,
            pair="BTCUSD",
            contractSize=100,
            contractStatus="TRADING",
        ),
    ),
]


@contextlib.contextmanager
def serving() -> Iterator[CcxtServer]:
    """Run the venues on a free port until the block is left."""
    fake = CcxtServer()
    routes = [WebSocketRoute("/{host}/ws/{stream}", fake.stream), Route("/{path:path}", fake.http)]
    config = uvicorn.Config(
        Starlette(routes=routes),
        ws="websockets-sansio",
        lifespan="off",
        log_level="critical",
        access_log=False,
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
