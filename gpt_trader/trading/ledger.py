"""A session's ledger as it is read: the fold of its events, checked as it goes, and chained by hashes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Protocol

from gpt_trader.bars import Bars
from gpt_trader.errors import GptTraderError
from gpt_trader.trading.events import GENESIS, LedgerEvent, chained
from gpt_trader.trading.history import History
from gpt_trader.trading.orders import Fill, exactly, paid
from gpt_trader.trading.state import State


class Journal(Protocol):
    """Where a ledger's events go: what was appended is on its way, what was flushed is stored."""

    def append(self, events: Sequence[LedgerEvent], ledger: Ledger) -> None:
        """Have events stored, all or none, behind all that was appended before; `ledger` is what they have come to.

        It may return before they are, and raises what has kept earlier ones from it.
        """
        ...

    def flush(self) -> None:
        """Return once all that was appended is stored durably; raise whatever keeps it from that."""
        ...

    def commit(self, events: Sequence[LedgerEvent], ledger: Ledger) -> None:
        """Append and flush: only then is what they intend to be sent."""
        self.append(events, ledger)
        self.flush()


class Ledger:
    """State, history and hash of one session, after `seq` events."""

    def __init__(self, warm: Mapping[str, Bars]) -> None:
        self.state = State()
        self.history = History(warm)
        self.hash = GENESIS
        self.seq = 0
        self._cash = Decimal(0)
        self._units: dict[str, Decimal] = {}

    @classmethod
    def resumed(cls, state: State, history: History, hash_: str, seq: int) -> Ledger:
        """Return a ledger as it was after `seq` events: from a snapshot, whose sums had been checked."""
        ledger = cls({})
        ledger.state, ledger.history, ledger.hash, ledger.seq = state, history, hash_, seq
        ledger._cash = state.cash
        ledger._units = {symbol: state.units_of(symbol) for symbol in set(state.symbols)}
        return ledger

    def take(self, event: LedgerEvent) -> None:
        """Take the next event; raise ValueError for one that does not follow."""
        if event.type == "seen":
            assert self.state.current is not None
            self.history.append(self.state.current)
        elif event.type == "rebased":
            self.history.rebase(event.data["symbol"], event.data["factor"])
        with exactly():
            self.state.evolve(event)
        self.hash = chained(self.hash, event)
        self.seq += 1
        self._tally(event)

    def take_all(self, events: Iterable[LedgerEvent]) -> None:
        """Take events in order."""
        for event in events:
            self.take(event)

    def reconcile(self) -> None:
        """Check that cash and positions are what the fills come to; raise GptTraderError where they are not.

        The sums are kept apart from the state's: capital and each fill's cash, units by symbol.
        """
        state = self.state
        if self._cash != state.cash:
            raise GptTraderError(
                f"the ledger does not add up: cash is {state.cash}, its fills make {self._cash}"
            )
        for symbol in set(state.symbols):
            if state.units_of(symbol) != self._units.get(symbol, Decimal(0)):
                raise GptTraderError(
                    f"the ledger does not add up: {state.units_of(symbol)} of {symbol} are held, its fills make "
                    f"{self._units.get(symbol, 0)}"
                )

    def _tally(self, event: LedgerEvent) -> None:
        if event.type == "opened":
            self._cash = Decimal(event.data["capital"])
        elif event.type == "rebased":
            self._units[event.data["symbol"]] = self.state.units_of(event.data["symbol"])
        elif event.type == "fill":
            fill = Fill.of(event.data)
            with exactly():
                self._cash += paid(fill.units, fill.price, fill.commission) + fill.write_off
                self._units[fill.symbol] = self._units.get(fill.symbol, Decimal(0)) + fill.units


class MemoryJournal(Journal):
    """Keeps the events of a ledger in a list: for replays."""

    def __init__(self) -> None:
        self.events: list[LedgerEvent] = []

    def append(self, events: Sequence[LedgerEvent], ledger: Ledger) -> None:
        """Keep them."""
        del ledger
        self.events += events

    def flush(self) -> None:
        """Do nothing: they are kept."""
