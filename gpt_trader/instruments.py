"""What is traded: the facts of an instrument that the lake, the metrics and the sizing share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

_SYMBOL: Final = re.compile(r"[A-Z0-9][A-Z0-9.\-_=^]{0,31}")

#: Length of one bar of every timeframe we store.
TIMEFRAMES: Final[dict[str, timedelta]] = {
    "1m": timedelta(minutes=1),
    "5m": timedelta(minutes=5),
    "15m": timedelta(minutes=15),
    "1h": timedelta(hours=1),
    "4h": timedelta(hours=4),
    "1d": timedelta(days=1),
    "1w": timedelta(weeks=1),
}


def valid_symbol(value: str) -> str:
    """Return `value` upper-cased if it is an instrument id (`AAPL`, `BTC-USDT`); raise ValueError otherwise.

    Ids are slash-free, at most 32 characters, and never start with a dot: they appear in paths of the API
    and in names of files.
    """
    upper = value.strip().upper()
    if not value.isascii() or not _SYMBOL.fullmatch(upper) or ".." in upper:
        raise ValueError("a symbol is 1 to 32 letters, digits or . - _ = ^, starting with a letter or digit")
    return upper


Symbol = Annotated[str, AfterValidator(valid_symbol), Field(examples=["AAPL", "BTC-USDT"])]


class Instrument(BaseModel):
    """One tradable thing.

    `bars_a_year` is the market's own number of *daily* bars (252 for US stocks, 365 for a market that never
    closes); `session_minutes` is the length of one trading day, so that intraday years are scaled alike.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbol: Symbol
    venue: str = Field(default="unknown", max_length=64)
    calendar: str | None = Field(default=None, max_length=40)
    bars_a_year: float = Field(default=252.0, gt=0, le=366)
    session_minutes: float = Field(default=390.0, gt=0, le=1440)
    currency: str = Field(default="USD", max_length=16)
    tick: Decimal = Field(default=Decimal("0.01"), gt=0)
    lot: Decimal = Field(default=Decimal("1"), gt=0)
    multiplier: Decimal = Field(default=Decimal("1"), gt=0)
    fractional: bool = True
    shortable: bool = True
    name: str = Field(default="", max_length=300)
    edited: tuple[str, ...] = Field(
        default=(), description="Facts that were set by hand: no source overrules them."
    )

    def updated(self, given: Instrument) -> Instrument:
        """Return it with the facts that `given` names, but for those that were set by hand."""
        names = given.model_fields_set - {*self.edited, "edited"}
        return self.model_copy(update={name: getattr(given, name) for name in names})

    def periods_a_year(self, timeframe: str) -> float:
        """Return how many bars of `timeframe` one year of this market has (dimensionless).

        Weekly bars: 52.1786 (= 365.25/7). Intraday: daily bars × the session's length over the bar's.
        """
        step = TIMEFRAMES[timeframe]
        if step >= timedelta(weeks=1):
            return 365.25 / 7
        if step >= timedelta(days=1):
            return self.bars_a_year
        return self.bars_a_year * self.session_minutes / (step.total_seconds() / 60)


def edited(instrument: Instrument, changes: Mapping[str, Any]) -> Instrument:
    """Return an instrument with facts set by hand; None leaves a fact to the sources again (its value stays).

    A calendar brings its daily bars a year and its session's length along, unless these are given too.
    Raises UnknownName for no such fact or calendar, Refused for a value that a fact cannot have.
    """
    from gpt_trader.errors import UnknownName
    from gpt_trader.validation import validated

    facts = [name for name in Instrument.model_fields if name not in ("symbol", "edited")]
    for name in changes:
        if name not in facts:
            raise UnknownName.among("fact", name, facts)
    given = {name: value for name, value in changes.items() if value is not None}
    if isinstance(given.get("calendar"), str):
        given = _implied(given["calendar"]) | given
    by_hand = (set(instrument.edited) | given.keys()) - (changes.keys() - given.keys())
    values = {name: getattr(instrument, name) for name in Instrument.model_fields}
    return validated(Instrument, values | given | {"edited": tuple(sorted(by_hand))})


def _implied(calendar_name: str) -> dict[str, Any]:
    from gpt_trader.calendars import calendar

    found = calendar(calendar_name)
    return {"bars_a_year": found.bars_a_year, "session_minutes": found.session_minutes}
