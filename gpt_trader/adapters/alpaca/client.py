"""Asks Alpaca's HTTP APIs, and says what an answer that is none means.

alpaca-py's `RESTClient` does the asking: its methods for each endpoint follow page tokens themselves and start all
over when one page fails, and its models refuse what a newer API adds, so `get` alone is used. Its retries are
switched off, and a time-out, which it has none of, is put on every call.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from gpt_trader.adapters.patience import Passing, Patience, RateLimit
from gpt_trader.credentials import Credential, required
from gpt_trader.errors import Denied, Problem, Refused, SourceUnavailable

if TYPE_CHECKING:
    from alpaca.common.exceptions import APIError

DATA_URL: Final = "https://data.alpaca.markets"
#: Of paper accounts, whose keys cannot touch money; only the list of assets is asked for there.
TRADING_URL: Final = "https://paper-api.alpaca.markets"
STREAM_URL: Final = "wss://stream.data.alpaca.markets"
#: What the free plan allows: calls, and in how many seconds. One for the process, as the limit is the account's.
ACCOUNT_LIMIT: Final = RateLimit(200, 60.0)
#: No status of HTTP: alpaca-py repeats nothing then (an empty list would bring its default, 429 and 504, back).
_NO_STATUS: Final = 0


class Rejected(Exception):
    """Alpaca understood the question and has no answer: an unknown symbol, a bound it does not take."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Client:
    """Answers of the data and trading APIs, patiently and no faster than allowed; opens nothing until asked."""

    def __init__(
        self,
        credential: Credential,
        base_url: str | None,
        *,
        patience: Patience,
        limit: RateLimit,
        timeout: float,
    ) -> None:
        if base_url is not None and not base_url.startswith(("http://", "https://")):
            raise Refused.of(
                Problem("source_urls.alpaca", base_url, "is no URL", allowed="http://… or https://…")
            )
        base_url = base_url and base_url.rstrip("/")
        self._credential = credential
        self._data_url = base_url or DATA_URL
        self._trading_url = base_url or TRADING_URL
        self.stream_url = base_url.replace("http", "ws", 1) if base_url else STREAM_URL
        self._patience = patience
        self._limit = limit
        self._timeout = timeout
        self._lock = threading.Lock()
        self._made: Any = None

    def keys(self) -> tuple[str, str]:
        """Return key and secret; raise Denied where they are missing or cannot be any."""
        key, secret = required(self._credential, "alpaca", "key", "secret")
        # Such a header would be refused by an error that shows it.
        if not all(33 <= ord(sign) <= 126 for sign in key + secret):
            raise Denied("the key or secret of alpaca holds blanks or signs that no key has: set it again")
        return key, secret

    def redacted(self, text: str) -> str:
        """Return what the vendor says, short and without key and secret, should it repeat them."""
        for value in self.keys():
            text = text.replace(value, "***")
        return text[:200]

    def get(
        self,
        path: str,
        params: Mapping[str, object],
        what: str,
        accept: Callable[[Any], object] = lambda _: None,
    ) -> Any:  # noqa: ANN401 - JSON
        """Return the JSON at `path` (`/v2/…`), asked again after what passes by itself.

        `accept` may raise Passing for an answer that will not do. Raises Denied, Rejected, and SourceUnavailable,
        which names `what`, when patience is at an end.
        """

        def once() -> Any:  # noqa: ANN401 - JSON
            answer = self._answer(path, params)
            accept(answer)
            return answer

        return self._patience.insist(once, what)

    def pages(self, path: str, params: Mapping[str, object], key: str, what: str) -> Iterator[dict[str, Any]]:
        """Yield the object under `key` of every page, as far as page tokens lead; errors as `get`."""
        tokens: set[str] = set()

        def whole(page: Any) -> None:  # noqa: ANN401 - JSON
            # The token is documented as always there, null at the end: without it, how much is missing is not known.
            if not isinstance(page, dict) or not {key, "next_page_token"} <= page.keys():
                raise Passing(f"an answer that is no page of {key}")
            if not isinstance(page[key], dict | None):
                raise Passing(f"an answer that is no page of {key}")
            if page["next_page_token"] in tokens:
                raise Passing("the same page again")

        token: str | None = None
        while True:
            following = {} if token is None else {"page_token": token}
            page = self.get(path, {**params, **following}, what, whole)
            yield page[key] or {}
            token = page["next_page_token"]
            if not token:
                return
            tokens.add(token)

    def _answer(self, path: str, params: Mapping[str, object]) -> Any:  # noqa: ANN401 - JSON
        """Ask once."""
        from alpaca.common.exceptions import APIError

        rest = self._rest()
        _, version, rest_of_path = path.split("/", 2)
        base_url = self._trading_url if rest_of_path.startswith("assets") else self._data_url
        self._limit.wait()
        try:
            answer = rest.get(f"/{rest_of_path}", dict(params), api_version=version, base_url=base_url)
        except APIError as error:
            raise self._meaning(error) from None
        except OSError as error:  # all errors of requests are: time-outs, lost connections, JSON cut short
            raise Passing(f"no whole answer ({type(error).__name__})") from None
        if answer is None:
            raise Passing("an empty answer")
        return answer

    def _rest(self) -> Any:  # noqa: ANN401 - alpaca-py has no types
        from alpaca.common.rest import RESTClient

        key, secret = self.keys()
        with self._lock:
            if self._made is None:
                made: Any = RESTClient(self._data_url, key, secret, retry_exception_codes=[_NO_STATUS])
                session = made._session  # it offers no other way to its calls
                session.request = partial(session.request, timeout=self._timeout)
                self._made = made
        return self._made

    def _meaning(self, error: APIError) -> Exception:
        """Return what an answer with an error status means for the caller."""
        status, headers = error.response.status_code, error.response.headers
        said = self._said(error)
        if status in (401, 403):
            return Denied(
                f"alpaca answers HTTP {status} ({said}): check its key and secret (those of a paper account), "
                "and whether your plan allows it"
            )
        if status == 429:
            return Passing("rate limit reached", wait_asked(headers))
        if status >= 500 or status == 408:
            return Passing(f"HTTP {status}", wait_asked(headers))
        return Rejected(status, f"HTTP {status}: {said}")

    def _said(self, error: APIError) -> str:
        """Return the vendor's own words; nothing of a page that is not its own."""
        try:
            said = error.message
        except (ValueError, KeyError, TypeError):
            return "no reason given"
        return self.redacted(str(said))


def unusable(rejected: Rejected, what: str) -> SourceUnavailable:
    """Return the error for a rejection that no input explains."""
    return SourceUnavailable(f"{what}: alpaca rejects the question ({rejected.reason})")


def wait_asked(headers: Mapping[str, str]) -> float | None:
    """Return for how many seconds the vendor asks us to wait: Retry-After, else until X-RateLimit-Reset."""
    asked = _seconds(headers.get("Retry-After"))
    if asked is None:
        reset = _seconds(headers.get("X-RateLimit-Reset"))
        asked = None if reset is None else reset - time.time()
    return asked if asked is not None and asked > 0 else None


def _seconds(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
