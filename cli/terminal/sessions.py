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
        "session_id": "session", "name": "name", "state": "state", "equity": "equity", "return": "return",
        "bars": "bars", "bar": "last bar", "certificate": "certificate",
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
        "value": "value", "unrealized": "profit", "currency": "currency",
    },
    "each": {
        "name": "session", "state": "state", "bars": "new bars", "fills": "fills", "equity": "equity",
        "bar": "last bar", "certificate": "certificate", "error": "error",
    },
}  # fmt: skip
_MONEY: Final = frozenset(
    {"capital", "cash", "equity", "profit", "budget", "commission", "value", "unrealized"}
)
_NUMBERS: Final = frozenset({"units", "filled", "price", "entry_price", "close"})
#: Fields of the ledger that are times.
_TIMES: Final = frozenset({"time", "after", "bar"})
#: Letters of an id that a list shows at least: `paper show` takes the beginning of one.
_SHORT: Final = 8
_SHOWN: Final = ("total_return", "annualized_return", "sharpe", "max_drawdown", "trades", "win_rate", "costs")


def session_grid(sessions: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Return the list of sessions as a table: ids as short as tells them apart, of the certificate the verdict."""
    ids = [str(each["session_id"]) for each in sessions]
    length = next(n for n in range(_SHORT, 37) if len({each[:n] for each in ids}) == len(set(ids)))
    rows = [
        {
            **each,
            "session_id": str(each["session_id"])[:length],
            "return": gained(each),
            "certificate": _verdict(each),
        }
        for each in sessions
    ]
    return table_of("sessions", rows)


def begun(
    session_id: str, session: Mapping[str, Any] | None, links: Mapping[str, str]
) -> Iterable[RenderableType]:
    """Yield what a session that was just asked for is; None: it has not begun."""
    from rich.text import Text

    if session is None:
        yield pairs({"session": session_id, "state": "waits for a worker", "Prefect": links.get("prefect")})
        return
    request: Mapping[str, Any] = session["request"]
    yield Text(str(session["name"]), style="bold")
    yield ""
    facts = {
        "session": session["session_id"],
        "legs": _legs(request["legs"]),
        "feed": f"{session['feed']}, bars of {request['timeframe']}" + _pace(request),
        "state": session["state"],
        "capital": session.get("capital"),
        "Prefect": links.get("prefect"),
    }
    yield pairs(readable(facts))


def short(session: Mapping[str, Any]) -> str:
    """Return the beginning of a session's id, as far as commands need it."""
    return str(session["session_id"])[:_SHORT]


def table_of(what: str, rows: Iterable[Row]) -> RenderableType:
    """Return one of the lists of `COLUMNS` as a table."""
    return ledger_grid(rows, COLUMNS[what])


def ledger_grid(rows: Iterable[Row], columns: Mapping[str, str]) -> RenderableType:
    """Return rows of a ledger as a table: as a person reads them, amounts and units to the right."""
    return grid(map(readable, rows), columns, numbers=_MONEY | _NUMBERS | {"return"})


def equity_grid(rows: Iterable[Row]) -> RenderableType:
    """Return equity and cash at each close as a table."""
    return ledger_grid(rows, {"time": "bar", "equity": "equity", "cash": "cash"})


def gained(session: Mapping[str, Any]) -> str | None:
    """Return a session's profit as percent of its capital."""
    capital = float(session.get("capital") or 0)
    return None if not capital else f"{float(session['profit']) / capital * 100:+,.2f} %"


def readable(row: Mapping[str, Any]) -> Row:
    """Return a row as a person reads it: money to cents, units to six digits, times to the second, legs from 1."""
    return {name: _part(name, value) for name, value in row.items()}


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
        "feed": f"{session['feed']}, bars of {request['timeframe']}" + _pace(request),
        "bars": session["bars"],
        "last bar": _time(session["bar"]),
        "orders": session["orders"],
        "fills": session["fills"],
        "cash": session["cash"],
        "equity": session["equity"],
        "profit": f"{_rounded('profit', session['profit'])}  {gained(session) or ''}".rstrip(),
        "begun": _time(session["created_at"]),
        "ended": _time(session["ended_at"]),
        "traded by": session.get("run"),
        "snapshot": session["snapshot_id"],
        "ledger": session["ledger_hash"],
        "certificate": _verdict(session, hint=True),
        "bars that came too late": (session.get("certificate") or {}).get("missed") or None,
    }
    yield pairs({name: value if name == "profit" else _rounded(name, value) for name, value in facts.items()})
    if held:
        yield ""
        yield table_of("positions", held)


def account_view(account: Mapping[str, Any]) -> Iterable[RenderableType]:
    """Yield a session's money, and what it holds."""
    facts = {"cash": account["cash"], "equity": account["equity"], "after": _time(account["time"])}
    yield pairs(readable(facts))
    yield ""
    held: list[Row] = account["items"]
    yield table_of("positions", held) if held else "nothing is held"


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
        yield f"first differs from its {first['of']} at {_time(first['time'])}:"
        yield from (f"  {reason}" for reason in str(first["reason"]).split("; "))
        yield ""
        yield pairs({"session": _side(first["session"]), first["of"]: _side(first["other"])})


def _side(value: object) -> str:
    """Return what one side has: an event or a fill, an amount, or nothing."""
    if isinstance(value, Mapping):
        exact = {
            name: _part(name, part) if name in _TIMES | {"leg"} else part for name, part in value.items()
        }
        return shown(exact)
    return "nothing" if value is None else shown(value)


def stepped(result: Mapping[str, Any]) -> Iterable[RenderableType]:
    """Yield what a daily run did: a row a session."""
    each: list[Row] = [readable(row) for row in result["each"]]
    if not each:
        yield "no open session trades by a schedule: gpt-trader paper start --schedule begins one"
        return
    errors = any(row.get("error") for row in each)
    yield grid(
        each,
        {name: said for name, said in COLUMNS["each"].items() if name != "error" or errors},
        numbers=_MONEY,
    )


def _part(name: str, value: object) -> object:
    if name == "leg" and isinstance(value, int):
        return value + 1
    return _time(value) if name in _TIMES else _rounded(name, value)


def _rounded(name: str, value: object) -> object:
    if value is None or name not in _MONEY | _NUMBERS:
        return value
    return two_digits(float(str(value))) if name in _MONEY else shown(float(str(value)))


def two_digits(amount: float) -> str:
    """Return an amount to cents; what rounds to nothing has no sign."""
    return f"{amount:,.2f}".replace("-0.00", "0.00") if abs(amount) < 1 else f"{amount:,.2f}"


def _pace(request: Mapping[str, Any]) -> str:
    speed = request.get("speed", "max")
    return "" if speed == "max" else f", {speed:,.6g} times as fast as the market"


def _missed(found: Mapping[str, Any]) -> str | None:
    first = found.get("first_missed")
    return (
        None
        if first is None
        else f"{found['missed']}, the first {first['symbol']}'s of {_time(first['time'])}"
    )


def _verdict(session: Mapping[str, Any], *, hint: bool = False) -> str | None:
    found = session.get("certificate")
    if found is None:
        return None
    why = f" (why: gpt-trader paper certificate {short(session)})"
    said = str(found["verdict"]) + (", not of all" if found["grown"] else "")
    return said + why if hint and found["verdict"] == "diverged" else said


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
