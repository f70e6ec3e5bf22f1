"""Reads the times of bars as files write them: ISO 8601 with or without a zone, dates, or seconds since 1970."""

from __future__ import annotations

from typing import Final
from zoneinfo import ZoneInfo, available_timezones

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpt_trader.bars import Times
from gpt_trader.errors import BadBars, UnknownName

_WITH_ZONE: Final = r":\d{2}(\.\d+)? ?(Z|UTC|[+-]\d{2}(:?\d{2})?)$"
_EPOCH: Final = r"^\d{9,19}(\.\d+)?$"
_COMPACT_DATE: Final = r"^(\d{4})(\d{2})(\d{2})$"
#: Largest epoch value of a unit and what takes it to microseconds: year 5138 in seconds is 1973 in milliseconds.
_EPOCH_UNITS: Final = ((1e11, 1e6), (1e14, 1e3), (1e17, 1.0), (np.inf, 1e-3))


def known_zone(timezone: str) -> str:
    """Return the name of a time zone; raise UnknownName with the nearest one."""
    try:
        ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):  # ZoneInfo's answers to unknown, malformed and unreadable names
        zones = sorted(available_timezones())
        raise UnknownName.among("timezone", timezone, zones, shown=3, hint="an IANA name") from None
    return timezone


def bar_times(column: pa.Array, timezone: str, *, local: bool, where: str) -> Times:
    """Return the times (n,) as datetime64[us]; NaT where a cell is empty.

    Times without a zone are local times of `timezone`. The result is UTC, or, with `local`, the wall clock of
    `timezone` (what tells the date of a session). Raises BadBars that names `where` (file and column) for what is
    no time, for a mix of times with and without zone, and for a local time that happens twice or never.
    """
    try:
        column, zoned = _timestamps(column)
        if zoned and local:
            column = pc.local_timestamp(column.cast(pa.timestamp("us", tz=timezone)))
        elif not zoned and not local and timezone != "UTC":
            column = pc.assume_timezone(column, timezone)
    except pa.ArrowInvalid as error:
        reason = str(error).partition(". If these")[0].replace("\n", " ")
        raise BadBars(
            f"{where}: {reason}. Write times as 2024-01-31, 2024-01-31 09:30:00, 2024-01-31T09:30:00Z or as "
            "seconds since 1970; a local time that a change of clocks makes unclear needs its offset"
        ) from None
    times: Times = column.to_numpy(zero_copy_only=False).astype("datetime64[us]")
    return times


def _timestamps(column: pa.Array) -> tuple[pa.Array, bool]:
    """Return the column as timestamps in microseconds, and whether they are UTC (else local, without a zone)."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        return column.cast(pa.timestamp("us", tz=kind.tz and "UTC"), safe=False), kind.tz is not None
    if pa.types.is_date(kind):
        return column.cast(pa.timestamp("us"), safe=False), False
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _since_1970(column), True
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise pa.ArrowInvalid(f"holds {kind}, not times")
    return _texts(pc.utf8_trim_whitespace(column.cast(pa.string())))


def _texts(column: pa.Array) -> tuple[pa.Array, bool]:
    written = column.drop_null()
    if pc.all(pc.match_substring_regex(written, _EPOCH)).as_py() and len(written):
        return _since_1970(
            column.cast(pa.float64()) if _fractional(written) else column.cast(pa.int64())
        ), True
    zoned = pc.match_substring_regex(written, _WITH_ZONE)
    if pc.any(zoned).as_py() and not pc.all(zoned).as_py():
        bare = written.filter(pc.invert(zoned))[0]
        raise pa.ArrowInvalid(f"some times have a zone and some, like '{bare}', have none")
    column = pc.replace_substring_regex(column, r"(\.\d{6})\d+", r"\1")
    if pc.any(zoned).as_py():
        return pc.replace_substring_regex(column, r" ?UTC$", "Z").cast(pa.timestamp("us", tz="UTC")), True
    return pc.replace_substring_regex(column, _COMPACT_DATE, r"\1-\2-\3").cast(pa.timestamp("us")), False


def _fractional(column: pa.Array) -> bool:
    return bool(pc.any(pc.match_substring(column, ".")).as_py())


def _since_1970(column: pa.Array) -> pa.Array:
    """Return epoch values as UTC; their size tells seconds, milli-, micro- and nanoseconds apart."""
    values = column.to_numpy(zero_copy_only=False)
    known = np.isfinite(values) if values.dtype.kind == "f" else np.ones(len(values), np.bool_)
    largest = float(np.abs(values[known]).max()) if known.any() else 0.0
    scale = next(scale for limit, scale in _EPOCH_UNITS if largest < limit)
    whole = np.where(known, values, 0)
    # Nanoseconds exceed a float's 53 bits: they are divided as integers.
    scaled = whole.astype(np.int64) // 1000 if scale < 1 else np.round(whole * scale)
    return pa.array(scaled.astype(np.int64), pa.int64(), mask=~known).cast(pa.timestamp("us", tz="UTC"))
