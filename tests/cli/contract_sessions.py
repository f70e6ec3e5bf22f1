"""What the contract's server answers about paper sessions: one for each run of `paper_trade`, with its lists."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gpt_trader.errors import Conflict, NotFound

HASH = "ab" * 32
CLOSES = 25
CERTIFICATE: dict[str, Any] = {
    "verdict": "equal",
    "replay_equal": True,
    "backtest_equal": True,
    "ledger_hash": HASH,
    "bars": 250,
    "fills": 40,
    "first_divergence": None,
}


@dataclass
class Sessions:
    """The server's sessions, what was asked of them, and the certificate that all of them have."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    commands: list[tuple[str, str, bool]] = field(default_factory=list)
    certificate: dict[str, Any] | None = field(default_factory=lambda: dict(CERTIFICATE))
    grown: bool = False
    #: What a page of a list has at most.
    page: int = 200
    #: A session is not there yet for so many more looks.
    late: int = 0

    def begin(self, run_id: str, request: dict[str, Any]) -> None:
        default = ", ".join(f"{leg['strategy']} on {leg['symbol']}" for leg in request["legs"])
        self.rows[run_id] = {
            "session_id": run_id,
            "name": request["name"] or default,
            "owner": "local",
            "state": "active",
            "reason": "",
            "feed": request["feed"],
            "traded": True,
            "run": f"run {run_id}",
            "symbols": sorted({leg["symbol"] for leg in request["legs"]}),
            "request": request,
            "snapshot_id": "s1",
            "capital": "10000",
            "cash": "2500.5",
            "equity": "10250.5",
            "profit": "250.5",
            "bars": CLOSES,
            "orders": 3,
            "fills": 2,
            "bar": "2012-02-06T00:00:00Z",
            "events": 120,
            "ledger_hash": HASH,
            "certificate": None,
            "created_at": "2026-01-02T03:04:05.678Z",
            "updated_at": "2026-01-02T03:04:05.678Z",
            "ended_at": None,
            "links": {},
        }

    def answer(self, method: str, path: list[str], query: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        """Return status and body for a request below `/paper-trade/sessions`."""
        if not path:
            limit = int(query["limit"][0])
            if not 1 <= limit <= self.page:
                raise Conflict(f"limit {limit}")
            begun = int(query.get("cursor", ["0"])[0])
            wanted = query.get("state")
            rows = [row for row in list(self.rows.values())[::-1] if not wanted or row["state"] in wanted]
            more = str(begun + limit) if len(rows) > begun + limit else None
            return 200, {"items": rows[begun : begun + limit], "next_cursor": more}
        if self.late:
            self.late -= 1
            raise NotFound(f"there is no session {path[0]}")
        session = self.rows.get(path[0])
        if session is None:
            raise NotFound(f"there is no session {path[0]}")
        match (method, *path[1:]):
            case ("GET",):
                return 200, session
            case ("GET", "orders"):
                return 200, {"items": _ORDERS, "next_cursor": None}
            case ("GET", "fills"):
                return 200, {"items": _FILLS, "next_cursor": None}
            case ("GET", "positions"):
                about = {name: session[name] for name in ("session_id", "state", "cash", "equity")}
                return 200, {**about, "time": session["bar"], "currency": "USD", "items": _HELD}
            case ("GET", "equity"):
                return 200, _equity(session["session_id"], int(query["after"][0]))
            case ("GET", "certificate"):
                if self.certificate is None:
                    raise NotFound("it has no certificate yet")
                about = {
                    "session_id": path[0],
                    "events": 120,
                    "bars": 250,
                    "events_now": 120,
                    "bars_now": 250,
                }
                return 200, {**about, "certificate": self.certificate, "grown": self.grown}
            case ("POST", "pause" | "resume" as command):
                return 202, self._told(path[0], command, flatten=False)
            case ("DELETE",):
                return 202, self._told(path[0], "stop", flatten=query.get("flatten") == ["true"])
        raise NotFound(f"{method} {'/'.join(path)} does not exist")

    def result(self, run_id: str, request: dict[str, Any]) -> dict[str, Any]:
        """Return the result of a run that traded a session to its end, or certified it."""
        session_id = str(request.get("session") or run_id)
        session = self.rows[session_id]
        if session["feed"] == "schedule":
            return self._opened(run_id, session)
        return {
            "run_id": run_id,
            "flow": "paper_trade",
            "session_id": session_id,
            "name": session["name"],
            "state": "completed",
            "reason": "its range has ended",
            "timeframe": "1d",
            "legs": session["request"]["legs"],
            "snapshot_id": "s1",
            "start": "2012-01-03",
            "end": "2012-12-31",
            "bars": 250,
            "orders": 41,
            "fills": 40,
            "capital": 10_000.0,
            "final_equity": 15_079.25,
            "metrics": {"total_return": 0.507925, "sharpe": 1.5, "trades": 20, "final_equity": 15_079.25},
            "ledger_hash": HASH,
            "certificate": self.certificate,
            "result_hash": "f" * 64,
            "warnings": [],
            "artifacts": {"report": "/runs/report.html", "equity": "/runs/equity.parquet"},
        }

    def _opened(self, run_id: str, session: dict[str, Any]) -> dict[str, Any]:
        """Return the result of a run that began a session by schedule, with no bar to trade yet."""
        nothing = dict.fromkeys(("bars", "orders", "fills"), 0) | dict.fromkeys(("start", "end", "metrics"))
        certificate = {**CERTIFICATE, "backtest_equal": None, "bars": 0, "fills": 0}
        about = {
            "run_id": run_id,
            "flow": "paper_trade",
            "final_equity": 10_000.0,
            "certificate": certificate,
        }
        about |= {"result_hash": "f" * 64, "snapshot_id": "s1", "warnings": [], "artifacts": {}}
        return (
            about | nothing | {name: session[name] for name in ("session_id", "name", "state", "ledger_hash")}
        )

    def day(self, run_id: str) -> dict[str, Any]:
        """Return the result of a daily run."""
        names = ("session_id", "name", "state", "equity", "bar", "ledger_hash")
        each = [
            {
                **{name: row[name] for name in names},
                "bars": 1,
                "fills": 0,
                "certificate": "equal",
                "error": None,
            }
            for row in self.rows.values()
        ]
        about = {"run_id": run_id, "flow": "paper_daily", "sessions": len(each), "failed": 0}
        return {**about, "each": each, "result_hash": "f" * 64}

    def _told(self, session_id: str, command: str, *, flatten: bool) -> dict[str, Any]:
        if self.rows[session_id]["ended_at"]:
            raise Conflict(f"session {session_id} is stopped: it takes no commands")
        self.commands.append((session_id, command, flatten))
        number = len(self.commands)
        about = {"session_id": session_id, "command_id": number, "command": command, "flatten": flatten}
        return {**about, "run": None}


def _equity(session_id: str, after: int) -> dict[str, Any]:
    """Return closes in pages of ten."""
    numbers = [number for number in range(1, CLOSES + 1) if number > after]
    page = numbers[:10]
    return {
        "session_id": session_id,
        "number": page,
        "time": [f"2012-01-{number:02d}T00:00:00Z" for number in page],
        "equity": [f"{10_000 + number}.5" for number in page],
        "cash": ["2500.5" for _ in page],
        "next_after": page[-1] if len(numbers) > 10 else None,
    }


_ORDERS: list[dict[str, Any]] = [
    {
        "number": 40, "id": "c" * 32, "leg": 0, "symbol": "AAPL", "side": 1, "type": "market", "purpose": "entry",
        "after": "2012-01-05T00:00:00Z", "units": None, "budget": "10000", "price": None, "state": "rejected",
        "reason": "it is worth less than its commission", "filled": "0", "cancelling": False,
    },
]  # fmt: skip
_FILLS: list[dict[str, Any]] = [
    {
        "number": 41, "order_id": "c" * 32, "execution_id": "e1", "time": "2012-01-06T00:00:00Z", "leg": 0,
        "symbol": "AAPL", "units": "24.5", "price": "407.25", "reference": "407", "commission": "9.97",
        "purpose": "entry", "complete": True,
    },
]  # fmt: skip
_HELD: list[dict[str, Any]] = [
    {
        "session_id": "", "leg": 0, "symbol": "AAPL", "currency": "USD", "units": "24.5",
        "entry_price": "407.25", "close": 410.0, "value": "10045", "unrealized": "67.375",
    },
]  # fmt: skip
