"""What Alpaca knows of an asset, as an instrument.

A symbol with a dash is a pair of crypto: `BTC-USD` is Alpaca's `BTC/USD`. Stocks have Alpaca's own symbols (`BRK.B`).
The few assets that Alpaca lists under names which are no ids of ours, or are stocks with a dash, are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from gpt_trader.calendars import calendar
from gpt_trader.instruments import Instrument, valid_symbol

#: Alpaca's exchanges by ISO 10383; Alpaca crosses crypto itself.
_VENUES: Final = {
    "NASDAQ": "XNAS",
    "NYSE": "XNYS",
    "ARCA": "ARCX",
    "NYSEARCA": "ARCX",
    "AMEX": "XASE",
    "BATS": "BATS",
    "OTC": "OTCM",
    "CRYPTO": "ALPACA",
}
#: Orders may have up to nine decimal places of a share, where fractions are allowed.
_FRACTION: Final = Decimal("0.000000001")


def is_pair(symbol: str) -> bool:
    """Return whether our symbol is a pair of crypto."""
    return "-" in symbol


def our_symbol(symbol: str) -> str:
    """Return the id for either spelling of a symbol; raise ValueError for what cannot be one."""
    return valid_symbol(symbol.replace("/", "-"))


def vendor_symbol(symbol: str) -> str:
    """Return Alpaca's name for our symbol."""
    return symbol.replace("-", "/")


def instruments(assets: Iterable[Any]) -> list[Instrument]:
    """Return the assets that have ids, by symbol; of one that was listed before, the active listing counts."""
    found: dict[str, tuple[bool, Instrument]] = {}
    for asset in assets:
        made = instrument(asset)
        if made is None:
            continue
        active = asset.get("status") == "active"
        if made.symbol not in found or active > found[made.symbol][0]:
            found[made.symbol] = active, made
    return [found[symbol][1] for symbol in sorted(found)]


def instrument(asset: Any) -> Instrument | None:  # noqa: ANN401 - JSON
    """Return the facts of an asset, those unknown left unset; None for one that has no id of ours.

    `lot` is the smallest step of an order: a whole share, a billionth of one where Alpaca trades fractions,
    `min_trade_increment` for crypto. `tick` is a cent, and `price_increment` for crypto.
    """
    if not isinstance(asset, dict) or not isinstance(asset.get("symbol"), str):
        return None
    crypto = asset.get("class") == "crypto"
    try:
        symbol = our_symbol(asset["symbol"])
    except ValueError:
        return None
    if is_pair(symbol) != crypto:
        return None
    hours = calendar("24/7" if crypto else "XNYS")
    facts: dict[str, Any] = {
        "symbol": symbol,
        "venue": _venue(asset.get("exchange")),
        "calendar": hours.name,
        "bars_a_year": hours.bars_a_year,
        "session_minutes": hours.session_minutes,
        "currency": symbol.rpartition("-")[2] if crypto else "USD",
        "tick": _step(asset, "price_increment") if crypto else Decimal("0.01"),
        "lot": _step(asset, "min_trade_increment") if crypto else _lot(asset),
        "fractional": _flag(asset, "fractionable"),
        "shortable": _flag(asset, "shortable"),
        "name": asset.get("name") if isinstance(asset.get("name"), str) else None,
    }
    return Instrument(**{name: value for name, value in facts.items() if value is not None})


def _venue(exchange: object) -> str | None:
    return _VENUES.get(exchange, exchange) or None if isinstance(exchange, str) else None


def _lot(asset: Mapping[str, Any]) -> Decimal:
    return _FRACTION if asset.get("fractionable") is True else Decimal(1)


def _step(asset: Mapping[str, Any], name: str) -> Decimal | None:
    """Return a size that is a number above zero (Alpaca writes it as text), None for anything else."""
    try:
        value = Decimal(str(asset.get(name)))
    except InvalidOperation:
        return None
    return value if value.is_finite() and value > 0 else None


def _flag(asset: Mapping[str, Any], name: str) -> bool | None:
    value = asset.get(name)
    return value if isinstance(value, bool) else None
