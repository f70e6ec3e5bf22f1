"""What a broker is to a session: orders in, reports out."""

from __future__ import annotations

from typing import Protocol

from gpt_trader.trading.events import Moment
from gpt_trader.trading.orders import Order, Report


class Broker(Protocol):
    """Takes orders and reports what becomes of them.

    A session calls `auction` and `range` for each moment of its feed. To a venue that exists they say nothing: its
    market moves by itself. A simulated one trades by them what rests with it.
    """

    #: The venue's name: execution ids are unique within it.
    venue: str

    def submit(self, order: Order) -> None:
        """Send an order. One with an id that it has already is the same order: nothing happens."""
        ...

    def cancel(self, order_id: str) -> None:
        """Ask for the end of an order; whether it ends so is reported."""
        ...

    def reports(self) -> list[Report]:
        """Return what happened since the last call.

        A session bears reports that are late, told twice or out of order: fills are known by their execution ids. What
        a session that was interrupted has not committed is to be told again to whoever takes it up.
        """
        ...

    def auction(self, moment: Moment) -> None:
        """Let a bar open."""
        ...

    def range(self, moment: Moment) -> None:
        """Let the rest of the bar pass, up to its close."""
        ...
