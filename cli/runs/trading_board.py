"""What `monitor` knows of trading: sessions with their curves, what they hold, the latest fills, and open alerts."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gpt_trader.trading.statuses import FINAL

Json = dict[str, Any]

#: Closes of a curve that are kept: more than any terminal has columns.
_MOST_POINTS: Final = 400
_MOST_FILLS: Final = 50


@dataclass
class WatchedSession:
    """One session: what it is, and where it was last told to stand. Money in its account's currency."""

    session_id: str
    name: str
    strategy: str
    state: str
    feed: str
    capital: float
    equity: float
    cash: float
    bar: str | None
    bars: int
    peak: float
    points: deque[float] = field(default_factory=lambda: deque(maxlen=_MOST_POINTS))

    @property
    def ended(self) -> bool:
        """Whether nothing follows."""
        return self.state in FINAL

    @property
    def gain(self) -> float:
        """Profit as a fraction of the capital."""
        return self.equity / self.capital - 1.0 if self.capital else 0.0

    @property
    def drawdown(self) -> float:
        """Fall from the highest close so far, a fraction, 0 or below."""
        return min(self.equity / self.peak - 1.0, 0.0) if self.peak > 0 else 0.0

    def close(self, equity: float) -> None:
        """Take the equity at one more close."""
        self.equity = equity
        self.peak = max(self.peak, equity)
        self.points.append(equity)

    def as_dict(self) -> Json:
        """Return it as JSON-ready values."""
        told = ("session_id", "name", "strategy", "state", "feed", "bar", "bars", "capital", "equity", "cash")
        derived = {"return": self.gain, "drawdown": self.drawdown, "equity_points": list(self.points)}
        return {**{name: getattr(self, name) for name in told}, **derived}


@dataclass
class TradingBoard:
    """Sessions (open ones first, each newest first), positions as last read, fills and alerts (newest first)."""

    sessions: dict[str, WatchedSession] = field(default_factory=dict)
    positions: list[Json] = field(default_factory=list)
    fills: deque[Json] = field(default_factory=lambda: deque(maxlen=_MOST_FILLS))
    alerts: list[Json] = field(default_factory=list)
    #: Whether a session was told of that is not listed, and whether positions may have changed since they were read.
    unlisted: bool = False
    moved: bool = False
    _filled: set[tuple[str, str]] = field(default_factory=set)

    def list_sessions(self, items: Iterable[Mapping[str, Any]]) -> list[WatchedSession]:
        """Take a list of sessions in, newest first; return those that are new here: their curves are to be read."""
        listed, begun = {}, []
        for item in items:
            session_id = str(item["session_id"])
            known = self.sessions.get(session_id)
            if known is None:
                known = _session(item)
                begun.append(known)
            elif int(item["bars"]) > known.bars:  # another owner's: no stream tells of it
                known.close(float(item["equity"]))
                known.cash, known.bars, known.bar = float(item["cash"]), int(item["bars"]), item["bar"]
            known.state = str(item["state"])
            listed[session_id] = known
        order = sorted(listed.values(), key=lambda each: each.ended)
        self.sessions, self.unlisted = {each.session_id: each for each in order}, False
        return begun

    def take_curve(self, session: WatchedSession, equity: Sequence[str]) -> None:
        """Take the stored closes of a session in, oldest first."""
        session.points.clear()
        for close in equity:
            session.close(float(close))
        session.bars = max(session.bars, len(equity))

    def take_fills(self, session_id: str, fills: Iterable[Mapping[str, Any]]) -> None:
        """Take stored fills of a session in, oldest first."""
        for fill in fills:
            self._fill({**fill, "session_id": session_id})

    def take(self, message: Mapping[str, Any]) -> None:
        """Take one message of the stream in."""
        channel, facts = message.get("channel"), message.get("data") or {}
        if channel == "portfolio.updates":
            for standing in facts.get("sessions", ()) if message["type"] == "snapshot" else (facts,):
                self._stand(standing)
        elif channel == "trades.live" and message["type"] == "publication":
            session = self.sessions.get(str(facts.get("session_id")))
            self.unlisted = self.unlisted or session is None
            if message["event"] == "fill":
                self._fill(dict(facts))
            elif message["event"] in ("status", "finished") and session is not None:
                session.state = str(facts["status"])

    def named(self, session_id: object) -> str:
        """Return what a session is called; of one that is not listed, the beginning of its id."""
        session = self.sessions.get(str(session_id))
        return str(session_id)[:8] if session is None else session.name

    def as_dict(self) -> Json:
        """Return everything as JSON-ready values."""
        return {
            "sessions": [session.as_dict() for session in self.sessions.values()],
            "positions": self.positions,
            "fills": list(self.fills),
            "alerts": self.alerts,
        }

    def _stand(self, standing: Mapping[str, Any]) -> None:
        session = self.sessions.get(str(standing.get("session_id")))
        if session is None:
            self.unlisted = True
            return
        session.state, session.bar = str(standing["status"]), standing["time"]
        session.cash, self.moved = float(standing["cash"]), True
        if int(standing["steps"]) > session.bars:
            session.close(float(standing["equity"]))
            session.bars = int(standing["steps"])
        else:
            session.equity = float(standing["equity"])

    def _fill(self, fill: Json) -> None:
        """Note a fill once: a list and the stream may both have told it."""
        place = str(fill["session_id"]), str(fill["execution_id"])
        if place not in self._filled:
            self._filled.add(place)
            self.fills.appendleft(fill)


def _session(item: Mapping[str, Any]) -> WatchedSession:
    request: Mapping[str, Any] = item["request"]
    strategies = dict.fromkeys(str(leg["strategy"]) for leg in request["legs"])
    capital = float(item["capital"])
    return WatchedSession(
        session_id=str(item["session_id"]),
        name=str(item["name"]),
        strategy=", ".join(strategies),
        state=str(item["state"]),
        feed=str(item["feed"]),
        capital=capital,
        equity=float(item["equity"]),
        cash=float(item["cash"]),
        bar=item["bar"],
        bars=int(item["bars"]),
        peak=capital,
    )
