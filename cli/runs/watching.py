"""What `monitor` asks the API for beside the stream: lists, curves and alerts, seldom enough for any rate limit."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Final

from cli.client.alerts import AlertClient
from cli.client.sessions import SessionClient
from cli.client.stream import LiveStream
from cli.runs.board import Board
from cli.runs.trading_board import TradingBoard, WatchedSession
from gpt_trader.errors import EngineUnreachable, GptTraderError, NotFound

#: Seconds between two looks at each list; what a stream tells of is looked at no more often than this either.
_RUNS_SECONDS: Final = 2.0
_ALERTS_SECONDS: Final = 6.0
_POSITIONS_SECONDS: Final = 3.0
_SESSIONS_SECONDS: Final = 15.0
_UNLISTED_SECONDS: Final = 1.0
#: After an answer that refuses (a rate limit, a database that is away) nothing is asked for so long.
_PATIENCE: Final = 5.0
#: Ended sessions that are listed beside the open ones, and sessions whose curve and fills are read.
_ENDED: Final = 4
_CURVES: Final = 12
_FILLS: Final = 8

Message = dict[str, Any]


class MonitorClient(SessionClient, AlertClient):
    """Every call that `monitor` makes."""

    def all_positions(self) -> list[Message]:
        """Return what the open sessions hold."""
        return self._items("/api/v1/portfolio/positions")


@dataclass
class Watching:
    """Everything that `monitor` shows, kept up to date by the stream and by looks from time to time."""

    client: MonitorClient
    stream: LiveStream
    board: Board
    trading: TradingBoard
    #: What the last look was refused for; empty: nothing.
    trouble: str = ""
    _looked: dict[str, float] = field(default_factory=dict)
    _quiet_until: float = 0.0

    def begin(self) -> None:
        """Read everything once, and subscribe."""
        self._runs()
        for channel in ("system.events", "portfolio.updates", "trades.live"):
            self.stream.subscribe(channel)
        self._sessions()
        self._positions()
        self._alerts()

    def take(self, message: Message) -> None:
        """Take one message of the stream in."""
        self.board.take(message)
        self.trading.take(message)
        if message.get("channel") == "system.events" and str(message.get("event")).startswith("session."):
            self.trading.unlisted = True

    def look(self) -> list[Message]:
        """Read what is due; return alerts that are new. An engine that is away comes back, or the stream says so."""
        fresh: list[Message] = []
        if time.monotonic() < self._quiet_until:
            return fresh
        try:
            if self._is_due("runs", _RUNS_SECONDS):
                self._runs()
            if self._is_due("sessions", _UNLISTED_SECONDS if self.trading.unlisted else _SESSIONS_SECONDS):
                self._sessions()
            if self.trading.moved and self._is_due("positions", _POSITIONS_SECONDS):
                self._positions()
            if self._is_due("alerts", _ALERTS_SECONDS):
                fresh = self._alerts()
            self.trouble = ""
        except EngineUnreachable:
            self.client.close()
        except (
            GptTraderError
        ) as refused:  # a rate limit, or a scope that this key lacks: shown, and asked again later
            self.trouble = refused.detail
            self._quiet_until = time.monotonic() + _PATIENCE
        return fresh

    def as_dict(self) -> Message:
        """Return everything as JSON-ready values."""
        return {**self.trading.as_dict(), **self.board.as_dict()}

    def _is_due(self, what: str, seconds: float) -> bool:
        now = time.monotonic()
        if now - self._looked.get(what, 0.0) < seconds:
            return False
        self._looked[what] = now
        return True

    def _runs(self) -> None:
        whole = self.board.listed  # what began under our eyes is shown from its first event on
        begun, over = self.board.list_runs(self.client.runs(limit=self.board.most_runs))
        for channel in begun:
            self.stream.subscribe(channel, whole=whole)
        for channel in over:
            self.stream.unsubscribe(channel)

    def _sessions(self) -> None:
        newest, still = self.client.sessions(limit=_ENDED), self.client.sessions(state="open")
        listed = {str(each["session_id"]): each for each in (*still, *newest)}
        listed |= {
            known.session_id: self.client.session(
                known.session_id
            )  # ended since: its last state stays in sight
            for known in self.trading.sessions.values()
            if known.session_id not in listed and not known.ended
        }
        seen = {known.session_id: known for known in self.trading.sessions.values() if known.ended}
        begun = self.trading.list_sessions(listed.values())
        for session_id, known in seen.items():
            self.trading.sessions.setdefault(session_id, known)
        for session in begun[:_CURVES][::-1]:
            self._read(session)
        self.trading.moved = True

    def _read(self, session: WatchedSession) -> None:
        try:
            self.trading.take_curve(session, self.client.equity(session.session_id)["equity"])
            fills = self.client.session_rows(session.session_id, "fills", limit=_FILLS)
        except NotFound:  # another owner's, that a key without `admin` may list no more
            return
        self.trading.take_fills(session.session_id, fills[::-1])

    def _positions(self) -> None:
        self.trading.positions, self.trading.moved = self.client.all_positions(), False

    def _alerts(self) -> list[Message]:
        known = {(each["id"], each["count"]) for each in self.trading.alerts}
        self.trading.alerts = self.client.alerts(acknowledged=False)
        return [each for each in self.trading.alerts if (each["id"], each["count"]) not in known]
