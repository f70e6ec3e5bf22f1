"""What the `paper` commands do."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from cli.client.api import Json, Started
from cli.client.connect import wire
from cli.client.sessions import SessionClient
from cli.runs.follow import demand_completed
from cli.runs.follow import follow as follow_run
from cli.runs.prepare import Prepared, prepare
from cli.runs.progress import progress
from cli.runs.submit import finish, start
from cli.terminal.failures import Interrupted
from cli.terminal.options import say
from cli.terminal.render import emit
from cli.terminal.result import show_result
from cli.terminal.sessions import (
    account_view,
    begun,
    certified,
    equity_grid,
    session_grid,
    session_view,
    short,
    table_of,
)
from gpt_trader.errors import NotFound, Problem, Refused, RunFailed, UnknownName
from gpt_trader.runs import FINAL_STATES
from gpt_trader.slices import SLICES
from gpt_trader.trading.request import PaperCertificateRequest, PaperDailyRequest, PaperTradeRequest

_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
#: Letters that the beginning of an id has at least: fewer would be a name's as well.
_BEGINNING: Final = 4
#: Sessions among which a name or the beginning of an id is looked for.
_LOOKED_AT: Final = 1_000
#: Seconds that a worker is given to begin a session.
_BEGIN_SECONDS: Final = 20.0
#: Closes that a table of the equity shows.
_CLOSES: Final = 20


def refuse_live() -> NoReturn:
    """Raise Refused: nothing here sends an order to a real broker."""
    raise Refused.of(
        Problem("live", None, "live trading is not in the program yet: leave --live out to trade on paper")
    )


def start_session(values: Mapping[str, Any], *, follow: bool) -> None:
    """Start a session of `values` (fields of the request; None: not given); with `follow`, show what it came to."""
    prepared = prepare(PaperTradeRequest, values)
    with _sessions() as client:
        started = _started(client, "paper_trade", prepared)
        if follow:
            show_result(_followed(client, started), links=client.absolute(started.links))
            return
        session = _begun(client, started.run_id)
        links = client.absolute(started.links)
    facts = {"session_id": started.run_id, **started.as_dict()}
    emit(facts, table=lambda: begun(started.run_id, session, links))
    if session is None:
        say(
            "no worker has begun it yet: gpt-trader status shows the engine, gpt-trader workflow runs its runs"
        )
    else:
        say(f"look at it: gpt-trader paper show {short(session)}, or gpt-trader monitor")


def _begun(client: SessionClient, session_id: str) -> Json | None:
    """Return the session once its run has begun it, so that the next command finds it; None: nobody has in time.

    Raises what the run says where it ended before.
    """
    end, pause = time.monotonic() + _BEGIN_SECONDS, 0.1
    while True:
        try:
            return client.session(session_id)
        except NotFound:
            run = client.run(session_id)
        if run.get("state") in FINAL_STATES:
            demand_completed(session_id, run)
        if time.monotonic() > end:
            return None
        time.sleep(pause)
        pause = min(pause * 1.5, 1.0)


def show_sessions(*, limit: int, state: str | None) -> None:
    """List sessions, newest first."""
    with _sessions() as client:
        items = client.sessions(limit=limit, state=state)
    empty = "no sessions yet: gpt-trader paper start --symbol AAPL begins one"
    emit(
        items,
        rows=lambda: items,
        table=lambda: [session_grid(items) if items else empty],
    )


def show_session(name: str) -> None:
    """Show one session and what it holds."""
    with _sessions() as client:
        session = _found(client, name)
        held = client.positions(str(session["session_id"]))["items"]
    emit(session, table=lambda: session_view(session, held))


def show_rows(name: str, what: str, *, limit: int) -> None:
    """List a session's newest orders or fills."""
    with _sessions() as client:
        items = client.session_rows(_id(client, name), what, limit=limit)
    emit(
        items,
        rows=lambda: items,
        table=lambda: [table_of(what, items) if items else f"no {what} yet"],
    )


def show_positions(name: str) -> None:
    """Show a session's money and what it holds."""
    with _sessions() as client:
        account = client.positions(_id(client, name))
    emit(account, rows=lambda: account["items"], table=lambda: account_view(account))


def show_equity(name: str) -> None:
    """Show a session's equity and cash at each close."""
    with _sessions() as client:
        columns = client.equity(_id(client, name))
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    emit(
        columns,
        rows=lambda: rows,
        table=lambda: [equity_grid(rows[-_CLOSES:]) if rows else "no bar yet"],
    )


def ask(name: str, command: str, *, flatten: bool = False) -> None:
    """Ask a session to pause, to resume or to stop: it is written down, and done between two bars."""
    with _sessions() as client:
        session_id = _id(client, name)
        if command == "stop":
            answer = client.stop(session_id, flatten=flatten)
        else:
            answer = client.pause(session_id) if command == "pause" else client.resume(session_id)
    run = answer.get("run")
    how = f"run {run['run_id']} was started for it" if run else "it does so between two bars"
    emit(answer, table=lambda: [f"session {name} is asked to {command}: {how}"])
    say(f"look at it: gpt-trader paper show {name}")


def replay_session(name: str) -> None:
    """Make a session's certificate anew and show it."""
    with _sessions() as client:
        session_id = _id(client, name)
        prepared = prepare(PaperCertificateRequest, {"session": session_id})
        started = _started(client, "paper_certificate", prepared)
        result = finish(client, started, "paper replay")
    _show_certificate({"session_id": session_id, "run_id": started.run_id, **result["certificate"]})


def show_certificate(name: str) -> None:
    """Show a session's last certificate."""
    with _sessions() as client:
        found = client.certificate(_id(client, name))
    _show_certificate(found)


def step_sessions(names: Sequence[str], *, refresh: bool) -> None:
    """Run the daily flow now, for these sessions or for all, and show what became of each."""
    with _sessions() as client:
        chosen = [_id(client, name) for name in names]
        given = {"sessions": chosen or None, "refresh": None if refresh else False}
        started = _started(client, "paper_daily", prepare(PaperDailyRequest, given))
        result = finish(client, started, "paper step")
        show_result(result, links=client.absolute(started.links))


def _sessions() -> SessionClient:
    return SessionClient(wire())


def _started(client: SessionClient, slice_name: str, prepared: Prepared) -> Started:
    return start(prepared, lambda server, body: server.submit(SLICES[slice_name].route, body), client)


def _followed(client: SessionClient, started: Started) -> Json:
    """Follow a session's run to its end and return its result; Ctrl-C ends the following, not the session."""
    try:
        with progress("paper") as show:
            final = follow_run(client, started.run_id, show)
    except KeyboardInterrupt:
        raise Interrupted(
            f"no longer followed; the session {started.run_id} goes on: gpt-trader paper show, pause or stop"
        ) from None
    demand_completed(started.run_id, final)
    return client.result(started.run_id)


def _show_certificate(found: Json) -> None:
    emit(found, table=lambda: certified(found))
    if found.get("replay_equal") is False:
        raise RunFailed("the replay of the session's inputs does not lead to its ledger")


def _id(client: SessionClient, name: str) -> str:
    """Return the id of the session that is meant; errors as `_found`."""
    return name.lower() if _ID.fullmatch(name) else str(_found(client, name)["session_id"])


def _found(client: SessionClient, name: str) -> Json:
    """Return the session of an id, of the beginning of one, or of a name.

    Raises UnknownName where there is none, Refused where there are several.
    """
    if _ID.fullmatch(name):
        return client.session(name.lower())
    items = client.sessions(limit=_LOOKED_AT)
    found = [item for item in items if item["name"] == name]
    if not found and len(name) >= _BEGINNING:
        found = [item for item in items if str(item["session_id"]).startswith(name.lower())]
    if not found:
        known = dict.fromkeys(str(item["name"]) for item in items)
        raise UnknownName.among(
            "session", name, list(known), hint="`gpt-trader paper list` shows ids and names"
        )
    if len(found) > 1:
        ids = ", ".join(str(item["session_id"]) for item in found[:5])
        raise Refused.of(
            Problem("session", name, f"{len(found)} sessions are meant: give an id", allowed=ids)
        )
    return found[0]
