"""What Yahoo says of an instrument, in our terms: its exchanges' codes are Yahoo's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gpt_trader.calendars import calendar
from gpt_trader.instruments import Instrument

_US: Final = "XNYS"
_FUTURES: Final = "CMES"

#: Yahoo's codes: the venue by ISO 10383, and the calendar of exchange_calendars that its hours follow.
EXCHANGES: Final = {
    **dict.fromkeys(("NMS", "NGM", "NCM", "NAS"), ("XNAS", _US)),
    "NYQ": ("XNYS", _US),
    "ASE": ("XASE", _US),
    "PCX": ("ARCX", _US),
    "BTS": ("BATS", _US),
    **dict.fromkeys(("PNK", "OQB", "OQX", "OEM"), ("OTCM", _US)),
    "CME": ("XCME", _FUTURES),
    "CBT": ("XCBT", _FUTURES),
    "CMX": ("XCEC", _FUTURES),
    "NYM": ("XNYM", _FUTURES),
    "CCC": ("CCC", "24/7"),
    "AMS": ("XAMS", "XAMS"),
    "ASX": ("XASX", "XASX"),
    "BRU": ("XBRU", "XBRU"),
    "BSE": ("XBOM", "XBOM"),
    "BUD": ("XBUD", "XBUD"),
    "CPH": ("XCSE", "XCSE"),
    "EBS": ("XSWX", "XSWX"),
    "FRA": ("XFRA", "XFRA"),
    "GER": ("XETR", "XETR"),
    "HEL": ("XHEL", "XHEL"),
    "HKG": ("XHKG", "XHKG"),
    "ICE": ("XICE", "XICE"),
    "ISE": ("XDUB", "XDUB"),
    "IST": ("XIST", "XIST"),
    "JKT": ("XIDX", "XIDX"),
    "JNB": ("XJSE", "XJSE"),
    "JPX": ("XTKS", "XTKS"),
    "KLS": ("XKLS", "XKLS"),
    "KOE": ("XKOS", "XKRX"),
    "KSC": ("XKRX", "XKRX"),
    "LIS": ("XLIS", "XLIS"),
    "LSE": ("XLON", "XLON"),
    "MCE": ("XMAD", "XMAD"),
    "MEX": ("XMEX", "XMEX"),
    "MIL": ("XMIL", "XMIL"),
    "NSI": ("XNSE", "XBOM"),
    "NZE": ("XNZE", "XNZE"),
    "OSL": ("XOSL", "XOSL"),
    "PAR": ("XPAR", "XPAR"),
    "PRA": ("XPRA", "XPRA"),
    "SAO": ("BVMF", "BVMF"),
    "SAU": ("XSAU", "XSAU"),
    "SES": ("XSES", "XSES"),
    "SET": ("XBKK", "XBKK"),
    "SHH": ("XSHG", "XSHG"),
    "SHZ": ("XSHE", "XSHG"),
    "STO": ("XSTO", "XSTO"),
    "TAI": ("XTAI", "XTAI"),
    "TOR": ("XTSE", "XTSE"),
    "VAN": ("XTSX", "XTSE"),
    "VIE": ("XWBO", "XWBO"),
    "WSE": ("XWAR", "XWAR"),
}


def instrument(meta: Mapping[str, Any], symbol: str) -> Instrument:
    """Return the facts in a chart's metadata, those unknown left unset; an exchange not listed here has no calendar.

    The currency is the one that prices are in, as Yahoo writes it: London's shares are in GBp, pence.
    """
    code = _text(meta.get("exchangeName"))
    venue, hours = EXCHANGES.get(code or "", (code, None))
    facts: dict[str, Any] = {
        "symbol": symbol,
        "venue": venue,
        "currency": _text(meta.get("currency")),
        "name": _text(meta.get("longName")) or _text(meta.get("shortName")),
    }
    if hours is not None:
        found = calendar(hours)
        facts |= {
            "calendar": found.name,
            "bars_a_year": found.bars_a_year,
            "session_minutes": found.session_minutes,
        }
    return Instrument(**{name: value for name, value in facts.items() if value is not None})


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
