"""One venue through ccxt: set up for reading alone, asked by one thread at a time, with its errors made ours."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from gpt_trader.adapters.ccxt import faults
from gpt_trader.adapters.patience import Patience
from gpt_trader.credentials import Credential
from gpt_trader.errors import Problem, Refused, UnknownName

Answer = TypeVar("Answer")

#: ccxt's names of what a credential may hold.
_KEYS: Final = {"key": "apiKey", "secret": "secret", "password": "password"}


class Venue:
    """Answers of a venue's public API, patiently and no faster than ccxt knows it to allow.

    One exchange for all threads, behind a lock: ccxt's are made for one thread, and one alone keeps the venue's limit.
    """

    def __init__(
        self, venue: str, credential: Credential, base_url: str | None, *, patience: Patience, timeout: float
    ) -> None:
        """Raise UnknownName for a venue that ccxt has not, Refused for one without bars or a base URL that is none."""
        import ccxt

        self.id = venue
        self.source = f"ccxt:{venue}"
        if venue not in ccxt.exchanges:
            raise UnknownName.among("venue", venue, ccxt.exchanges, hint="ccxt has no such venue")
        if base_url is not None and not base_url.startswith(("http://", "https://")):
            raise Refused.of(
                Problem(f"source_urls.{self.source}", base_url, "is no URL", allowed="http://… or https://…")
            )
        self.patience = patience
        self._base_url = base_url and base_url.rstrip("/")
        self._timeout = timeout
        self._secrets = {
            theirs: credential[ours].get_secret_value()
            for ours, theirs in _KEYS.items()
            if ours in credential
        }
        self._lock = threading.Lock()
        self.exchange = self._set_up(getattr(ccxt, venue))
        if not self.exchange.has.get("fetchOHLCV"):
            raise Refused.of(Problem("source", self.source, "gives no bars: the venue has none in its API"))
        _give_whole_answers(self.exchange)

    def ask(self, call: Callable[[], Answer], what: str, symbol: str | None = None) -> Answer:
        """Return what `call` gives, called again after what passes by itself.

        Raises Denied, UnknownName (the venue does not know `symbol`), Rejected, and SourceUnavailable, which names
        `what`, when patience is at an end.
        """
        import ccxt

        def once() -> Answer:
            with self._lock:
                self.exchange.last_response_headers = None
                try:
                    return call()
                except (ccxt.BaseError, *faults.UNREADABLE) as error:
                    wait = faults.wait_asked(self.exchange.last_response_headers)
                    raise self.meaning(error, what, symbol, wait) from None

        return self.patience.insist(once, f"{self.source}: {what}")

    def meaning(
        self, error: Exception, what: str, symbol: str | None, wait: float | None = None
    ) -> Exception:
        """Return what to raise instead of an error of ccxt; see `faults.meaning`."""
        return faults.meaning(error, self.source, what, symbol, clean=self._clean, wait=wait)

    def markets(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the venue's markets by ccxt's symbol, asked for once; errors as `ask`."""
        found: Mapping[str, Mapping[str, Any]] = self.ask(self.exchange.load_markets, "list of markets")
        return found

    def streaming(self) -> Any:  # noqa: ANN401 - ccxt has no types that mypy reads
        """Return a new exchange of ccxt.pro that shares the markets loaded here; close it.

        Raises Refused where the venue has no stream of bars.
        """
        from ccxt import pro

        made = self._set_up(getattr(pro, self.id)) if self.id in pro.exchanges else None
        if made is None or not made.has.get("watchOHLCV"):
            raise Refused.of(Problem("source", self.source, "has no live stream of bars"))
        if self.exchange.markets:
            made.set_markets_from_exchange(self.exchange)
        return made

    def _clean(self, text: str) -> str:
        return faults.cleaned(text, self._secrets.values())

    def _set_up(self, kind: Callable[[dict[str, Any]], Any]) -> Any:  # noqa: ANN401 - as `streaming`
        settings = {
            "enableRateLimit": True,
            "timeout": int(self._timeout * 1000),
            "options": {"maxRetriesOnFailure": 0},
        }
        made = kind(settings | self._secrets)
        made.logger = _silent()
        if self._base_url:
            made.urls = {**made.urls, "api": _moved(made.urls["api"], self._base_url)}
        return made


def _moved(urls: Any, base_url: str) -> Any:  # noqa: ANN401 - a text, or a tree of texts
    """Return a venue's addresses with `base_url` before them and without their scheme.

    The host becomes the first part of the path (`…/api.binance.com/api/v3`): the paths of several hosts may be alike,
    and ccxt looks for parts of the host in its own addresses.
    """
    if isinstance(urls, Mapping):
        return {name: _moved(each, base_url) for name, each in urls.items()}
    if not isinstance(urls, str):
        return urls
    scheme, host, path, *_ = urlsplit(urls)
    base = base_url.replace("http", "ws", 1) if scheme in ("ws", "wss") else base_url
    return f"{base}/{host}{path}"


def _give_whole_answers(exchange: Any) -> None:  # noqa: ANN401 - as `streaming`
    """Have an exchange refuse what is no whole answer, and give every row as the venue gave it.

    ccxt takes JSON that is cut short for a text, and a text for a list without rows: a hole would be stored for an
    error. Its filter of rows drops those without a time and, where rows are repeated, the last ones.
    """
    import ccxt

    fetch = exchange.fetch

    def whole(*args: Any, **named: Any) -> Any:  # noqa: ANN401 - as `streaming`
        answer = fetch(*args, **named)
        if isinstance(answer, str) and (answer in ("", "null") or answer[0] in "{[<"):
            raise ccxt.BadResponse("an answer that is no whole JSON")
        return answer

    def rows(ohlcvs: Any, market: Any = None, *_: Any, **__: Any) -> list[Any]:  # noqa: ANN401 - as `streaming`
        if not isinstance(ohlcvs, list):
            raise ccxt.BadResponse("an answer that is no list of bars")
        return [exchange.parse_ohlcv(each, market) for each in ohlcvs]

    exchange.fetch = whole
    exchange.parse_ohlcvs = rows


def _silent() -> logging.Logger:
    """Return a logger that drops what ccxt says when debugging: the headers of every call, and so the key."""
    logger = logging.getLogger("gpt_trader.adapters.ccxt.library")
    logger.setLevel(logging.ERROR)
    return logger
