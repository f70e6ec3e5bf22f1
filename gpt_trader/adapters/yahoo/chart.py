"""Yahoo's charts as raw bars and corporate actions.

Yahoo restates its whole history with every split: prices are divided by all splits that came later, volumes multiplied,
and past dividends divided too. What was printed is had by taking that back.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gpt_trader.adapters.patience import Passing
from gpt_trader.bars import Floats, Times
from gpt_trader.calendars import Calendar
from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.errors import BadBars
from gpt_trader.raw_bars import RawBars

_FIELDS: Final = ("open", "high", "low", "close", "volume")
#: Digits of a number in single precision: so many tell each from its neighbours.
_DIGITS: Final = 9
#: What prices are in where that is a hundredth of the currency.
_MINOR: Final = {"GBp": "GBP", "ZAc": "ZAR", "ILA": "ILS"}


def whole(result: Mapping[str, Any]) -> None:
    """Raise Passing for a chart that lacks columns, rows in some of them, or the exchange's time zone."""
    columns = _columns(result)
    none_at_all = all(column is None for column in columns)
    if not none_at_all and not all(isinstance(column, list) for column in columns):
        raise Passing("a chart without all of its columns")
    if not none_at_all and len({len(column) for column in columns}) != 1:
        raise Passing("a chart whose columns are not of one length")
    if not isinstance(result["meta"].get("exchangeTimezoneName"), str):
        raise Passing("a chart without the exchange's time zone")


def rows(result: Mapping[str, Any], what: str) -> RawBars:
    """Return the rows of a whole chart as they came: times in UTC, prices and volumes as restated by later splits.

    What is null is NaN, for the inspection to hold back. Raises BadBars for what is no number.
    """
    columns = _columns(result)
    if columns[0] is None:
        return RawBars.empty()
    try:
        seconds, *values = (np.array(column, np.float64) for column in columns)
    except (ValueError, TypeError) as error:
        raise BadBars(f"{what}: yahoo gave what is no number: {str(error)[:200]}") from None
    times = np.full(len(seconds), np.datetime64("NaT", "us"))
    known = np.isfinite(seconds)
    times[known] = (seconds[known] * 1e6).astype(np.int64).astype("datetime64[us]")
    opens, highs, lows, closes, volumes = values
    return RawBars(times, opens, highs, lows, closes, volumes, np.ones(len(times)))


def local(times: Times, zone: str) -> Times:
    """Return times in UTC as the exchange's clocks show them; raise BadBars for a zone that nobody knows."""
    try:
        column = pc.local_timestamp(pa.array(times).cast(pa.timestamp("us", tz=zone)))
    except pa.ArrowInvalid:
        raise BadBars(f"yahoo names a time zone that is none: {zone[:80]!r}") from None
    result: Times = column.to_numpy(zero_copy_only=False).astype("datetime64[us]")
    return result


def session_days(times: Times, zone: str) -> NDArray[np.datetime64]:
    """Return the session's date for each daily row, which bears its open, its midnight, or the last trade's time."""
    clock = local(times, zone)
    # Where clocks had changed, Yahoo has been seen to write 22:00 or 23:00 of the day before for midnight.
    into_day = clock - clock.astype("datetime64[D]")
    before = (into_day >= np.timedelta64(22, "h")) & (into_day % np.timedelta64(1, "h") == np.timedelta64(0))
    return (clock + np.where(before, np.timedelta64(2, "h"), np.timedelta64(0, "h"))).astype("datetime64[D]")


def daily(given: RawBars, zone: str, actions: CorporateActions) -> RawBars:
    """Return daily rows as printed, labeled by the session's date.

    While a market trades, Yahoo adds the newest state of the day as a row of its own at the end: it is the newer one.
    """
    days = session_days(given.time, zone)
    kept = np.ones(len(days), np.bool_)
    kept[:-1] = days[:-1] != days[-1:]
    raw = printed(given, days, actions)
    labels = days.astype("datetime64[us]")
    return RawBars(labels, raw.open, raw.high, raw.low, raw.close, raw.volume, raw.factor)[kept]


def intraday(given: RawBars, step: timedelta, zone: str, actions: CorporateActions) -> RawBars:
    """Return intraday rows as printed.

    While a market trades, what the newest bar got last comes as a row of its own with the time of the last trade.
    Neither of the two is the bar: both are left out until Yahoo has put them together.
    """
    raw = printed(given, local(given.time, zone).astype("datetime64[D]"), actions)
    if len(raw) < 2:
        return raw
    since = raw.time[-1] - raw.time
    torn = (since > np.timedelta64(0)) & (since < np.timedelta64(step))
    if torn.any():
        torn[-1] = True
    return raw[~torn]


def regular(raw: RawBars, found: Calendar) -> RawBars:
    """Return the bars that lie in a session, as Yahoo lets some from after it slip in; those without a time stay."""
    known = raw.time[~np.isnat(raw.time)]
    if not len(known):
        return raw
    day = timedelta(days=1)
    first, last = known.min().astype("datetime64[D]").item(), known.max().astype("datetime64[D]").item()
    return raw[np.isnat(raw.time) | (found.sessions(first - day, last + day).holding(raw.time) >= 0)]


def printed(given: RawBars, days: NDArray[np.datetime64], actions: CorporateActions) -> RawBars:
    """Return rows as they were printed on their `days` (n,): the splits after them taken back."""
    later = 1.0 / actions.split_factor(days.astype("datetime64[us]"))
    restated = later != 1.0
    opens, highs, lows, closes = (
        _shortest(column, later) for column in (given.open, given.high, given.low, given.close)
    )
    volume = np.where(restated, np.rint(given.volume / later), given.volume)
    return RawBars(given.time, opens, highs, lows, closes, volume, given.factor)


def corporate_actions(result: Mapping[str, Any], zone: str, today: date, symbol: str) -> CorporateActions:
    """Return splits and dividends up to `today`, dividends as paid: what is only announced may yet change.

    Yahoo's amounts are in the terms of today's shares. Raises BadBars for an action that cannot be read, or one that
    is paid in another currency than prices are in.
    """
    currency = result["meta"].get("currency")
    splits: dict[date, float] = defaultdict(lambda: 1.0)
    dividends: dict[date, float] = defaultdict(float)
    for kind, day, event in _events(result, zone, symbol):
        if day > today:
            continue
        try:
            if kind == "splits":
                splits[day] *= _number(event["numerator"]) / _number(event["denominator"])
            else:
                dividends[day] += _number(event["amount"]) * _units(event.get("currency"), currency)
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise BadBars(f"yahoo's {kind} of {symbol}: one cannot be read ({error}): {event}") from None
    paid = {day: _whole(amount * _product(splits, day), 6) for day, amount in dividends.items()}
    return CorporateActions.of(dict(splits), paid)


def last_trade(meta: Mapping[str, Any]) -> tuple[datetime, float] | None:
    """Return time (UTC) and price of the newest trade; None if the metadata has none."""
    price, seconds = meta.get("regularMarketPrice"), meta.get("regularMarketTime")
    if not isinstance(price, int | float) or not isinstance(seconds, int | float) or not price > 0:
        return None
    return datetime.fromtimestamp(seconds, UTC), float(price)


def _columns(result: Mapping[str, Any]) -> list[Any]:
    """Return times, opens, highs, lows, closes and volumes; None for what the chart does not have."""
    quotes = (result.get("indicators") or {}).get("quote") or [{}]
    return [result.get("timestamp"), *((quotes[0] or {}).get(field) for field in _FIELDS)]


def _events(result: Mapping[str, Any], zone: str, symbol: str) -> Iterator[tuple[str, date, dict[str, Any]]]:
    for kind in ("splits", "dividends"):
        found = list(((result.get("events") or {}).get(kind) or {}).values())
        try:
            times = np.array([int(event["date"]) for event in found], "datetime64[s]").astype(
                "datetime64[us]"
            )
        except (KeyError, TypeError, ValueError):
            raise BadBars(f"yahoo's {kind} of {symbol}: one has no date") from None
        for event, day in zip(found, session_days(times, zone), strict=True):
            yield kind, day.item(), event


def _product(splits: Mapping[date, float], first: date) -> float:
    """Return what one share before `first` is in shares of today."""
    return math.prod(ratio for day, ratio in splits.items() if day >= first)


def _units(paid_in: object, currency: object) -> float:
    """Return what a dividend's unit is in those of prices."""
    if not paid_in or paid_in == currency:
        return 1.0
    if _MINOR.get(str(currency)) == paid_in:
        return 100.0
    raise ValueError(f"paid in {paid_in}, prices are in {currency}")


def _number(value: Any) -> float:  # noqa: ANN401 - JSON
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is no amount")
    return number


def _whole(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")


def _shortest(values: Floats, scale: Floats) -> Floats:
    """Return values × scale, each as the shortest decimal that single precision, as Yahoo stores prices, leaves open.

    129.0399932861328 is 129.04, and a seventh of 99.82, stored and multiplied by 7 again, is 99.82. Numbers that are
    not in single precision stay as they are.
    """
    result = values * scale
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        single = values.astype(np.float32)
        slack = np.spacing(np.abs(single)).astype(np.float64) / 2 * scale
        places = np.floor(np.log10(np.abs(result)))
    left = (
        np.isfinite(places) & (np.abs(places) < 12) & (single == values)
    )  # 10 ** 22 is the last exact power
    for digits in range(1, _DIGITS + 1):
        power = digits - 1 - places[left]
        up, down = 10.0 ** np.maximum(power, 0), 10.0 ** np.maximum(-power, 0)
        candidate = np.rint(result[left] * up / down) * down / up
        close = np.abs(candidate - result[left]) <= slack[left]
        rows = np.flatnonzero(left)[close]
        result[rows] = candidate[close]
        left[rows] = False
    return result
