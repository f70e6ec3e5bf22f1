"""ccxt's markets as our instruments, and its symbols as our ids."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from gpt_trader.instruments import Instrument, valid_symbol


def our_symbol(symbol: str) -> str | None:
    """Return our id of ccxt's symbol; None if there is none that leads back to it.

    `BTC/USDT` is BTC-USDT, the perpetual `BTC/USDT:USDT` is BTC-USDT=USDT, the future `BTC/USD:BTC-240329` is
    BTC-USD=BTC-240329. Without an id: a base with a dash, signs that no id has, more than 32 characters.
    """
    written = symbol.replace("/", "-", 1).replace(":", "=")
    try:
        found = valid_symbol(written)
    except ValueError:
        return None
    return found if ccxt_symbol(found) == symbol else None


def ccxt_symbol(symbol: str) -> str:
    """Return ccxt's symbol of one of our ids."""
    return symbol.replace("-", "/", 1).replace("=", ":")


def instrument(market: Mapping[str, Any], symbol: str, venue: str, venue_name: str, mode: int) -> Instrument:
    """Return what a market of ccxt says; `symbol` is our id, `mode` ccxt's precision mode.

    What the venue does not say, or says in significant digits, is left unset. Lots of a contract are contracts, and
    its multiplier is what one contract holds of the base (linear ones alone: an inverse one holds a sum of money).
    """
    facts: dict[str, Any] = {
        "symbol": symbol,
        "venue": venue.upper(),
        "calendar": "24/7",
        "bars_a_year": 365.0,
        "session_minutes": 1440.0,
        "name": f"{venue_name} {market['symbol']}",
    }
    contract = bool(market.get("contract"))
    currency = market.get("settle") if contract else market.get("quote")
    if currency:
        facts["currency"] = currency
    precision = market.get("precision") or {}
    steps = {"tick": precision.get("price"), "lot": precision.get("amount")}
    found = {name: step(value, mode) for name, value in steps.items()}
    if contract and market.get("linear"):
        found["multiplier"] = _positive(market.get("contractSize"))
    return Instrument(**facts, **{name: value for name, value in found.items() if value is not None})


def step(value: object, mode: int) -> Decimal | None:
    """Return a smallest step, exactly; None where it is not said, or in significant digits."""
    from ccxt.base.decimal_to_precision import DECIMAL_PLACES, TICK_SIZE

    if mode == TICK_SIZE:
        return _positive(value)
    if mode == DECIMAL_PLACES and isinstance(value, int | float) and float(value).is_integer():
        return _plain(Decimal(1).scaleb(-int(value)))
    return None


def _positive(value: object) -> Decimal | None:
    try:
        # The shortest text that gives the float is what the venue has written.
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return _plain(number) if number.is_finite() and number > 0 else None


def _plain(number: Decimal) -> Decimal:
    """Return the number written without an exponent and without zeros at its end."""
    return Decimal(format(number.normalize(), "f"))
