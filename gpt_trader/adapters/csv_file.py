"""Source `csv`: a user's own bars, one symbol from one CSV or Parquet file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gpt_trader.adapters.bar_times import bar_times, known_zone
from gpt_trader.adapters.base import Moment, Source, listed, offered, within
from gpt_trader.adapters.table_file import TableFile
from gpt_trader.bars import Floats, Times
from gpt_trader.calendars import trading
from gpt_trader.errors import BadBars, UnknownName
from gpt_trader.instruments import TIMEFRAMES, Instrument
from gpt_trader.raw_bars import RawBars

_REQUIRED: Final = ("timestamp", "open", "high", "low", "close", "volume")
_ADJUSTED: Final = "adjusted_close"
#: Other names under which files have our columns, written without case, spaces and signs.
_ALIASES: Final = {"timestamp": ("date", "datetime", "time", "timestamputc"), _ADJUSTED: ("adjclose",)}


def file_instrument(symbol: str, calendar: str | None) -> Instrument:
    """Return the instrument of a file: only what is said is set, so that a lake keeps the facts it knows.

    Without a calendar there is none. Raises UnknownName for a calendar that there is not, with the nearest one.
    """
    return trading(Instrument(symbol=symbol), calendar)


class CsvSource(Source):
    """One symbol's bars in a file; the columns timestamp, open, high, low, close, volume by default.

    `columns` maps our names to the file's; case, spaces and signs do not matter, and `date`, `datetime`, `time` or
    will do for timestamp. Where the file has an adjusted close, factor = adjusted close / close; else 1. Times
    without a zone are local times of `timezone`; a daily or weekly label is the date there, at 00:00 UTC. Where
    `label` says "close", an intraday time names the end of its bar.
    """

    name = "csv"

    def __init__(
        self,
        path: Path,
        instrument: Instrument,
        *,
        columns: Mapping[str, str] | None = None,
        timezone: str = "UTC",
        label: Literal["open", "close"] = "open",
    ) -> None:
        self._path = path
        self._instrument = instrument
        self._mapping = dict(columns or {})
        self._timezone = known_zone(timezone)
        self._label = label

    def instruments(self) -> list[Instrument]:
        """Return the one instrument of the file."""
        return [self._instrument]

    def pages(
        self, symbol: str, timeframe: str, start: Moment | None = None, end: Moment | None = None
    ) -> Iterator[RawBars]:
        """Yield the file's rows in their own order, all at once; errors as `Source.pages`.

        Raises BadBars too where the rows stand much closer together than `timeframe`.
        """
        listed(self, symbol)
        offered(self, timeframe)
        daily = TIMEFRAMES[timeframe] >= timedelta(days=1)
        file = TableFile(self._path)
        names = _columns(self._mapping, file.columns(), self._path)
        numbers = [name for ours, name in names.items() if ours != "timestamp"]
        pieces = [self._piece(batch, names, daily) for batch in file.batches(names["timestamp"], numbers)]
        times, *values = (np.concatenate(column) for column in zip(*pieces, strict=True))
        _spaced(times, timeframe, self._path)
        if daily:
            times = times.astype("datetime64[D]")
        elif self._label == "close":
            times = times - np.timedelta64(TIMEFRAMES[timeframe])
        raw = RawBars(times, *values)
        yield within(raw, start, end, str(self._path))

    def _piece(self, batch: pa.RecordBatch, names: Mapping[str, str], daily: bool) -> list[NDArray[Any]]:
        """Return times (local ones for daily bars, whose label is the date where they trade), values, factor."""
        column = names["timestamp"]
        where = f"{self._path}: column {column!r}"
        times = bar_times(batch.column(column), self._timezone, local=daily, where=where)
        values = [_floats(batch, names[name]) for name in _REQUIRED[1:]]
        factor = np.ones(len(times))
        if _ADJUSTED in names:
            with np.errstate(divide="ignore", invalid="ignore"):  # such rows are quarantined, with the reason
                factor = _floats(batch, names[_ADJUSTED]) / values[3]
        return [times, *values, factor]


def _columns(mapping: Mapping[str, str], found: list[str], path: Path) -> dict[str, str]:
    """Return our column names → the file's; raise UnknownName naming what was found and the nearest."""
    plain = {_plain(name): name for name in reversed(found)}
    chosen = {}
    for ours in (*_REQUIRED, _ADJUSTED):
        wanted = mapping.get(ours, ours)
        name = wanted if wanted in found else plain.get(_plain(wanted))
        if name is None and ours not in mapping:
            name = next((plain[alias] for alias in _ALIASES.get(ours, ()) if alias in plain), None)
        if name is None and (ours in _REQUIRED or ours in mapping):
            message = f"{path} has no column {wanted!r}; map it with --column {ours}=NAME"
            raise UnknownName.among(f"columns.{ours}", wanted, found, message=message)
        if name is not None:
            chosen[ours] = name
    return chosen


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _floats(batch: pa.RecordBatch, name: str) -> Floats:
    values: Floats = batch.column(name).to_numpy(zero_copy_only=False)
    return values


def _spaced(times: Times, timeframe: str, path: Path) -> None:
    """Refuse rows that stand closer together than bars of this timeframe can: another timeframe is meant."""
    gaps = np.diff(np.unique(times[~np.isnat(times)]))
    if not len(gaps):
        return
    typical = timedelta(microseconds=int(np.median(gaps.astype(np.int64))))
    if typical >= TIMEFRAMES[timeframe] / 2:
        return
    nearest = min(TIMEFRAMES, key=lambda t: abs(TIMEFRAMES[t] - typical))
    raise BadBars(
        f"{path}: its rows are {typical} apart, too close for {timeframe} bars: give --timeframe {nearest}"
    )
