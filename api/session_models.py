"""What the routes of sessions answer with. Money and units are decimal text, exact to the last digit."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from api.models import RunAccepted
from api.sessions import ROOT, is_traded, symbols_of
from gpt_trader.trading.orders import exact, exactly, plain
from gpt_trader.trading.statuses import Status
from storage.session_rows import Session, StoredEvent
from storage.session_views import OrderView

Money = str


class CertificateSummary(BaseModel):
    """The last certificate of a session, in short."""

    verdict: Literal["equal", "diverged"]
    events: int = Field(description="Events of the ledger that it covers, from the first.")
    bars: int
    grown: bool = Field(description="Whether the ledger has had events since.")
    missed: int = Field(
        description="Bars that came after later ones had been traded: the session has not traded them."
    )


class SessionView(BaseModel):
    """One session as its row tells it."""

    session_id: UUID
    name: str
    owner: str
    state: Status
    reason: str = Field(description="Why it is in this state, where somebody or a limit brought it there.")
    feed: str
    traded: bool = Field(description="Whether a run trades it at this moment.")
    run: str | None = Field(description="What holds its lease, or held it last: `run ID`.")
    symbols: list[str]
    request: dict[str, Any]
    snapshot_id: str | None
    capital: Money
    cash: Money
    equity: Money
    profit: Money
    bars: int
    orders: int
    fills: int
    bar: str | None = Field(description="The time of its last bar, UTC.")
    events: int = Field(description="Events in its ledger.")
    ledger_hash: str
    certificate: CertificateSummary | None
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None
    links: dict[str, str]

    @classmethod
    def of(cls, session: Session) -> SessionView:
        """Return what is shown of a session."""
        capital = exact(float(session.request["capital"]))
        here = f"{ROOT}/{session.session_id}"
        parts = ("orders", "fills", "positions", "equity", "certificate")
        return cls(
            session_id=session.session_id,
            name=session.name,
            owner=session.owner,
            state=session.status,
            reason=session.reason,
            feed=session.feed,
            traded=is_traded(session),
            run=session.lease_holder,
            symbols=symbols_of(session.request),
            request=session.request,
            snapshot_id=session.snapshot_id,
            capital=plain(capital),
            cash=session.cash,
            equity=session.equity,
            profit=difference(exact(session.equity), capital),
            bars=session.steps,
            orders=session.orders,
            fills=session.fills,
            bar=session.bar,
            events=session.seq,
            ledger_hash=session.ledger_hash,
            certificate=_summary(session),
            created_at=session.created_at,
            updated_at=session.updated_at,
            ended_at=session.ended_at,
            links={"self": here, **{name: f"{here}/{name}" for name in parts}},
        )


class OrderItem(BaseModel):
    """One order as it was intended, and what became of it."""

    number: int = Field(description="Its event's number in the ledger.")
    id: str
    leg: int
    symbol: str
    side: Literal[1, -1]
    type: str
    purpose: str
    after: str = Field(description="The time of the bar in which it was sent.")
    units: Money | None = Field(description="Signed; null: as much as `budget` buys or sells short.")
    budget: Money | None
    price: Money | None
    state: Literal["sent", "working", "partially_filled", "filled", "cancelled", "rejected", "expired"]
    reason: str | None
    filled: Money = Field(description="Units so far, signed.")
    cancelling: bool = Field(description="Whether a cancellation was sent.")

    @classmethod
    def of(cls, view: OrderView) -> OrderItem:
        """Return what is shown of an order."""
        optional = {name: view.order.get(name) for name in ("units", "budget", "price")}
        same = {
            name: view.order[name] for name in ("id", "leg", "symbol", "side", "type", "purpose", "after")
        }
        return cls(
            number=view.number,
            **same,
            **optional,
            state=view.state,
            reason=view.reason,
            filled=view.filled,
            cancelling=view.cancelling,
        )


class FillItem(BaseModel):
    """One fill."""

    number: int = Field(description="Its event's number in the ledger.")
    order_id: str
    execution_id: str
    time: str
    leg: int
    symbol: str
    units: Money
    price: Money
    reference: Money = Field(description="The price before slippage.")
    commission: Money
    purpose: str
    complete: bool = Field(description="Whether nothing of the order is left.")

    @classmethod
    def of(cls, event: StoredEvent) -> FillItem:
        """Return what is shown of a fill."""
        names = [name for name in cls.model_fields if name != "number"]
        return cls(number=event.seq, **{name: event.data[name] for name in names})


class Position(BaseModel):
    """What a leg holds, valued at its symbol's last close."""

    session_id: UUID
    leg: int
    symbol: str
    currency: str
    units: Money = Field(description="Signed: below 0 is short.")
    entry_price: Money | None
    close: float | None = Field(description="The last close that the session knows.")
    value: Money | None = Field(description="Units at the close; a short's is below 0.")
    unrealized: Money | None = Field(description="Value less what was paid, commissions left out.")


class SessionPositions(BaseModel):
    """A session's account: money and what it holds."""

    session_id: UUID
    state: Status
    time: str | None
    currency: str
    cash: Money
    equity: Money
    items: list[Position]


class EquityColumns(BaseModel):
    """A session's closes, a column each; money as decimal text."""

    session_id: UUID
    number: list[int] = Field(description="Each close's event in the ledger.")
    time: list[str]
    equity: list[Money]
    cash: list[Money]
    next_after: int | None = Field(description="Ask with it for what follows; null: this was the last.")


class CertificateView(BaseModel):
    """The last certificate that was made of a session, and what it covers."""

    session_id: UUID
    certificate: dict[str, Any]
    events: int = Field(description="Events of the ledger that it covers, from the first.")
    bars: int = Field(description="Bars of these.")
    events_now: int
    bars_now: int
    grown: bool = Field(description="Whether the ledger has had events since: those are not certified.")


class CommandAccepted(BaseModel):
    """It is written down: the session does it between two bars."""

    session_id: UUID
    command_id: int
    command: Literal["pause", "resume", "stop"]
    flatten: bool
    run: RunAccepted | None = Field(
        description="The run that was started for it, as nobody traded the session; null: one is trading it."
    )


def difference(now: Decimal, before: Decimal) -> Money:
    """Return how much more it is, exactly."""
    with exactly():
        return plain(now - before)


def certificate_of(session: Session) -> CertificateView | None:
    """Return what is shown of a session's certificate; None where there is none."""
    if session.certificate is None:
        return None
    return CertificateView(
        session_id=session.session_id,
        certificate=session.certificate,
        events=session.certified,
        bars=session.certificate["bars"],
        events_now=session.seq,
        bars_now=session.steps,
        grown=session.seq > session.certified,
    )


def _summary(session: Session) -> CertificateSummary | None:
    found = certificate_of(session)
    if found is None:
        return None
    return CertificateSummary(
        verdict=found.certificate["verdict"],
        events=found.events,
        bars=found.bars,
        grown=found.grown,
        missed=found.certificate.get("missed", 0),  # certificates made before there was such a count
    )
