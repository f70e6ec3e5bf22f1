"""What `monitor` knows: runs and symbols as the stream tells them, kept as plain facts that any view can show."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gpt_trader.runs import FINAL_STATES, channel_of

Json = dict[str, Any]

#: System events that are kept.
_MOST_EVENTS: Final = 8


@dataclass
class WatchedRun:
    """One run: what it is, and what was last told of it."""

    run_id: str
    flow: str
    about: str
    state: str
    created_at: str
    stage: str = ""
    done: int | None = None
    total: int | None = None
    message: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing follows."""
        return self.state in FINAL_STATES

    def as_dict(self) -> Json:
        """Return it as JSON-ready values."""
        return {
            "run_id": self.run_id,
            "flow": self.flow,
            "about": self.about,
            "state": self.state,
            "stage": self.stage or None,
            "done": self.done,
            "total": self.total,
            "message": self.message or None,
            "created_at": self.created_at,
        }


@dataclass
class Board:
    """Runs (newest first), the newest bar of each symbol and timeframe, and the last system events."""

    most_runs: int
    runs: dict[str, WatchedRun] = field(default_factory=dict)
    bars: dict[tuple[str, str], Json] = field(default_factory=dict)
    events: deque[Json] = field(default_factory=lambda: deque(maxlen=_MOST_EVENTS))
    followed: set[str] = field(default_factory=set)
    listed: bool = False

    def list_runs(self, items: Iterable[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
        """Take a list of runs in, newest first; return the channels to follow now, and those to follow no more.

        Of the first list those are followed that go on; later every new one, as it may have ended since.
        """
        kept: dict[str, WatchedRun] = {}
        for item in list(items)[: self.most_runs]:
            run_id = str(item["run_id"])
            run = self.runs.get(run_id) or _run(item)
            run.state = str(item.get("state") or run.state)
            kept[run_id] = run
        begun = [i for i, run in kept.items() if i not in self.runs and (self.listed or not run.ended)]
        over = [i for i in self.followed if i not in kept or kept[i].ended]
        self.followed = (self.followed - set(over)) | set(begun)
        self.runs, self.listed = kept, True
        return [channel_of(run_id) for run_id in begun], [channel_of(run_id) for run_id in over]

    def take(self, message: Mapping[str, Any]) -> None:
        """Take one message of the stream in."""
        channel, facts = str(message.get("channel")), message.get("data") or {}
        if channel == "market.stream":
            self._take_bars(str(message.get("key")), message)
        elif channel == "system.events" and message["type"] == "publication":
            self.events.append({"ts": message["ts"], "event": message["event"], **facts})
        elif channel.startswith("runs."):
            run = self.runs.get(channel.removeprefix("runs."))
            if run is None:
                return
            if message["type"] == "snapshot":
                for event, values in facts.items():
                    _tell(run, event, values)
            elif message["type"] == "publication":
                _tell(run, str(message["event"]), facts)

    def as_dict(self) -> Json:
        """Return everything as JSON-ready values."""
        return {
            "runs": [run.as_dict() for run in self.runs.values()],
            "bars": self.bar_rows(),
            "events": list(self.events),
        }

    def bar_rows(self) -> list[Json]:
        """Return the newest bars as rows."""
        return [
            {"symbol": symbol, "timeframe": timeframe, **bar}
            for (symbol, timeframe), bar in sorted(self.bars.items())
        ]

    def _take_bars(self, symbol: str, message: Mapping[str, Any]) -> None:
        facts = message.get("data") or {}
        series = facts.get("series", []) if message["type"] == "snapshot" else [facts]
        for each in series:
            if each.get("bars"):
                self.bars[symbol, str(each["timeframe"])] = each["bars"][-1]


def _run(item: Mapping[str, Any]) -> WatchedRun:
    request: Mapping[str, Any] = item.get("request") or {}
    legs = request.get("legs") or ()
    symbols = request.get("symbols") or list(dict.fromkeys(str(leg["symbol"]) for leg in legs))
    named = request.get("symbol") or ", ".join(symbols[:3]) + (", …" if len(symbols) > 3 else "")
    strategies = dict.fromkeys(str(leg["strategy"]) for leg in legs) or [str(request.get("strategy") or "")]
    about = str(request.get("name") or "") or " ".join(filter(None, (named, *strategies)))
    return WatchedRun(
        run_id=str(item["run_id"]),
        flow=str(item.get("flow") or ""),
        about=about,
        state=str(item.get("state") or ""),
        created_at=str(item.get("created_at") or ""),
        message=str(item.get("message") or ""),
    )


def _tell(run: WatchedRun, event: str, facts: Mapping[str, Any]) -> None:
    if event == "state":
        run.state = str(facts.get("state") or run.state)
        run.message = str(facts.get("message") or "")
    elif event == "progress":
        run.stage = str(facts.get("stage") or "")
        run.done, run.total = facts.get("done"), facts.get("total")
        run.message = str(facts.get("message") or "")
