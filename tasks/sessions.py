"""Trading sessions as runs hold them: opened, leased, folded, fed, ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from sqlalchemy.exc import InterfaceError, OperationalError

from gpt_trader.alerts import Alert, Standing, of_standing
from gpt_trader.bars import Bars
from gpt_trader.errors import Conflict
from gpt_trader.simulation import kernel
from gpt_trader.strategies import registry, user
from gpt_trader.strategies.base import Strategy
from gpt_trader.trading.desk import Desk
from gpt_trader.trading.events import LedgerEvent
from gpt_trader.trading.orders import exact, plain
from gpt_trader.trading.paper_broker import PaperBroker
from gpt_trader.trading.request import PaperTradeRequest
from gpt_trader.trading.trader import Trader
from gpt_trader.validation import validated
from storage.session_ledger import SessionJournal, load
from storage.session_rows import Lease, Session
from storage.session_stream import Publisher, PublishingJournal
from storage.sessions import LEASE_SECONDS, SessionStore
from tasks.provenance import code_version
from tasks.run import CurrentRun
from tasks.stores import stores

if TYPE_CHECKING:
    from tasks.feeds import Feed

#: Told how far a session is: stage, bars done, bars in all, a few words.
Tell = Callable[[str, int, int, str], None]

#: Progress is told so often at most.
TELL_SECONDS: Final = 0.5

#: A step that takes longer is stored, and told, before the next begins.
QUICK_SECONDS: Final = 0.01

#: How often commands are looked for while bars come quickly.
COMMAND_SECONDS: Final = 0.25


@dataclass
class Running:
    """A session whose lease this run holds."""

    session: Session
    request: PaperTradeRequest
    strategies: list[Strategy]
    trader: Trader
    broker: PaperBroker
    lease: Lease
    #: Set when the lease is lost: nothing more is to be traded.
    lost: threading.Event
    looked: float = 0.0

    def obey(self, *, now: bool = False) -> None:
        """Carry out what was asked of the session since the last look (at most every `COMMAND_SECONDS`, or `now`)."""
        if self.lost.is_set():
            raise Conflict(f"session {self.session.session_id} is traded by somebody else: this run ends")
        if not now and time.monotonic() - self.looked < COMMAND_SECONDS:
            return
        self.looked = time.monotonic()
        for command in sessions().commands(self.session.session_id):
            if self.trader.state.over:  # it came too late: what has ended obeys no more
                return
            self.trader.command(
                command.command, command.by, flatten=command.flatten, key=f"command:{command.id}"
            )
            get_run_logger().info(
                "%s, asked by %s: %s", command.command, command.by, self.trader.state.status
            )


def sessions() -> SessionStore:
    """Return the sessions of this process's engine."""
    return SessionStore(stores().engine)


def strategies_of(request: PaperTradeRequest) -> list[Strategy]:
    """Return a strategy for each leg; raise Refused for a name or a parameter that is wrong."""
    found = []
    for leg in request.legs:
        strategy = user.resolve(leg.strategy, stores().home.strategies)
        found.append(registry.build(strategy, leg.params, request.direction))
    return found


def request_of(session: Session) -> PaperTradeRequest:
    """Return what a session was asked."""
    return validated(PaperTradeRequest, session.request)


@task(name="open session", cache_policy=NO_CACHE)
def open_session(
    run: CurrentRun, request: PaperTradeRequest, warm: dict[str, Bars], snapshot_id: str | None
) -> Session:
    """Write the run's session down; one that it has opened before stays as it is."""
    default = ", ".join(f"{leg.strategy} on {leg.symbol}" for leg in request.legs[:3])
    sessions().create(
        run.id,
        run.owner,
        run.slice,
        request.model_dump(mode="json"),
        warm,
        name=request.name or default + (", …" if len(request.legs) > 3 else ""),
        capital=plain(exact(float(request.capital))),
        snapshot_id=snapshot_id,
        code_version=code_version(),
    )
    return sessions().get(run.id)


@contextmanager
def trading(session: Session, holder: str) -> Iterator[Running]:
    """Hold a session's lease, with its ledger folded and its broker as it was; an interrupted bar is finished.

    Raises Conflict where somebody else trades it.
    """
    store, engine = sessions(), stores().engine
    lease = store.lease(session.session_id, holder)
    lost = threading.Event()
    with _renewing(store, lease, lost):
        session = store.get(session.session_id)
        ledger, snapshot_at = load(engine, session.session_id)
        request = request_of(session)
        chosen = strategies_of(request)
        journal = SessionJournal(engine, lease, ledger.seq, snapshot_at=snapshot_at)
        publisher = Publisher(store, stores().events, session.session_id, session.owner)
        broker = PaperBroker(kernel.costs_of(request), request.participation)
        telling = PublishingJournal(journal, publisher)
        trader = Trader(Desk(request, chosen), ledger, broker, telling)
        publisher.start(session.told, ledger.seq)
        with closing(publisher), closing(telling):
            if ledger.seq == 0:
                trader.open(_opening(session))
            broker.restore(ledger.state)
            trader.resume()
            yield Running(session, request, chosen, trader, broker, lease, lost)
    store.release(lease)


@task(name="trade", cache_policy=NO_CACHE)
def trade(running: Running, feed: Feed, tell: Tell | None) -> int:
    """Trade what a feed has, until it or the session ends; return how many bars that were.

    What is asked of the session meanwhile is obeyed between two bars. `tell` hears how far it is. While bars come
    quickly one is worked on as the last is being stored; before anything is waited for, and told, it is.
    """
    trader, done, told = running.trader, 0, 0.0
    running.obey(now=True)
    with closing(feed.moments()) as moments:
        for moment in moments:
            for _ in feed.wait(moment) if moment is not None else ():
                trader.flush()
                running.obey()
                if trader.state.over:
                    break
            running.obey()
            if trader.state.over:
                break
            if moment is None:
                trader.flush()
                continue
            began = time.monotonic()
            trader.step(moment)
            done += 1
            if time.monotonic() - began > QUICK_SECONDS:
                trader.flush()
            if tell is not None and time.monotonic() - told >= TELL_SECONDS:
                told = time.monotonic()
                trader.flush()
                equity = f"{float(trader.state.equity):,.2f}"
                tell("trade", trader.state.steps, feed.total, f"{moment.time[:16]}, equity {equity}")
                watch(running)
    trader.flush()
    running.obey(now=True)
    watch(running)
    return done


def watch(running: Running) -> None:
    """Raise the alerts that the session's equity and status ask for."""
    state, rules = running.trader.state, stores().settings.alerts
    standing = Standing(state.equity, state.peak, state.day_began, state.day)
    now = replace(running.session, status=state.status, reason=state.reason)
    raise_alerts(of_standing(now, rules, standing))


def raise_alerts(alerts: Iterable[Alert]) -> list[int]:
    """Raise alerts and return their ids; one that is open already is counted, and sent again after a while."""
    kept, repeat = stores().alerts, stores().settings.alerts.repeat_seconds
    return [kept.put(alert, repeat) for alert in alerts]


@contextmanager
def _renewing(store: SessionStore, lease: Lease, lost: threading.Event) -> Iterator[None]:
    """Renew a lease inside the block; `lost` is set when that fails for good."""
    ended = threading.Event()

    def renew() -> None:
        last = time.monotonic()
        while not ended.wait(LEASE_SECONDS / 3):
            try:
                store.renew(lease)
                last = time.monotonic()
            except Conflict:
                lost.set()
                return
            except (OperationalError, InterfaceError):  # no answer: others may have the lease by now
                if time.monotonic() - last > LEASE_SECONDS:
                    lost.set()

    thread = threading.Thread(target=renew, name="session lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _opening(session: Session) -> LedgerEvent:
    data = {
        "schema_version": 1,
        "session_id": str(session.session_id),
        "capital": session.cash,
        "request": session.request,
    }
    return LedgerEvent("opened", data, key="opened")
