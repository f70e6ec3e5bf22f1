"""How much money an entry gets, and what a ruin is closed at: for sessions, and for the backtest that checks them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gpt_trader.trading.request import PaperTradeRequest

#: What is free by less than this fraction of the equity is rounding.
_ROUNDING: Final = 1e-9


@dataclass(frozen=True)
class Room:
    """What an account has and what stands in it already, in currency; gross: long and short alike.

    `gross` and `of_symbol` count positions at the last closes and entries that are under way by their budgets, but
    for the leg's own.
    """

    equity: float
    gross: float
    of_symbol: float


def budget(request: PaperTradeRequest, leg: int, wanted: float, room: Room) -> float:
    """Return the money for a leg's entry, its commission included; 0 where there is none.

    |wanted| · size · weight · equity, but no more than what is free: an account never holds more than its equity
    (long and short added up), nor more than the limits of its risk. With one leg this is the backtest's
    |wanted| · size · cash.
    """
    weight = request.legs[leg].weight
    assert weight is not None
    limits = request.risk
    free = room.equity - room.gross
    if limits.exposure is not None:
        free = min(free, limits.exposure * room.equity - room.gross)
    if limits.position is not None:
        free = min(free, limits.position * room.equity - room.of_symbol)
    money = min(abs(wanted) * request.size * (weight * room.equity), free)
    return money if money > _ROUNDING * room.equity else 0.0


def ruin_prices(cash: float, held: Sequence[tuple[float, float]]) -> list[float]:
    """Return the prices at which an account that has lost everything is closed, so that nothing is left.

    `held` are signed units and the market's prices. One position, the last that can, has the price that takes what is
    missing; the loss beyond the account is the broker's. Where none can, all have the market's.
    """
    for last in reversed(range(len(held))):
        rest = cash + sum(units * price for place, (units, price) in enumerate(held) if place != last)
        price = -rest / held[last][0]
        if price > 0.0:
            return [price if place == last else each for place, (_, each) in enumerate(held)]
    return [price for _, price in held]
