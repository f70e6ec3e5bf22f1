"""What is shown of a session's ledger without folding all of it: its account now, its orders, fills and curve.

Nothing here needs a strategy or a bar's history: the account is the last snapshot's, with the fills and changes of
scale since; each answer is of one state of the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, select, text

from gpt_trader.trading.events import LedgerEvent
from gpt_trader.trading.orders import exact, exactly, plain
from gpt_trader.trading.record import SessionTrade, record
from gpt_trader.trading.state import State
from storage.session_rows import Session, no_session
from storage.session_stream import Account, standing
from storage.sessions import SessionStore
from storage.tables import LEDGER_EVENTS, SESSION_BARS, SESSION_SNAPSHOTS, SESSIONS

#: What changes what is held.
_HOLDING: Final = ("opened", "fill", "rebased")

#: What a curve and round trips are read from.
_RECORD: Final = ("closed", "fill", "rebased")

#: Moments that are fetched at a time to find a symbol's last close.
_MOMENTS: Final = 20

_EVENTS: Final = LEDGER_EVENTS.c


@dataclass(frozen=True)
class OrderView:
    """One order; `number` is its event's, `filled` signed units as text.

    `state` is sent, working, partially_filled, filled, cancelled, rejected or expired.
    """

    number: int
    order: dict[str, Any]
    state: str
    reason: str | None
    filled: str
    cancelling: bool


@dataclass(frozen=True)
class Curve:
    """Closes of a session, a column each; `number` is each one's event."""

    number: list[int]
    time: list[str]
    equity: list[str]
    cash: list[str]


class SessionViews:
    """Reads sessions for those who look at them. Safe among threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._store = SessionStore(engine)

    def account(self, session_id: UUID) -> State:
        """Return a session's account now: status, cash, equity, legs, and the last closes of what it holds.

        Orders are not in it. Raises NotFound if there is no such session.
        """
        with self._reading() as connection:
            row = connection.execute(
                select(*_STANDING).where(SESSIONS.c.session_id == session_id)
            ).one_or_none()
            if row is None:
                raise no_session(session_id)
            return _accounts(connection, [row])[session_id]

    def accounts(self, owner: str | None) -> list[tuple[Session, State]]:
        """Return an owner's open sessions (None: everybody's), newest first, each with its account as `account` has it.

        However many there are: a page of them costs three queries, and one for each that holds something.
        """
        found: list[tuple[Session, State]] = []
        for page in self._store.open_pages(owner):
            with self._reading() as connection:
                wanted = select(*_STANDING).where(
                    SESSIONS.c.session_id.in_([each.session_id for each in page])
                )
                states = _accounts(connection, connection.execute(wanted).all())
            found += [(each, states[each.session_id]) for each in page]
        return found

    def standings(self, owner: str | None) -> list[dict[str, Any]]:
        """Return where an owner's open sessions stand (None: everybody's), as the channel of portfolios tells it."""
        return [standing(each.session_id, Account.of(state)) for each, state in self.accounts(owner)]

    def open_sessions(self, owner: str | None) -> list[Session]:
        """Return all open sessions of an owner (None: everybody's), newest first."""
        return [each for page in self._store.open_pages(owner) for each in page]

    def currencies(self, sessions: Iterable[UUID]) -> dict[UUID, str]:
        """Return what each session's account is in: the currency of its instruments, joined by + if they differ."""
        wanted = select(SESSION_BARS.c.session_id, SESSION_BARS.c.instrument).where(
            SESSION_BARS.c.session_id.in_(list(sessions))
        )
        found: dict[UUID, set[str]] = {}
        with self._engine.connect() as connection:
            for session_id, instrument in connection.execute(wanted):
                found.setdefault(session_id, set()).add(instrument["currency"])
        return {session_id: "+".join(sorted(names)) for session_id, names in found.items()}

    def orders(self, session_id: UUID, *, before: int = 0, limit: int = 100) -> tuple[OrderView, ...]:
        """Return up to `limit` orders, newest first, those before event `before` (0: the newest)."""
        with self._reading() as connection:
            wanted = select(_EVENTS.seq, _EVENTS.data).where(
                _EVENTS.session_id == session_id, _EVENTS.type == "order"
            )
            if before:
                wanted = wanted.where(_EVENTS.seq < before)
            rows = connection.execute(wanted.order_by(_EVENTS.seq.desc()).limit(limit)).all()
            if not rows:
                return ()
            ids = {row.data["id"]: row for row in rows}
            values = {"id": session_id, "after": rows[-1].seq, "orders": list(ids)}
            told: dict[str, list[Any]] = {name: [] for name in ids}
            for each in connection.execute(_TOLD, values):
                told[each.order_id].append(each)
        return tuple(_order(row.seq, row.data, told[row.data["id"]]) for row in rows)

    def curve(self, session_id: UUID, *, after: int = 0, limit: int = 1000) -> Curve:
        """Return up to `limit` closes behind event `after`, oldest first."""
        with self._engine.connect() as connection:
            rows = connection.execute(_CURVE, {"id": session_id, "after": after, "limit": limit}).all()
        return Curve(*([row[place] for row in rows] for place in range(4)))

    def missed(self, session_id: UUID) -> set[tuple[str, str]]:
        """Return symbol and time of every bar that is written down as having come too late."""
        with self._engine.connect() as connection:
            return {
                (row.data["symbol"], row.data["time"])
                for row in _rows(connection, session_id, ("missed",), 0)
            }

    def last_closes(self, session_id: UUID, limit: int) -> Curve:
        """Return the last `limit` closes, oldest first."""
        with self._engine.connect() as connection:
            rows = connection.execute(_NEWEST, {"id": session_id, "limit": limit}).all()[::-1]
        return Curve(*([row[place] for row in rows] for place in range(4)))

    def trades(self, session_id: UUID) -> tuple[SessionTrade, ...]:
        """Return a session's round trips; what is held is valued at the last close."""
        closes = self.account(session_id).closes
        with self._reading() as connection:
            rows = _rows(connection, session_id, _RECORD, 0)
            return record((LedgerEvent(row.type, row.data) for row in rows), closes).trades

    def _reading(self) -> Connection:
        """Return a connection to which the database does not change between two queries."""
        return self._engine.connect().execution_options(isolation_level="REPEATABLE READ")


_STANDING: Final = tuple(
    SESSIONS.c[name]
    for name in ("session_id", "status", "reason", "bar", "steps", "cash", "equity", "orders", "fills")
)

#: What changed what some sessions hold since their snapshots.
_SINCE: Final = text(
    """
    SELECT e.session_id, e.seq, e.type, e.data FROM ledger_events AS e
    LEFT JOIN session_snapshots AS s ON s.session_id = e.session_id
    WHERE e.session_id = ANY(:ids) AND e.seq > COALESCE(s.seq, 0) AND e.type = ANY(:types)
    ORDER BY e.session_id, e.seq
    """
)

_TOLD: Final = text(
    """
    SELECT type, data, COALESCE(data->>'order_id', data->>'id') AS order_id FROM ledger_events
    WHERE session_id = :id AND seq > :after AND type IN ('accepted', 'cancel', 'ended', 'fill')
        AND COALESCE(data->>'order_id', data->>'id') = ANY(:orders)
    ORDER BY seq
    """
)

_CURVE: Final = text(
    """
    SELECT seq, data->>'time', data->>'equity', data->>'cash' FROM ledger_events
    WHERE session_id = :id AND type = 'closed' AND seq > :after ORDER BY seq LIMIT :limit
    """
)

_NEWEST: Final = text(
    """
    SELECT seq, data->>'time', data->>'equity', data->>'cash' FROM ledger_events
    WHERE session_id = :id AND type = 'closed' ORDER BY seq DESC LIMIT :limit
    """
)


def _rows(connection: Connection, session_id: UUID, types: Sequence[str], after: int) -> Any:  # noqa: ANN401 - rows
    wanted = (
        select(_EVENTS.seq, _EVENTS.type, _EVENTS.data)
        .where(_EVENTS.session_id == session_id, _EVENTS.seq > after, _EVENTS.type.in_(types))
        .order_by(_EVENTS.seq)
    )
    return connection.execute(wanted)


def _accounts(connection: Connection, rows: Sequence[Row[Any]]) -> dict[UUID, State]:
    """Return the accounts of some sessions, of their rows: the last snapshot's, with what has changed it since."""
    ids = [row.session_id for row in rows]
    kept = {
        each.session_id: each
        for each in connection.execute(
            select(SESSION_SNAPSHOTS.c.session_id, SESSION_SNAPSHOTS.c.seq, SESSION_SNAPSHOTS.c.state).where(
                SESSION_SNAPSHOTS.c.session_id.in_(ids)
            )
        )
    }
    since: dict[UUID, list[Row[Any]]] = {each: [] for each in ids}
    for event in connection.execute(_SINCE, {"ids": ids, "types": list(_HOLDING)}):
        since[event.session_id].append(event)
    return {
        row.session_id: _account(connection, row, kept.get(row.session_id), since[row.session_id])
        for row in rows
    }


def _account(
    connection: Connection, row: Row[Any], kept: Row[Any] | None, since: Sequence[Row[Any]]
) -> State:
    state, begun = (State(), 0) if kept is None else (State.of(kept.state), kept.seq)
    state.working.clear()
    scaled: list[tuple[int, str, float]] = []
    for each in since:
        state.evolve(LedgerEvent(each.type, each.data))
        if each.type == "rebased":
            scaled.append((each.seq, each.data["symbol"], each.data["factor"]))
    held = {symbol for symbol in state.symbols if state.units_of(symbol)}
    state.closes |= _last_closes(connection, row.session_id, begun, held, scaled)
    state.status, state.reason, state.time, state.steps = row.status, row.reason, row.bar, row.steps
    state.cash, state.equity = exact(row.cash), exact(row.equity)
    state.session_id, state.orders, state.fills = str(row.session_id), row.orders, row.fills
    state.current = None
    return state


def _last_closes(
    connection: Connection, session_id: UUID, after: int, held: set[str], scaled: list[tuple[int, str, float]]
) -> dict[str, float]:
    """Return the last known close of each symbol that is held, of the bars behind event `after`."""
    if not held:
        return {}
    of = (_EVENTS.session_id == session_id, _EVENTS.seq > after)
    seen = select(_EVENTS.seq).where(*of, _EVENTS.type == "seen").order_by(_EVENTS.seq.desc()).limit(1)
    bars = select(_EVENTS.seq, _EVENTS.data).where(
        *of, _EVENTS.type == "bars", _EVENTS.seq < seen.scalar_subquery()
    )
    found: dict[str, float] = {}
    newest_first = bars.order_by(_EVENTS.seq.desc()).execution_options(yield_per=_MOMENTS)
    with closing(connection.execute(newest_first)) as rows:
        for row in rows:
            for symbol in (held - found.keys()) & row.data["bars"].keys():
                close = row.data["bars"][symbol][3]
                for number, name, factor in scaled:
                    close *= factor if name == symbol and number > row.seq else 1.0
                found[symbol] = close
            if len(found) == len(held):
                break
    return found


def _order(number: int, order: dict[str, Any], told: Sequence[Any]) -> OrderView:
    filled, state, reason, cancelling = exact("0"), "sent", None, False
    for each in told:
        if each.type == "accepted" and state == "sent":
            state = "working"
        elif each.type == "cancel":
            cancelling = True
        elif each.type == "fill":
            with exactly():
                filled += exact(each.data["units"])
            state = "filled" if each.data["complete"] else "partially_filled"
        elif each.type == "ended":
            state, reason = each.data["state"], each.data["reason"]
    return OrderView(number, order, state, reason, plain(filled), cancelling)
