"""What became of a session, read from its ledger for those who look at it: the report shows this and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gpt_trader.backtesting.result import Metrics
from gpt_trader.trading.certificate import Certificate
from gpt_trader.trading.events import LedgerEvent
from gpt_trader.trading.record import Record
from gpt_trader.trading.request import PaperTradeRequest
from gpt_trader.trading.state import State

#: What a broker does with an order that a reader should know of; a cancellation is the session's own wish.
_REFUSED: Final = frozenset({"rejected", "expired"})


@dataclass(frozen=True)
class Outcome:
    """A session: what was asked, its ledger's events in order, and what they came to.

    `metrics` is None before the first bar. `provenance` is shown as it is.
    """

    name: str
    request: PaperTradeRequest
    events: Sequence[LedgerEvent]
    state: State
    record: Record
    metrics: Metrics | None
    certificate: Certificate
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Position:
    """What a leg holds: units (below 0: short), the mean price of its entry, its last close; amounts in currency."""

    leg: int
    symbol: str
    units: float
    entry_price: float
    close: float
    value: float
    pnl: float


@dataclass(frozen=True)
class Refusal:
    """An order that was not traded, or an entry that was not even sent, and why. `time` is the bar's under way."""

    time: str | None
    leg: int
    symbol: str
    purpose: str
    what: str
    reason: str


@dataclass(frozen=True)
class Change:
    """Something that happened to the session itself: a command, another status, a split, a bar that came late."""

    time: str | None
    what: str
    reason: str
    place: int  # bars closed before it


def positions(state: State) -> list[Position]:
    """Return what is held, in order of the legs; `pnl` is before the commission of the entry."""
    found = []
    for number, (leg, symbol) in enumerate(zip(state.legs, state.symbols, strict=True)):
        if leg.units and leg.entry_price is not None:
            units, entry, close = float(leg.units), float(leg.entry_price), state.closes.get(symbol)
            close = entry if close is None else close
            found.append(
                Position(number, symbol, units, entry, close, units * close, units * (close - entry))
            )
    return found


def refusals(events: Sequence[LedgerEvent], symbols: Sequence[str]) -> list[Refusal]:
    """Return what the broker refused, and what was left out for want of money; `symbols` are the legs'."""
    found: list[Refusal] = []
    orders: dict[str, Mapping[str, Any]] = {}
    for event in events:
        data = event.data
        if event.type == "order":
            orders[data["id"]] = data
        elif event.type == "skipped":
            leg = data["leg"]
            found.append(Refusal(data["time"], leg, symbols[leg], "entry", "not sent", data["reason"]))
        elif event.type == "ended":
            order = orders.pop(data["id"])
            if data["state"] in _REFUSED:
                words = (order["symbol"], order["purpose"], data["state"], data["reason"])
                found.append(Refusal(data["time"], order["leg"], *words))
    return found


def changes(events: Sequence[LedgerEvent]) -> list[Change]:
    """Return what happened to the session itself, oldest first."""
    found: list[Change] = []
    time: str | None = None
    place = 0
    for event in events:
        data = event.data
        if event.type == "bars":
            time = data["time"]
        elif event.type == "closed":
            place += 1
        elif event.type == "command":
            how = " and close everything" if data.get("flatten") else ""
            found.append(Change(time, f"asked to {data['command']}{how}", f"by {data['by']}", place))
        elif event.type == "finished" or (event.type == "status" and data["status"] != "finishing"):
            found.append(Change(time, str(data["status"]), str(data["reason"]), place))
        elif event.type == "missed":
            why = "it came after a later bar had been traded"
            found.append(Change(time, f"{data['symbol']}: the bar of {data['time']} is missed", why, place))
        elif event.type == "rebased":
            why = f"a split or a dividend: prices so far × {data['factor']:.6g}"
            found.append(Change(time, f"{data['symbol']} rescaled", why, place))
    return found


def explained(certificate: Certificate) -> list[str]:
    """Return in sentences what a certificate says."""
    if certificate.replay_equal:
        said = [
            "Replayed from its recorded inputs (bars, commands, splits), with a new account and a new simulated "
            "broker, the session makes the same events again, one by one, and the same ledger hash."
        ]
    else:
        said = [
            "Replayed from its recorded inputs, the session does not make the events of its ledger again."
        ]
    if (first := certificate.first_missed) is not None:
        bars = "1 bar" if certificate.missed == 1 else f"{certificate.missed} bars"
        said.append(
            f"{bars} came after later ones had been traded and are in neither, the first {first.symbol}'s of "
            f"{first.time}: a backtest of the stored bars has them."
        )
    if certificate.backtest_equal is None:
        return [*said, "It has traded no bar yet: there is nothing to compare with a backtest."]
    if certificate.backtest_equal:
        said.append(
            "A backtest over the same bars has the same fills and, at each close, the same equity, to one part in a "
            "billion."
        )
    else:
        said.append(
            "A backtest over the same bars differs. A pause, a stop that closes everything, a limit that was "
            "reached or a bound on volume is nothing that a backtest knows: from there on the two go their own ways."
        )
    return said
