"""What an ingest has to do: which series to fetch from which source, and which to make of stored bars afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gpt_trader.adapters.base import Source
from gpt_trader.adapters.names import RESAMPLE
from gpt_trader.errors import UnknownName
from gpt_trader.instruments import TIMEFRAMES
from gpt_trader.requests import DataRequest
from gpt_trader.resampling import finer
from storage.manifest import Entry, Manifest

_DAILY: Final = ("1d",)


@dataclass(frozen=True)
class Series:
    """One series and where its bars shall come from."""

    symbol: str
    timeframe: str
    source: str


@dataclass(frozen=True)
class Plan:
    """Series to fetch, then series to make of stored ones, shorter bars first; `skipped` says why some are neither."""

    fetch: tuple[Series, ...]
    resample: tuple[Series, ...]
    skipped: tuple[str, ...] = ()


def planned(
    request: DataRequest, manifest: Manifest, default_source: str, source_of: Callable[[str], Source]
) -> Plan:
    """Return what to do for a request; raise UnknownName where it names what is neither listed nor stored."""
    if request.refresh:
        return _refresh(request, manifest)
    name = request.source or default_source
    named = tuple(dict.fromkeys(request.symbols))
    if name == RESAMPLE:
        symbols = named or tuple(sorted({symbol for symbol, _ in manifest.entries}))
        return Plan((), _series(symbols, request.timeframes or _DAILY, RESAMPLE))
    source = source_of(name)
    symbols = named or tuple(instrument.symbol for instrument in source.instruments())
    if not symbols:
        raise UnknownName(f"source {name} does not list its symbols: name them with --symbol")
    return _split(symbols, request.timeframes or _DAILY, source, manifest)


def _split(symbols: tuple[str, ...], timeframes: tuple[str, ...], source: Source, manifest: Manifest) -> Plan:
    """Fetch what the source has; make the rest of finer bars, which are fetched too where there are none yet."""
    fetch: list[Series] = []
    resample: list[Series] = []
    for symbol in symbols:
        there = {t for t in timeframes if t in source.timeframes}
        there |= {timeframe for stored, timeframe in manifest.entries if stored == symbol}
        for timeframe in timeframes:
            if timeframe in source.timeframes:
                fetch.append(Series(symbol, timeframe, source.name))
                continue
            base = next((t for t in finer(timeframe) if t in source.timeframes), None)
            if base is None and not there.intersection(finer(timeframe)):
                fetch.append(Series(symbol, timeframe, source.name))  # the source says that it lacks it
                continue
            if base is not None and not there.intersection(finer(timeframe)):
                fetch.append(Series(symbol, base, source.name))
                there.add(base)
            resample.append(Series(symbol, timeframe, RESAMPLE))
            there.add(timeframe)
    return Plan(tuple(fetch), tuple(resample))


def _refresh(request: DataRequest, manifest: Manifest) -> Plan:
    """Go on with every stored series that the request means, each from the source its newest bars came from."""
    known = {symbol for symbol, _ in manifest.entries}
    for symbol in request.symbols:
        if symbol not in known:
            raise UnknownName.among(
                "symbols", symbol, sorted(known), message=f"{symbol} is not in the lake: nothing to refresh"
            )
    wanted = [
        entry
        for entry in manifest.entries.values()
        if (not request.symbols or entry.symbol in request.symbols)
        and (request.timeframes is None or entry.timeframe in request.timeframes)
    ]
    fetch = [_again(entry) for entry in wanted if _origin(entry) not in ("csv", RESAMPLE)]
    resample = [_again(entry) for entry in wanted if _origin(entry) == RESAMPLE]
    skipped = [
        f"{entry.symbol} {entry.timeframe} came from a file: ingest the new file to bring it up to date"
        for entry in wanted
        if _origin(entry) == "csv"
    ]
    order = list(TIMEFRAMES)
    resample.sort(key=lambda series: order.index(series.timeframe))
    return Plan(tuple(fetch), tuple(resample), tuple(skipped))


def _series(symbols: tuple[str, ...], timeframes: tuple[str, ...], source: str) -> tuple[Series, ...]:
    return tuple(Series(symbol, timeframe, source) for timeframe in timeframes for symbol in symbols)


def _again(entry: Entry) -> Series:
    return Series(entry.symbol, entry.timeframe, _origin(entry))


def _origin(entry: Entry) -> str:
    """Return the source of the newest bars of a series."""
    return max(entry.origins, key=lambda origin: origin.last).source if entry.origins else entry.source
