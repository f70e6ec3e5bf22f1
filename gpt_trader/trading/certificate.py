"""Whether a session did what its inputs say: a replay of them, and a backtest over the same bars (D8).

A replay feeds the recorded inputs (bars, commands, changes of scale, bars that came too late) to a new session with a
new simulated broker: each event it makes must be the recorded one. The backtest (`gpt_trader.trading.backtest`, and
with one leg vectorbt's own) must have the same fills and, at each close, the same equity, to 1e-9. What a backtest has
no words for (a pause, a limit of risk that was reached, an order filled in parts) makes it differ from there on; the
certificate names all of that. Bars that came too late to be traded are in neither: the certificate counts them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np

from gpt_trader.backtesting import engine
from gpt_trader.bars import Bars
from gpt_trader.errors import NotEnoughBars
from gpt_trader.simulation import kernel
from gpt_trader.strategies.base import Strategy
from gpt_trader.trading import backtest
from gpt_trader.trading.desk import Desk
from gpt_trader.trading.events import LedgerEvent, Moment, stamp
from gpt_trader.trading.ledger import Ledger, MemoryJournal
from gpt_trader.trading.orders import Fill
from gpt_trader.trading.paper_broker import PaperBroker
from gpt_trader.trading.request import PaperTradeRequest
from gpt_trader.trading.trader import Trader

_TOLERANCE: Final = 1e-9

#: What a backtest knows as well, and what only ends something that it does not.
_ORDINARY: Final = frozenset({"active", "finishing", "completed", "stopped"})

_REBASED: Final = "rebased"


@dataclass(frozen=True)
class Divergence:
    """Where a session first differs from its replay or its backtest, and why, as far as that is known."""

    what: Literal["event", "fill", "equity"]
    of: Literal["replay", "backtest"]
    time: str | None
    session: Any
    other: Any
    reason: str


@dataclass(frozen=True)
class MissedBar:
    """A bar that came after a later one (of `after`) had been traded, and so was not."""

    symbol: str
    time: str
    after: str


@dataclass(frozen=True)
class Certificate:
    """What a session's ledger proves. `backtest_equal` is None where there is nothing to compare yet.

    `missed` counts the bars that came too late to be traded: neither the session nor its backtest has them.
    """

    verdict: Literal["equal", "diverged"]
    replay_equal: bool
    backtest_equal: bool | None
    ledger_hash: str
    bars: int
    fills: int
    first_divergence: Divergence | None
    missed: int = 0
    first_missed: MissedBar | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return asdict(self)


def certify(
    request: PaperTradeRequest,
    strategies: Sequence[Strategy],
    warm: Mapping[str, Bars],
    events: Sequence[LedgerEvent],
    ledger_hash: str,
) -> Certificate:
    """Return the certificate of a ledger: all its events, and the bars that its strategies were warmed up with."""
    ledger, differs = _replayed(request, strategies, warm, events)
    if differs is None and ledger.hash != ledger_hash:
        why = "the ledger's hash is not that of its events"
        differs = Divergence("event", "replay", ledger.state.time, ledger_hash, ledger.hash, why)
    replay_equal = differs is None
    steps = sum(event.type == "closed" for event in events)
    fills = sum(event.type == "fill" for event in events)
    backtest_equal: bool | None = None
    if steps:
        seen = Ledger(warm)
        seen.take_all(events)
        other = _backtested(request, strategies, seen, events)
        backtest_equal = other is None
        differs = differs or other
    missed = [MissedBar(**event.data) for event in events if event.type == "missed"]
    return Certificate(
        "equal" if replay_equal and backtest_equal is not False else "diverged",
        replay_equal,
        backtest_equal,
        ledger_hash,
        steps,
        fills,
        differs,
        len(missed),
        missed[0] if missed else None,
    )


def replay(
    request: PaperTradeRequest,
    strategies: Sequence[Strategy],
    warm: Mapping[str, Bars],
    events: Sequence[LedgerEvent],
) -> tuple[list[LedgerEvent], str]:
    """Feed a ledger's inputs to a new session; return the events that it makes, and their hash."""
    ledger, journal = Ledger(warm), MemoryJournal()
    broker = PaperBroker(kernel.costs_of(request), request.participation)
    trader = Trader(Desk(request, strategies), ledger, broker, journal)
    for number, event in enumerate(events):
        if trader.state.over:
            break
        if event.type == "opened":
            trader.open(event)
            broker.restore(ledger.state)
        elif event.type == "bars":
            trader.step(Moment.of(event.data))
        elif event.type == "rebased":
            trader.rebase(event.data["symbol"], event.data["factor"])
            broker.restore(ledger.state)
        elif event.type == "missed":
            trader.missed(event.data["symbol"], [event.data["time"]])
        elif event.type == "command":
            trader.command(event.data["command"], event.data["by"], flatten=event.data["flatten"])
        elif event.type == "status" and event.data["status"] == "finishing" and len(journal.events) <= number:
            # Nothing before has led to it: the feed had ended.
            trader.finish(event.data["then"], event.data["reason"])
    return journal.events, ledger.hash


def _replayed(
    request: PaperTradeRequest,
    strategies: Sequence[Strategy],
    warm: Mapping[str, Bars],
    events: Sequence[LedgerEvent],
) -> tuple[Ledger, Divergence | None]:
    made, _ = replay(request, strategies, warm, events)
    ledger = Ledger(warm)
    for number, event in enumerate(events):
        other = made[number] if number < len(made) else None
        if other is None or (other.type, other.data) != (event.type, event.data):
            time = event.data.get("time") or ledger.state.time
            shown = None if other is None else {"event": other.type, **other.data}
            reason = f"event {number + 1} of the ledger is not what its inputs lead to"
            return ledger, Divergence(
                "event", "replay", time, {"event": event.type, **event.data}, shown, reason
            )
        ledger.take(event)
    return ledger, None


def _backtested(
    request: PaperTradeRequest, strategies: Sequence[Strategy], seen: Ledger, events: Sequence[LedgerEvent]
) -> Divergence | None:
    history = seen.history
    bars = {symbol: history.bars(symbol) for symbol in request.symbols}
    series, first = {s: each for s, (each, _) in bars.items()}, {s: at for s, (_, at) in bars.items()}
    found = backtest.simulate(request, strategies, series, first)
    closed = [event for event in events if event.type == "closed"]
    times = {stamp(time): place for place, time in enumerate(found.time)}
    places = [times[event.data["time"]] for event in closed]
    equity = np.array([float(event.data["equity"]) for event in closed])
    differs = _first_fill(found, events) or _first_equity(
        found.equity[places], equity, closed, request.capital
    )
    if differs is None and len(request.legs) == 1 and len(closed) == len(found.time):
        symbol, leg = request.legs[0].symbol, request.legs[0]
        try:
            whole = engine.simulate(series[symbol], first[symbol], strategies[0], request.backtest(leg))
        except NotEnoughBars:  # a session may begin before its strategy can decide; a backtest refuses to
            return None
        differs = _first_equity(whole.equity, equity, closed, request.capital)
    if differs is None:
        return None
    costs, slippage = kernel.costs_of(request)
    by_units = bool(costs.per_unit or costs.per_order or costs.minimum or slippage.per_unit)
    why = _beyond_a_backtest(request, events, differs.time, by_units=by_units)
    return differs if why is None else Divergence(**{**differs.__dict__, "reason": why})


def _first_fill(found: backtest.SessionBacktest, events: Sequence[LedgerEvent]) -> Divergence | None:
    """Compare fills by bar and leg, in their order there, all on the last scale."""
    ours: list[tuple[str, int, float, float, str]] = []
    for event in events:
        if event.type == "fill":
            fill = Fill.of(event.data)
            ours.append((fill.time, fill.leg, float(fill.units), float(fill.price), fill.purpose))
        elif event.type == "rebased":
            factor, symbol = event.data["factor"], event.data["symbol"]
            legs = {n for n, leg in enumerate(events[0].data["request"]["legs"]) if leg["symbol"] == symbol}
            ours = [
                (t, n, u / factor, p * factor, w) if n in legs else (t, n, u, p, w) for t, n, u, p, w in ours
            ]
    theirs = [(fill.time, fill.leg, fill.units, fill.price, fill.purpose) for fill in found.fills]
    ours.sort(key=lambda fill: fill[:2])
    theirs.sort(key=lambda fill: fill[:2])
    for place in range(max(len(ours), len(theirs))):
        mine = ours[place] if place < len(ours) else None
        other = theirs[place] if place < len(theirs) else None
        if mine is None or other is None or not _same_fill(mine, other):
            time = min(each[0] for each in (mine, other) if each is not None)
            return Divergence("fill", "backtest", time, _shown(mine), _shown(other), "the fills differ")
    return None


def _same_fill(mine: tuple[str, int, float, float, str], other: tuple[str, int, float, float, str]) -> bool:
    same = (mine[0], mine[1], mine[4]) == (other[0], other[1], other[4])
    return same and all(abs(a - b) <= _TOLERANCE * abs(b) for a, b in zip(mine[2:4], other[2:4], strict=True))


def _shown(fill: tuple[str, int, float, float, str] | None) -> dict[str, Any] | None:
    return (
        None if fill is None else dict(zip(("time", "leg", "units", "price", "purpose"), fill, strict=True))
    )


def _first_equity(
    theirs: np.typing.NDArray[np.float64],
    ours: np.typing.NDArray[np.float64],
    closed: Sequence[LedgerEvent],
    capital: float,
) -> Divergence | None:
    differs = ~(np.abs(ours - theirs) <= _TOLERANCE * np.maximum(np.abs(theirs), 1e-3 * capital))
    if not differs.any():
        return None
    at = int(np.argmax(differs))
    time = closed[at].data["time"]
    return Divergence("equity", "backtest", time, float(ours[at]), float(theirs[at]), "the equity differs")


def _beyond_a_backtest(
    request: PaperTradeRequest, events: Sequence[LedgerEvent], time: str | None, *, by_units: bool
) -> str | None:
    """Return everything that a backtest has no words for, oldest first; None where nothing of that kind was by `time`.

    What happened several times is said once, with how often. What came after `time` is named as well: it does not
    explain the first difference, but the two would differ for it too. `by_units`: costs are not a fraction.
    """
    causes: dict[str, _Cause] = {}
    now: str | None = None
    for event in events:
        if event.type == "bars":
            now = event.data["time"]
        found = _cause(request, event, by_units=by_units)
        if found is not None:
            cause = causes.setdefault(found[0], _Cause(found[1], now))
            cause.times += 1
            cause.last = now
    before: list[str] = []
    after: list[str] = []
    for kind, cause in causes.items():
        # A backtest has all bars on their last scale from the first on: whenever that changed, it explains.
        explains = kind.startswith(_REBASED) or time is None or cause.first is None or cause.first <= time
        (before if explains else after).append(str(cause))
    if not before:
        return None
    return "; ".join(before) + (f"; later also {'; '.join(after)}" if after else "")


@dataclass
class _Cause:
    """A kind of thing that no backtest knows: what it was, after which bar first and last, and how often."""

    words: str
    first: str | None
    last: str | None = None
    times: int = 0

    def __str__(self) -> str:
        first = "before the first bar" if self.first is None else shown_time(self.first)
        last = shown_time(self.last or first)
        more = "" if self.times == 1 else f"once more on {last}"
        more = more if self.times < 3 else f"{self.times - 1} times more until {last}"
        when = ", ".join(part for part in ("" if first in self.words else first, more) if part)
        return f"{self.words} ({when})" if when else self.words


def _cause(request: PaperTradeRequest, event: LedgerEvent, *, by_units: bool) -> tuple[str, str] | None:
    """Return an event's kind and words where a backtest knows nothing of the sort."""
    data = event.data
    if event.type == "status" and data["status"] not in _ORDINARY:
        why = data["reason"] or data["status"]
        return data["status"], f"everything was closed: {why}" if data["status"] == "closing" else why
    if event.type == "fill" and not data["complete"]:
        bound = "" if request.participation is None else f" at {request.participation:g} of a bar's volume"
        return "fill", f"an order was filled in part{bound}"
    if event.type == _REBASED and by_units:
        scaled = f"prices of {data['symbol']} were scaled by {data['factor']:g}"
        return f"{_REBASED} {data['symbol']}", f"{scaled}, and costs are by the unit"
    return None


def shown_time(time: str) -> str:
    """Return a time of the ledger as a sentence has it: a midnight as its day."""
    return time.removesuffix("T00:00:00Z").removesuffix("Z").replace("T", " ")
