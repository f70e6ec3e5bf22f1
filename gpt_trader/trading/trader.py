"""Runs a session: takes moments, lets the desk decide, commits, and only then sends.

    moment ─► bars ─► auction ─► fills ─► orders ─┐ commit, send ─► fills … ─► range ─► fills
           ─► seen ─► targets ─► closed ─► orders ─┴ commit, send ─► append

Whatever is sent was committed before. What a step ends with sends nothing: it is on its way to the disk while the next
moment is worked on, and is there before anything of that is (`Trader.flush` waits for it). After a crash the ledger is
folded, orders that were committed and not accepted are sent again under their own ids, and a moment that was under way
is taken up where it was: the same events follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from gpt_trader.crash_points import crash_point
from gpt_trader.errors import Conflict
from gpt_trader.trading.broker import Broker
from gpt_trader.trading.desk import Desk, Phase, status
from gpt_trader.trading.events import LedgerEvent, Moment
from gpt_trader.trading.ledger import Journal, Ledger
from gpt_trader.trading.orders import Accepted, Ended, Fill, Order, Report, exactly, plain
from gpt_trader.trading.state import Working
from gpt_trader.trading.statuses import FINAL, Status


class Trader:
    """One session under way. What raises in its journal leaves it unusable: fold the ledger anew."""

    def __init__(self, desk: Desk, ledger: Ledger, broker: Broker, journal: Journal) -> None:
        self._desk = desk
        self._broker = broker
        self._journal = journal
        self._pending: list[LedgerEvent] = []
        self.ledger = ledger
        self.state = ledger.state

    def open(self, opening: LedgerEvent) -> None:
        """Begin the ledger."""
        self._emit(opening)
        self._commit()

    def resume(self) -> None:
        """Go on after an interruption: what was committed and not accepted is sent, a moment under way is finished.

        The broker has the account as the ledger tells it (`PaperBroker.restore`).
        """
        current = self.state.current
        with exactly():
            if current is not None:
                self._broker.auction(current)
                self._hear()
            for _, send in sorted(self._unanswered(), key=lambda each: each[0]):
                send()
            if current is not None:
                self._pass(current)
            else:
                self._settle("close")
            self._commit()

    def step(self, moment: Moment) -> None:
        """Trade one moment, from its open to what is decided at its close.

        Its last events may not be stored yet when it returns: nobody is to be told of them before `flush`.
        """
        self._require_open()
        with exactly():
            self._emit(moment.event())
            self._broker.auction(moment)
            self._pass(moment)
            self._append()

    def flush(self) -> None:
        """Return once all that has happened is stored; raise whatever keeps it from that."""
        self._journal.flush()

    def rebase(self, symbol: str, factor: float) -> None:
        """Take a symbol's prices so far as scaled by the factor: what is held keeps its value."""
        self._require_open()
        self._emit(LedgerEvent("rebased", {"symbol": symbol, "factor": factor}))
        self._commit()

    def missed(self, symbol: str, times: Iterable[str]) -> None:
        """Write down bars of a symbol that came after a later moment had been traded: they are not traded."""
        self._require_open()
        for time in times:
            data = {"symbol": symbol, "time": time, "after": self.state.time}
            self._emit(LedgerEvent("missed", data, key=f"missed:{symbol}:{time}"))
        self._commit()

    def command(self, name: str, by: str, *, flatten: bool = False, key: str | None = None) -> None:
        """Pause, resume or stop; what contradicts the session's status changes nothing.

        `key`: a command is in the ledger under it once at most.
        """
        self._require_open()
        now = self.state.status
        change: LedgerEvent | None = None
        if name == "pause" and now in ("active", "reducing"):
            change = status("paused", f"paused by {by}")
        elif name == "resume" and now == "paused":
            change = status("active", f"resumed by {by}")
        elif name == "stop" and flatten:
            change = status("closing", f"stopped by {by}", then="stopped")
        data = {"command": name, "by": by, "flatten": flatten, "time": self.state.time}
        with exactly():
            self._emit(LedgerEvent("command", data, key=key))
            if change is not None:
                self._emit(change)
            if name == "stop" and not flatten:
                self.finish("stopped", f"stopped by {by}")
                return
            self._settle("close")
            self._commit()

    def finish(self, how: Status, why: str) -> None:
        """End the session: what still works is cancelled, what is held is left as it is."""
        with exactly():
            self._emit(status("finishing", why, then=how))
            self._settle("close")
            self._commit()

    def _require_open(self) -> None:
        if self.state.over:
            raise Conflict(f"the session is {self.state.status}: it takes no more bars and no commands")

    def _unanswered(self) -> Iterator[tuple[int, Callable[[], None]]]:
        """Yield what was committed and not answered, with its place in the order in which it is sent."""
        for working in self.state.working.values():
            if not working.accepted:
                yield working.sent, partial(self._broker.submit, working.order)
            if working.cancelling:
                yield working.cancelling, partial(self._broker.cancel, working.order.id)

    def _pass(self, moment: Moment) -> None:
        """Go through a moment whose auction has been called."""
        desk, state = self._desk, self.state
        self._settle("open")
        self._settle("open", moment.bars)
        self._broker.range(moment)
        self._settle("open", moment.bars)
        crash_point("session.before_close")
        self._emit(LedgerEvent("seen", {"time": moment.time}))
        if state.status not in FINAL:
            self._emit_all(list(desk.decide(state, self.ledger.history)))
        cash, equity = plain(state.cash), plain(state.worth())
        self._emit(LedgerEvent("closed", {"time": moment.time, "cash": cash, "equity": equity}))
        self._emit_all(list(desk.watch(state)))
        self._settle("close")

    def _settle(self, phase: Phase, opened: Iterable[str] = ()) -> None:
        """Hear reports and act on them until nothing more is to be done now."""
        self._hear()
        while actions := list(self._desk.act(self.state, phase, opened)):
            self._emit_all(actions)
            if any(action.type != "skipped" for action in actions):
                self._commit()
                crash_point("session.before_send")
                self._send(actions)
                crash_point("session.after_send")
            self._hear()
        state = self.state
        holds = state.status == "closing" and any(leg.units for leg in state.legs)
        if state.status in ("closing", "finishing") and not state.working and not holds:
            data = {"status": state.then or "stopped", "reason": state.reason, "time": state.time}
            self._emit(LedgerEvent("finished", data))

    def _send(self, actions: list[LedgerEvent]) -> None:
        for action in actions:
            if action.type == "order":
                self._broker.submit(Order.of(action.data))
            elif action.type == "cancel":
                self._broker.cancel(action.data["id"])

    def _hear(self) -> None:
        for report in self._broker.reports():
            working = self.state.working.get(report.order_id)
            if self._is_known(report, working):
                continue
            self._emit(_told(report, self._broker.venue, self.state.time))
            self._emit_all(list(self._desk.answer(report, working.order if working else None, self.state)))

    def _is_known(self, report: Report, working: Working | None) -> bool:
        """Whether a report says nothing new: a broker may tell twice, late, or of orders that are not the session's."""
        if isinstance(report, Fill):
            return report.execution_id in self.state.executions
        return working is None or (isinstance(report, Accepted) and working.accepted)

    def _emit(self, event: LedgerEvent) -> None:
        self.ledger.take(event)
        self._pending.append(event)

    def _emit_all(self, events: Iterable[LedgerEvent]) -> None:
        for event in events:
            self._emit(event)

    def _append(self) -> None:
        if self._pending:
            self.ledger.reconcile()
            events, self._pending = self._pending, []
            self._journal.append(events, self.ledger)

    def _commit(self) -> None:
        self._append()
        self._journal.flush()


def _told(report: Report, venue: str, time: str | None) -> LedgerEvent:
    """Return a report as the event that it is; a fill is unique by its venue and execution id."""
    if isinstance(report, Accepted):
        return LedgerEvent("accepted", {"id": report.order_id, "time": time})
    if isinstance(report, Ended):
        data = {"id": report.order_id, "state": report.state, "reason": report.reason, "time": time}
        return LedgerEvent("ended", data)
    return LedgerEvent("fill", report.document(), key=f"fill:{venue}:{report.execution_id}")
