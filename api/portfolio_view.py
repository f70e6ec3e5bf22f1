"""All open sessions of an owner together: money by currency, positions, exposure, one curve. Nothing is converted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final
from uuid import UUID

from api.session_models import Position
from gpt_trader.trading.orders import exact, exactly, plain
from gpt_trader.trading.state import State
from storage.session_rows import Session
from storage.session_views import Curve, SessionViews

_ZERO: Final = Decimal(0)


@dataclass(frozen=True)
class Account:
    """One open session: its row, its account now, and the currency of both."""

    session: Session
    state: State
    currency: str

    @property
    def positions(self) -> list[Position]:
        """What it holds."""
        return positions_of(self.session.session_id, self.state, self.currency)


@dataclass(frozen=True)
class Exposure:
    """What is held: long, short (both 0 or above), by symbol with its sign. Exact."""

    long: Decimal
    short: Decimal
    by_symbol: Mapping[str, Decimal]


def accounts(views: SessionViews, owner: str | None) -> list[Account]:
    """Return an owner's open sessions (None: everybody's) with their accounts, newest first."""
    found = views.accounts(owner)
    currencies = views.currencies(each.session_id for each, _ in found)
    return [Account(each, state, currencies.get(each.session_id, "")) for each, state in found]


def by_currency(found: Iterable[Account]) -> dict[str, list[Account]]:
    """Return the accounts of each currency, currencies in order."""
    groups: dict[str, list[Account]] = defaultdict(list)
    for each in found:
        groups[each.currency].append(each)
    return dict(sorted(groups.items()))


def total(amounts: Iterable[Decimal]) -> Decimal:
    """Return the exact sum."""
    with exactly():
        return sum(amounts, _ZERO)


def positions_of(session_id: UUID, state: State, currency: str) -> list[Position]:
    """Return what a session's legs hold, in order; one whose symbol has no close that is known has no value."""
    found = []
    for number, (leg, symbol) in enumerate(zip(state.legs, state.symbols, strict=True)):
        if not leg.units:
            continue
        value = state.value_of(number) if symbol in state.closes else None
        gain = None
        if value is not None and leg.entry_price is not None:
            with exactly():
                gain = plain(value - leg.units * leg.entry_price)
        found.append(
            Position(
                session_id=session_id,
                leg=number,
                symbol=symbol,
                currency=currency,
                units=plain(leg.units),
                entry_price=None if leg.entry_price is None else plain(leg.entry_price),
                close=state.closes.get(symbol),
                value=None if value is None else plain(value),
                unrealized=gain,
            )
        )
    return found


def exposure(found: Iterable[Account]) -> Exposure:
    """Return what sessions of one currency hold together; a long and a short of one symbol are both counted."""
    long = short = _ZERO
    by_symbol: dict[str, Decimal] = defaultdict(lambda: _ZERO)
    with exactly():
        for position in (position for each in found for position in each.positions):
            value = exact(position.value or "0")
            long += max(value, _ZERO)
            short += max(-value, _ZERO)
            by_symbol[position.symbol] += value
    return Exposure(long, short, dict(sorted(by_symbol.items())))


def together(curves: Sequence[Curve]) -> tuple[list[str], list[str], list[int]]:
    """Return the sum of some curves at each of their times: times, equity, and how many had begun.

    A session counts from its first close of these on, at its last close since; before that it is not in the sum.
    """
    closes: dict[str, list[tuple[int, Decimal]]] = defaultdict(list)
    for place, curve in enumerate(curves):
        for time, equity in zip(curve.time, curve.equity, strict=True):
            closes[time].append((place, exact(equity)))
    last: dict[int, Decimal] = {}
    times, equities, begun, whole = [], [], [], _ZERO
    for time in sorted(closes):
        with exactly():
            for place, close in closes[time]:
                whole += close - last.get(place, _ZERO)
                last[place] = close
        times.append(time)
        equities.append(plain(whole))
        begun.append(len(last))
    return times, equities, begun
