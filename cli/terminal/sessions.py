"""Shows trading sessions: lists, one with what it holds, what a run of it came to, its certificate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from cli.terminal.metrics import METRICS, right_aligned, written
from cli.terminal.render import Row, grid, pairs, short_strategy, shown

if TYPE_CHECKING:
    from rich.console import RenderableType

#: Fields and headings of each list.
COLUMNS: Final[Mapping[str, Mapping[str, str]]] = {
    "sessions": {
        "session_id": "session", "name": "name", "state": "state", "feed": "feed", "bars": "bars",
        "fills": "fills", "equity": "equity", "bar": "last bar", "certificate": "certificate", "created_at": "begun",
    },
    "orders": {
        "number": "#", "after": "sent in", "leg": "leg", "symbol": "symbol", "purpose": "purpose", "type": "type",
        "units": "units", "budget": "budget", "price": "price", "state": "state", "filled": "filled", "reason": "why",
    },
    "fills": {
        "number": "#", "time": "bar", "leg": "leg", "symbol": "symbol", "purpose": "purpose", "units": "units",
        "price": "price", "commission": "commission",
    },
    "positions": {
        "leg": "leg", "symbol": "symbol", "units": "units", "entry_price": "entry", "close": "close",
        "value": "value", "unrealized": "profit", "currency": "",
    },
    "each": {
        "name": "session", "state": "state", "bars": "new bars", "fills": "fills", "equity": "equity",
        "bar": "last bar", "certificate": "certificate", "error": "error",
    },
}  # fmt: skip
_MONEY: Final = frozenset({"cash", "equity", "profit", "budget", "commission", "value", "unrealized"})
_NUMBERS: Final = frozenset({"units", "filled", "price", "entry_price", "close"})
_SHOWN: Final = ("total_return", "annualized_return", "sharpe", "max_drawdown", "trades", "win_rate", "costs")


def listed(session: Mapping[str, Any]) -> Row:
    """Return a session as a list's table shows it: times to the second, of the certificate the verdict."""
    times = {name: _time(session.get(name)) for name in ("bar", "created_at")}
    return readable({**session, **times, "certificate": _verdict(session)})


def readable(row: Mapping[str, Any]) -> Row:
    """Return a row whose exact decimals are rounded to what a person reads: money to cents, units to six digits."""
    return {name: _rounded(name, value) for name, value in row.items()}


def session_view(session: Mapping[str, Any], held: Sequence[Row]) -> Iterable[RenderableType]:
    """Yield one session's facts, and what it holds."""
    from rich.text import Text

    request: Mapping[str, Any] = session["request"]
    yield Text(str(session["name"]), style="bold")
    reason = f": {session['reason']}" if session["reason"] else ""
    yield f"{session['state']}{reason}" + (", traded now" if session.get("traded") else "")
    yield ""
    facts = {
        "session": session["session_id"],
        "legs": _legs(request["legs"]),
        "feed": f"{session['feed']}, bars of {request['timeframe']}",
        "bars": session["bars"],
        "last bar": _time(session["bar"]),
        "orders": session["orders"],
        "fills": session["fills"],
        "cash": session["cash"],
        "equity": session["equity"],
        "profit": session["profit"],
        "begun": _time(session["created_at"]),
        "ended": _time(session["ended_at"]),
        "traded by": session.get("run"),
        "snapshot": session["snapshot_id"],
        "ledger": session["ledger_hash"],
        "certificate": _verdict(session),
        "bars that came too late": (session.get("certificate") or {}).get("missed") or None,
    }
    yield pairs(readable(facts))
    if held:
        yield ""
        yield grid(map(readable, held), COLUMNS["positions"])


def account_view(account: Mapping[str, Any]) -> Iterable[RenderableType]:
    """Yield a session's money, and what it holds."""
    facts = {"cash": account["cash"], "equity": account["equity"], "after": _time(account["time"])}
    yield pairs(readable(facts))
    yield ""
    held: list[Row] = account["items"]
    yield grid(map(readable, held), COLUMNS["positions"]) if held else "nothing is held"


def traded(result: Mapping[str, Any], links: Mapping[str, str]) -> Iterable[RenderableType]:
    """Yield what a run of a session came to."""
    from rich.text import Text

    yield Text(str(result["name"]), style="bold")
    span = f"{result['start']} → {result['end']}, " if result["start"] else ""
    yield f"{span}{result['bars']} bars, {result['fills']} fills: {result['state']}"
    yield ""
    metrics = result.get("metrics") or {}
    rows = [
        {"metric": METRICS[name][0], "session": written(name, metrics[name])}
        for name in _SHOWN
        if name in metrics
    ]
    rows.append({"metric": "final equity", "session": written("final_equity", result["final_equity"])})
    yield right_aligned(rows, {"metric": "", "session": "session"})
    for said in result.get("warnings") or ():
        yield Text(f"⚠ {said}", style="yellow")
    yield ""
    yield from certified(result["certificate"])
    yield ""
    artifacts: Mapping[str, Any] = result.get("artifacts") or {}
    yield pairs(
        {
            "session": result["session_id"],
            "run": result["run_id"],
            "snapshot": result["snapshot_id"],
            "result": result["result_hash"],
            "report": artifacts.get("report"),
            "Prefect": links.get("prefect"),
        }
    )


def certified(found: Mapping[str, Any]) -> Iterable[RenderableType]:
    """Yield a certificate, and where the session first differs."""
    against = {True: "equal", False: "differs", None: "nothing to compare yet"}
    yield pairs(
        {
            "certificate": found["verdict"],
            "its replay": against[found["replay_equal"]],
            "a backtest": against[found["backtest_equal"]],
            "bars that came too late": _missed(found),
            "ledger": found["ledger_hash"],
            "covers": None
            if found.get("current", True)
            else f"{found['covers']:,} events; there are more by now",
        }
    )
    first = found.get("first_divergence")
    if first:
        yield ""
        yield f"first differs from its {first['of']} at {first['time']}: {first['reason']}"
        sides = {"session": first["session"], first["of"]: first["other"]}
        yield pairs({name: shown(value) for name, value in sides.items()})


def stepped(result: Mapping[str, Any]) -> Iterable[RenderableType]:
    """Yield what a daily run did: a row a session."""
    each: list[Row] = [readable({**row, "bar": _time(row.get("bar"))}) for row in result["each"]]
    if not each:
        yield "no open session trades by a schedule: gpt-trader paper start --schedule begins one"
        return
    errors = any(row.get("error") for row in each)
    yield grid(each, {name: said for name, said in COLUMNS["each"].items() if name != "error" or errors})


def _rounded(name: str, value: object) -> object:
    if value is None or name not in _MONEY | _NUMBERS:
        return value
    return f"{float(str(value)):,.2f}" if name in _MONEY else shown(float(str(value)))


def _missed(found: Mapping[str, Any]) -> str | None:
    first = found.get("first_missed")
    return (
        None
        if first is None
        else f"{found['missed']}, the first {first['symbol']}'s of {_time(first['time'])}"
    )


def _verdict(session: Mapping[str, Any]) -> str | None:
    found = session.get("certificate")
    return None if found is None else found["verdict"] + (", not of all" if found["grown"] else "")


def _legs(legs: Iterable[Mapping[str, Any]]) -> str:
    words = []
    for leg in legs:
        params = shown(leg.get("params") or {})
        words.append(f"{leg['symbol']} {short_strategy(leg['strategy'])}" + (f"({params})" if params else ""))
    return "; ".join(words)


def _time(value: object) -> str | None:
    """Return a time to the second, a midnight as its day."""
    if not value:
        return None
    day, _, clock = str(value).partition("T")
    clock = clock.partition(".")[0].removesuffix("Z")
    return day if clock in ("", "00:00:00") else f"{day} {clock}"
