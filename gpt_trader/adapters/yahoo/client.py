"""Asks Yahoo's chart endpoint, and says what an answer that is none means.

yfinance's transport does the asking (a browser's TLS and headers, without which Yahoo turns callers away), at
yfinance's address. Its `Ticker.history` does not: it takes a page that is cut short, a server error and an unknown
symbol alike for "no data", drops `Retry-After`, asks twice more of its own accord, and keeps databases in the user's
home. The endpoint needs neither cookie nor crumb, so nothing of that is needed.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import quote

from gpt_trader.adapters.patience import Passing, Patience, RateLimit
from gpt_trader.adapters.yahoo.chart import whole
from gpt_trader.errors import GptTraderError, NotEnoughBars, Problem, Refused, SourceUnavailable, UnknownName

#: Yahoo says nothing of its limit and shuts out by address: one for the process, slower than most report trouble at.
ADDRESS_LIMIT: Final = RateLimit(60, 60.0)
#: What Yahoo calls listings that it made up for symbols which nobody has.
_PHANTOM: Final = "ECNQUOTE"


class Client:
    """Charts, patiently and no faster than allowed; opens nothing until asked. `timeout` (s) is that of each call."""

    def __init__(self, base_url: str | None, *, patience: Patience, limit: RateLimit, timeout: float) -> None:
        if base_url is not None and not base_url.startswith(("http://", "https://")):
            raise Refused.of(
                Problem("source_urls.yahoo", base_url, "is no URL", allowed="http://… or https://…")
            )
        self._base_url = base_url and base_url.rstrip("/")
        self._patience = patience
        self._limit = limit
        self._timeout = timeout
        self._lock = threading.Lock()
        self._made: Any = None

    def chart(self, symbol: str, params: Mapping[str, object], what: str) -> dict[str, Any] | None:
        """Return the result of a chart (`meta`, `timestamp`, `indicators`, `events`); None: Yahoo has no bar there.

        Raises UnknownName, NotEnoughBars (further back than Yahoo keeps bars), and SourceUnavailable, which names
        `what`.
        """
        return self._patience.insist(lambda: self._once(symbol, params, what), what)

    def _once(self, symbol: str, params: Mapping[str, object], what: str) -> dict[str, Any] | None:
        session = self._session()
        self._limit.wait()
        url = f"{self._base_url or _yahoo_url()}/v8/finance/chart/{quote(symbol, safe='=')}"
        try:
            answer = session.get(url, params=dict(params), timeout=self._timeout)
        except OSError as error:  # all errors of curl_cffi, and of requests, are: time-outs, lost connections
            raise Passing(f"no whole answer ({type(error).__name__})") from None
        if answer.status_code == 429:
            raise Passing("rate limit reached", wait_asked(answer.headers))
        if answer.status_code >= 500 or answer.status_code == 408:
            raise Passing(f"HTTP {answer.status_code}", wait_asked(answer.headers))
        chart = _chart(answer.content)
        if chart is None and answer.status_code >= 400:
            raise SourceUnavailable(f"{what}: yahoo answers HTTP {answer.status_code} without a reason")
        if chart is None:
            raise Passing("an answer that is no chart, or not a whole one")
        if chart.get("error"):
            meaning = _meaning(chart["error"], answer.status_code, symbol, what)
            if meaning is None:
                return None
            raise meaning
        return _result(chart, symbol)

    def _session(self) -> Any:  # noqa: ANN401 - curl_cffi's or, where that cannot be had, requests'
        with self._lock:
            if self._made is None:
                from yfinance._http import new_session

                self._made = new_session()
        return self._made


def unknown_symbol(symbol: str) -> UnknownName:
    """Return the error for a symbol that Yahoo does not know, or does not chart any more."""
    return UnknownName.of(
        Problem(
            "symbol",
            symbol,
            f"source yahoo does not know {symbol[:80]}; it may be delisted",
            allowed="symbols as finance.yahoo.com writes them, e.g. AAPL, BRK-B, SHEL.L, BTC-USD, ES=F",
        )
    )


def wait_asked(headers: Mapping[str, str]) -> float | None:
    """Return for how many seconds Retry-After asks to wait, be it seconds or a date; None if it does not."""
    text = headers.get("Retry-After") or ""
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):  # no date, and one without a zone
            return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None


def _yahoo_url() -> str:
    from yfinance.const import _BASE_URL_

    return str(_BASE_URL_)


def _chart(body: bytes) -> dict[str, Any] | None:
    """Return the chart in an answer; None if there is none, or half of one."""
    try:
        content = json.loads(body)
    except ValueError:
        return None
    chart = content.get("chart") if isinstance(content, dict) else None
    return chart if isinstance(chart, dict) else None


def _meaning(error: object, status: int, symbol: str, what: str) -> Exception | None:
    """Return what Yahoo's error means for the caller; None: there are no bars in the range."""
    facts = error if isinstance(error, dict) else {"description": error}
    code, said = str(facts.get("code")), str(facts.get("description"))[:200]
    if code == "Not Found" or said.startswith("No data found"):
        return unknown_symbol(symbol)
    if said.startswith("Data doesn't exist for startDate"):
        return None
    meaning: GptTraderError
    if "must be within the last" in said:
        meaning = NotEnoughBars(f"{what}: {said}")
    elif status < 400:
        return Passing(f"{code}: {said}")
    else:
        meaning = SourceUnavailable(f"{what}: yahoo rejects the question (HTTP {status}, {code}: {said})")
    return meaning


def _result(chart: Mapping[str, Any], symbol: str) -> dict[str, Any]:
    results = chart.get("result")
    result = results[0] if isinstance(results, list) and results else None
    meta = result.get("meta") if isinstance(result, dict) else None
    if not isinstance(meta, dict) or not isinstance(result, dict):
        raise Passing("a chart without what it is of")
    if meta.get("instrumentType") == _PHANTOM and meta.get("firstTradeDate") is None:
        raise unknown_symbol(symbol)
    whole(result)
    return result
