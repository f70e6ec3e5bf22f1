"""Facts of an instrument: what sources say, what was set by hand, and how the two meet."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from gpt_trader.errors import Refused, UnknownName
from gpt_trader.instruments import Instrument, edited

AAPL = Instrument(symbol="AAPL", venue="XNAS", calendar="XNYS", tick=Decimal("0.01"))


def test_what_a_source_names_wins_and_what_it_does_not_stays():
    found = AAPL.updated(Instrument(symbol="AAPL", name="Apple Inc.", tick=Decimal("0.05")))
    assert found == Instrument(
        symbol="AAPL", venue="XNAS", calendar="XNYS", name="Apple Inc.", tick=Decimal("0.05")
    )
    assert AAPL.updated(Instrument(symbol="AAPL")) == AAPL


def test_a_default_that_a_source_names_counts_as_named():
    assert AAPL.updated(Instrument(symbol="AAPL", venue="unknown", calendar=None)).venue == "unknown"


def test_facts_set_by_hand_survive_sources():
    by_hand = edited(AAPL, {"venue": "ARCX", "fractional": False})
    assert by_hand.edited == ("fractional", "venue")
    found = by_hand.updated(
        Instrument(symbol="AAPL", venue="XNAS", fractional=True, shortable=False, name="Apple Inc.")
    )
    assert (found.venue, found.fractional, found.shortable, found.name) == (
        "ARCX",
        False,
        False,
        "Apple Inc.",
    )
    assert found.edited == ("fractional", "venue")


def test_no_source_says_what_was_set_by_hand():
    given = Instrument(symbol="AAPL", venue="ARCX", edited=("venue",))
    found = AAPL.updated(given)
    assert (found.venue, found.edited) == ("ARCX", ())
    assert edited(AAPL, {"venue": "X"}).updated(given.model_copy(update={"edited": ()})).venue == "X"


def test_none_takes_a_fact_back_its_value_stays_until_a_source_says_another():
    by_hand = edited(AAPL, {"venue": "ARCX", "tick": "0.05"})
    back = edited(by_hand, {"venue": None})
    assert (back.venue, back.edited) == ("ARCX", ("tick",))
    found = back.updated(Instrument(symbol="AAPL", venue="XNAS", tick=Decimal("0.01")))
    assert (found.venue, found.tick) == ("XNAS", Decimal("0.05"))
    assert edited(AAPL, {"venue": None}) == AAPL
    assert edited(AAPL, {}) == AAPL


def test_a_calendar_brings_its_year_and_its_session_along():
    found = edited(AAPL, {"calendar": "24/7"})
    assert (found.calendar, found.bars_a_year, found.session_minutes) == ("24/7", 365.0, 1440.0)
    assert found.edited == ("bars_a_year", "calendar", "session_minutes")
    own = edited(AAPL, {"calendar": "24/7", "bars_a_year": 360})
    assert (own.bars_a_year, own.session_minutes) == (360.0, 1440.0)


@pytest.mark.parametrize(
    ("name", "nearest"), [("venu", "venue"), ("bars_per_year", "bars_a_year"), ("short", "shortable")]
)
def test_an_unknown_fact_is_named_with_the_nearest(name: str, nearest: str):
    with pytest.raises(UnknownName, match=f"{name!r} is not known.*did you mean {nearest!r}") as caught:
        edited(AAPL, {"name": "Apple", name: 1})
    assert caught.value.problems[0].nearest == nearest
    assert "tick" in (caught.value.problems[0].allowed or "")


@pytest.mark.parametrize("name", ["symbol", "edited"])
def test_neither_the_symbol_nor_what_was_edited_is_a_fact_to_set(name: str):
    with pytest.raises(UnknownName, match=f"{name!r} is not known"):
        edited(AAPL, {name: "IBM"})


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"tick": "-1"}, "tick"),
        ({"lot": "many"}, "lot"),
        ({"session_minutes": 1441}, "session_minutes"),
        ({"bars_a_year": 0}, "bars_a_year"),
        ({"fractional": "perhaps"}, "fractional"),
    ],
)
def test_a_value_that_a_fact_cannot_have_is_refused_by_name(changes: dict[str, Any], field: str):
    with pytest.raises(Refused) as caught:
        edited(AAPL, changes)
    assert [problem.field for problem in caught.value.problems] == [field]
    assert caught.value.problems[0].value == changes[field]


def test_an_unknown_calendar_is_named_with_the_nearest():
    with pytest.raises(UnknownName, match="XNYS"):
        edited(AAPL, {"calendar": "XNYZ"})


@pytest.mark.parametrize(
    ("given", "symbol"), [("aapl", "AAPL"), (" btc-usdt ", "BTC-USDT"), ("^gspc", None), ("BRK.B", "BRK.B")]
)
def test_a_symbol_is_upper_case_and_starts_with_a_letter_or_digit(given: str, symbol: str | None):
    if symbol is None:
        with pytest.raises(ValidationError, match="starting with a letter or digit"):
            Instrument(symbol=given)
    else:
        assert Instrument(symbol=given).symbol == symbol


@pytest.mark.parametrize(
    ("timeframe", "bars"), [("1d", 252), ("1h", 252 * 6.5), ("1m", 252 * 390), ("1w", 365.25 / 7)]
)
def test_a_year_has_as_many_bars_as_the_market_makes(timeframe: str, bars: float):
    assert AAPL.periods_a_year(timeframe) == pytest.approx(bars)
