"""What sessions tell the streams: fills and orders as they come, and where each portfolio stands.

A session's commit does not wait for this: a thread follows behind it, usually within milliseconds; what is committed
quickly, as in a replay, is told together, so that telling takes little from the trading. What was committed and not
told when a process died is told by the next writer of the session, from the ledger; keys make sure that nothing is told
twice.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Sequence
from contextlib import closing
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy.exc import InterfaceError, OperationalError

from gpt_trader.trading.events import LedgerEvent
from gpt_trader.trading.ledger import Journal, Ledger
from gpt_trader.trading.orders import exactly, plain
from gpt_trader.trading.state import State
from gpt_trader.trading.statuses import FINAL
from storage.events import EventLog, NewEvent
from storage.market_stream import SYSTEM_CHANNEL
from storage.session_rows import ledger_event
from storage.sessions import SessionStore

if TYPE_CHECKING:
    from storage.session_ledger import SessionJournal

logger = logging.getLogger("gpt_trader.sessions")

#: Event types that the channel of trades tells.
TRADES: Final = frozenset({"order", "cancel", "ended", "fill", "status", "finished"})

#: Event types that the channel of the whole engine tells as `session.begun`, `.status`, `.halted` or `.ended`.
_STATES: Final = frozenset({"opened", "status", "finished"})

_OUTSIDE_A_NAME: Final = re.compile(r"[^A-Za-z0-9_:-]")
#: What is told of at all.
_TOLD: Final = TRADES | _STATES

_BATCH: Final = 500
#: Behind a publication the next waits so long for more to be told at once: each costs as much as some bars' trading.
#: What is committed is to be told within 50 ms, and a publication takes some milliseconds itself.
_WINDOW_SECONDS: Final = 0.01
_RETRY_SECONDS: Final = 1.0


def owner_part(owner: str) -> str:
    """Return an owner's id as one part of a channel's name; what a name cannot hold is escaped."""
    return _OUTSIDE_A_NAME.sub(lambda found: f":{ord(found[0]):02X}", owner)


def trades_channel(owner: str) -> str:
    """Return the event log's channel of an owner's orders, fills and sessions' states."""
    return f"trades.live.{owner_part(owner)}"


def portfolio_channel(owner: str) -> str:
    """Return the event log's channel of an owner's portfolios: cash, equity and positions at each close."""
    return f"portfolio.updates.{owner_part(owner)}"


class Account(NamedTuple):
    """What a standing is told from: taken at a commit, as the session's state goes on meanwhile."""

    status: str
    time: str | None
    cash: Decimal
    equity: Decimal
    steps: int
    symbols: Sequence[str]
    units: tuple[Decimal, ...]

    @classmethod
    def of(cls, state: State) -> Account:
        """Return a session's account now."""
        units = tuple([leg.units for leg in state.legs])
        return cls(state.status, state.time, state.cash, state.equity, state.steps, state.symbols, units)


def standing(session_id: UUID, account: Account) -> dict[str, Any]:
    """Return where a session's portfolio stands, JSON-ready; money and units are decimal text."""
    held: dict[str, Decimal] = {}
    with exactly():
        for symbol, units in zip(account.symbols, account.units, strict=True):
            held[symbol] = held.get(symbol, Decimal(0)) + units
    return {
        "schema_version": 1,
        "session_id": str(session_id),
        "status": account.status,
        "time": account.time,
        "cash": plain(account.cash),
        "equity": plain(account.equity),
        "positions": {symbol: plain(units) for symbol, units in held.items() if units},
        "steps": account.steps,
    }


class Publisher:
    """Tells the event log what one session commits. Start it, hand it each commit, close it."""

    def __init__(self, store: SessionStore, log: EventLog, session_id: UUID, owner: str) -> None:
        self._store, self._log = store, log
        self._session_id, self._owner = session_id, owner
        self._waiting: list[tuple[int, LedgerEvent]] = []
        # Numbers of events: told up to there, known in the session's row to be, committed up to there.
        self._told = self._remembered = self._last = 0
        self._standing: Account | None = None
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="session stream", daemon=True)

    def start(self, told: int, seq: int) -> None:
        """Begin with what the ledger has behind event `told`, up to `seq`."""
        self._told, self._remembered, self._last = told, told, seq
        while told < seq:
            page = self._store.events(self._session_id, types=sorted(_TOLD), after=told, limit=_BATCH)
            self._waiting += [(each.seq, ledger_event(each)) for each in page]
            told = page[-1].seq if len(page) == _BATCH else seq
        self._thread.start()
        self._wake.set()

    def put(self, first: int, events: Sequence[LedgerEvent], account: Account) -> None:
        """Take events that were just committed as numbers `first` and up, and what they have come to."""
        with self._lock:
            self._waiting += [each for each in enumerate(events, first) if each[1].type in _TOLD]
            self._last = first + len(events) - 1
            self._standing = account
        self._wake.set()

    def close(self, seconds: float = 10.0) -> None:
        """Tell what is left, and end; what cannot be told in that time is left to the session's next writer."""
        self._closing.set()
        self._wake.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            closing = self._closing.is_set()
            while self._told < self._last or self._standing is not None:
                try:
                    self._publish()
                except (OperationalError, InterfaceError) as error:
                    logger.warning(
                        "session %s: the stream could not be told: %s", self._session_id, type(error).__name__
                    )
                    if self._closing.wait(_RETRY_SECONDS):
                        return
                else:
                    self._closing.wait(_WINDOW_SECONDS)
            if closing:
                self._remember()
                return

    def _publish(self) -> None:
        with self._lock:
            batch, standing_ = self._waiting[:_BATCH], self._standing
            whole = len(batch) == len(self._waiting)
            told = self._last if whole else batch[-1][0]
        trades = [
            NewEvent(event.type, {**event.data, "session_id": str(self._session_id)}, key=self._key(number))
            for number, event in batch
            if event.type in TRADES
        ]
        self._log.append_many(trades_channel(self._owner), trades)
        states = [self._state(number, event) for number, event in batch if event.type in _STATES]
        self._log.append_many(SYSTEM_CHANNEL, states)
        if standing_ is not None and whole:
            told_ = NewEvent("standing", standing(self._session_id, standing_))
            self._log.append_many(portfolio_channel(self._owner), [told_])
        if batch:  # what is told of by nothing needs not be known to be told, but at the end
            self._store.published(self._session_id, told)
            self._remembered = told
        with self._lock:
            del self._waiting[: len(batch)]
            self._told = told
            if self._standing is standing_ and whole:
                self._standing = None

    def _remember(self) -> None:
        """Write down how far all is told, so that the next writer looks for nothing."""
        if self._told > self._remembered:
            try:
                self._store.published(self._session_id, self._told)
            except (OperationalError, InterfaceError) as error:
                logger.warning(
                    "session %s: what was told is looked for again: %s",
                    self._session_id,
                    type(error).__name__,
                )

    def _state(self, number: int, event: LedgerEvent) -> NewEvent:
        """Return a change of the session's state as everybody may know it: no owner, no reason, no amount."""
        status = event.data.get("status", "active")
        kind = "session.begun" if event.type == "opened" else "session.status"
        if status in FINAL:
            kind = "session.halted" if status == "halted" else "session.ended"
        data = {"schema_version": 1, "session_id": str(self._session_id), "status": status}
        return NewEvent(kind, data, key=f"session:{self._key(number)}")

    def _key(self, number: int) -> str:
        return f"{self._session_id}:{number}"


class PublishingJournal(Journal):
    """A journal that tells a publisher what it has stored."""

    def __init__(self, journal: SessionJournal, publisher: Publisher) -> None:
        self._journal, self._publisher = journal, publisher
        self._coming: tuple[int, Sequence[LedgerEvent], Account] | None = None

    def append(self, events: Sequence[LedgerEvent], ledger: Ledger) -> None:
        """Have events stored; those before are, and are told."""
        self.flush()
        first = self._journal.seq + 1
        self._journal.append(events, ledger)
        self._coming = first, events, Account.of(ledger.state)

    def flush(self) -> None:
        """Wait until all is stored, then have it told."""
        coming, self._coming = self._coming, None
        self._journal.flush()
        if coming is not None:
            self._publisher.put(*coming)

    def close(self) -> None:
        """Flush, and close the journal."""
        with closing(self._journal):
            self.flush()
