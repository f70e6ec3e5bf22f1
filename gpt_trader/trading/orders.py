"""Orders and what a broker reports of them. Units and money are exact decimals; units are signed, short below 0."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from decimal import Context, Decimal, localcontext
from typing import Any, Final, Literal, Self

#: Digits of sums and products of money: two doubles' products are exact in 36, and sums of them stay exact in these.
PRECISION: Final = 80

#: market: at the next open. limit: at its price or better. stop: the market's price once it has traded at its price or
#: worse. touched (market if touched): the same at its price or better.
Type = Literal["market", "limit", "stop", "touched"]

#: Why a session sends an order.
Purpose = Literal["entry", "target", "stop_loss", "take_profit", "flatten", "ruin"]


def exactly() -> AbstractContextManager[Context]:
    """Return a context in which decimals are not rounded: Python's own keeps 28 digits, even of `-x` and `abs(x)`."""
    return localcontext(prec=PRECISION)


def exact(value: float | str | Decimal) -> Decimal:
    """Return a number as the decimal that it is written as: a float by its shortest repr, which gives it back."""
    return (
        value if isinstance(value, Decimal) else Decimal(repr(value) if isinstance(value, float) else value)
    )


def plain(value: Decimal) -> str:
    """Return a decimal as the ledger writes it: no exponent, no trailing zeros (`0.001`, `-12`)."""
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def paid(units: Decimal, price: Decimal, commission: Decimal) -> Decimal:
    """Return how much cash a fill brings (below 0: costs): −units · price − commission, exactly."""
    with exactly():
        return -units * price - commission


def outlay(units: Decimal, price: Decimal, commission: Decimal) -> Decimal:
    """Return what a fill takes of a budget: |units| · price + commission, exactly, bought or sold short alike."""
    with exactly():
        return abs(units) * price + commission


def client_order_id(session: str, time: str, leg: int, purpose: str, number: int) -> str:
    """Return the id that a session gives an order: the same decision has the same id, whenever it is sent.

    `time` is the bar's that decided it, `number` counts the orders that the leg has had.
    """
    text = f"gpt-trader order 1\n{session}\n{time}\n{leg}\n{purpose}\n{number}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Order:
    """One order, as it is intended and sent.

    `units` (signed) or `budget`: money that is spent in full, commission included, on the side `side`. `price` is that
    of a limit, stop or touched order. Of the orders of one `group` the first that is filled ends the others. `after`
    is the time of the bar in which it was sent, `phase` the part of that bar: what is sent at a bar's open trades in
    its auction still, and stops watch from the bar after.
    """

    id: str
    leg: int
    symbol: str
    side: int
    type: Type
    purpose: Purpose
    after: str
    phase: Literal["open", "close"]
    units: Decimal | None = None
    budget: Decimal | None = None
    price: Decimal | None = None
    group: str | None = None

    def document(self) -> dict[str, Any]:
        """Return it JSON-ready, without what is not set."""
        row = {name: getattr(self, name) for name in _ORDER_FIELDS}
        return {
            name: plain(value) if isinstance(value, Decimal) else value
            for name, value in row.items()
            if value is not None
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Return the order of a `document`."""
        row: dict[str, Any] = {name: document[name] for name in _ORDER_FIELDS if name in document}
        return cls(**row | {name: Decimal(row[name]) for name in _AMOUNTS & row.keys()})


_ORDER_FIELDS: Final = tuple(field.name for field in fields(Order))
_AMOUNTS: Final = frozenset({"units", "budget", "price"})


@dataclass(frozen=True, slots=True)
class Accepted:
    """The broker has the order."""

    order_id: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The order trades no more: `cancelled`, `rejected` or `expired`, and why."""

    order_id: str
    state: Literal["cancelled", "rejected", "expired"]
    reason: str


@dataclass(frozen=True, slots=True)
class Fill:
    """An order, or a part of it, was traded.

    `reference` is the price before slippage; `complete` says that nothing of the order is left. `write_off` is what the
    broker bears of a ruin (added to cash).
    """

    order_id: str
    execution_id: str
    time: str
    leg: int
    symbol: str
    units: Decimal
    price: Decimal
    reference: Decimal
    commission: Decimal
    purpose: Purpose
    complete: bool
    write_off: Decimal = Decimal(0)

    def document(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        row = {name: getattr(self, name) for name in _FILL_FIELDS}
        return {name: plain(value) if isinstance(value, Decimal) else value for name, value in row.items()}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Return the fill of a `document`."""
        row: dict[str, Any] = {name: document[name] for name in _FILL_FIELDS}
        return cls(**row | {name: Decimal(row[name]) for name in _FILL_AMOUNTS})


_FILL_FIELDS: Final = tuple(field.name for field in fields(Fill))
_FILL_AMOUNTS: Final = frozenset({"units", "price", "reference", "commission", "write_off"})

Report = Accepted | Ended | Fill
