"""Finds a source by its name, and gives it what it needs of the engine: an address, a credential, a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gpt_trader.adapters.base import Source
from gpt_trader.adapters.names import SOURCES, STREAMING
from gpt_trader.credentials import Credential, credential
from gpt_trader.errors import Problem, Refused, UnknownName

if TYPE_CHECKING:
    from gpt_trader.requests import DataRequest
    from gpt_trader.settings import Home, Settings


@dataclass(frozen=True)
class Access:
    """What sources need of the engine: base URLs that are not the vendors' own, and how to get a credential."""

    urls: Mapping[str, str] = field(default_factory=dict)
    credential: Callable[[str], Credential] = lambda _: {}

    @classmethod
    def of(cls, settings: Settings, home: Home) -> Access:
        """Return what the settings and the home's credentials file say."""
        return cls(settings.source_urls, lambda name: credential(name, home.credentials))


def source(name: str, request: DataRequest | None = None, access: Access | None = None) -> Source:
    """Return the source `name`, set up for `request` (csv reads the request's file, synthetic its options).

    Opens no connection. Raises UnknownName with the nearest source or venue, Refused where csv is not told which
    file and symbol.
    """
    access = access or Access()
    family, _, venue = name.partition(":")
    if family not in SOURCES or (venue and family != "ccxt"):
        raise UnknownName.among("source", name, SOURCES)
    if family == "sample":
        from gpt_trader.adapters.sample import SampleSource

        return SampleSource()
    if family == "csv":
        return _csv(request)
    if family == "yahoo":
        from gpt_trader.adapters.yahoo import YahooSource

        return YahooSource(access.urls.get("yahoo"))
    if family == "alpaca":
        from gpt_trader.adapters.alpaca import AlpacaSource

        return AlpacaSource(access.credential("alpaca"), access.urls.get("alpaca"))
    if family == "ccxt":
        from gpt_trader.adapters.ccxt import CcxtSource

        return CcxtSource(venue, access.credential(name), access.urls.get(name))
    from gpt_trader.adapters.synthetic import SyntheticSource

    return SyntheticSource()


def streams(name: str) -> str:
    """Return the name of a source that has a live stream; raise Refused that lists those which have."""
    if name.partition(":")[0] not in STREAMING:
        allowed = ", ".join("ccxt:VENUE" if each == "ccxt" else each for each in STREAMING)
        raise Refused.of(Problem("source", name, "has no live stream of bars", allowed=allowed))
    return name


def _csv(request: DataRequest | None) -> Source:
    from gpt_trader.adapters.csv_file import CsvSource, file_instrument

    if request is None or request.file is None or len(request.symbols) != 1:
        raise Refused.of(
            Problem(
                "file",
                None,
                "source csv reads one symbol from one file: "
                "gpt-trader data ingest --source csv --file FILE --symbol SYMBOL",
            )
        )
    return CsvSource(
        Path(request.file),
        file_instrument(request.symbols[0], request.calendar),
        columns={str(ours): name for ours, name in request.columns.items()},
        timezone=request.timezone,
        label=request.label,
    )


def unknown_symbol(symbol: str, source_name: str, known: Iterable[str]) -> UnknownName:
    """Return the error for a symbol that neither the lake nor the source has: what there is, and how to bring more."""
    return UnknownName.among(
        "symbol",
        symbol,
        sorted(set(known)),
        message=f"{symbol} is neither in the lake nor listed by the source {source_name}; bring it in with: "
        f"gpt-trader data ingest --source csv --file FILE --symbol {symbol}",
    )
