"""`gpt-trader paper` and `gpt-trader run`: trading sessions, with a simulated broker."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli.commands.complete import complete_session
from cli.commands.session_options import (
    DailyLoss,
    Drawdown,
    Follow,
    Grace,
    Hours,
    Leg,
    Live,
    MaxExposure,
    MaxPosition,
    Name,
    Param,
    Participation,
    Replay,
    Speed,
    StrategyOfLegs,
    Stream,
    StreamOnly,
    Symbols,
    Until,
    request_values,
)
from cli.commands.simulation_options import (
    AsOf,
    Capital,
    Commission,
    Direction,
    End,
    NoReport,
    Size,
    Slippage,
    Source,
    Start,
    StopLoss,
    TakeProfit,
    Timeframe,
)

SessionId = Annotated[
    str,
    typer.Argument(
        metavar="SESSION",
        help="Id of the session, the beginning of one, or a name that no other has.",
        autocompletion=complete_session,
    ),
]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="The newest, so many.", show_default=True)]


def start(
    *,
    symbol: Symbols = None,
    strategy: StrategyOfLegs = None,
    param: Param = None,
    leg: Leg = None,
    replay: Replay = None,
    stream: Stream = False,
    speed: Speed = None,
    until: Until = None,
    hours: Hours = None,
    grace: Grace = None,
    start: Start = None,
    end: End = None,
    timeframe: Timeframe = None,
    direction: Direction = None,
    source: Source = None,
    as_of: AsOf = None,
    capital: Capital = None,
    commission: Commission = None,
    slippage: Slippage = None,
    size: Size = None,
    stop_loss: StopLoss = None,
    take_profit: TakeProfit = None,
    participation: Participation = None,
    daily_loss: DailyLoss = None,
    drawdown: Drawdown = None,
    max_position: MaxPosition = None,
    max_exposure: MaxExposure = None,
    name: Name = None,
    no_report: NoReport = False,
    follow: Follow = False,
) -> None:
    """Start a paper session: strategies trade as they would live, with a simulated broker.

    A replay trades the stored bars of a range, and ends with a certificate that compares it with its backtest. With
    --schedule the session stays open and trades each new bar when `paper step`, or its schedule, brings it; with --live
    each as the source streams it, until the close.

    Example: gpt-trader paper start --replay --symbol AAPL --start 2012-01-03 --end 2012-12-31 --follow
    """
    _begin(locals())


def run(
    *,
    symbol: Symbols = None,
    strategy: StrategyOfLegs = None,
    param: Param = None,
    leg: Leg = None,
    replay: Replay = None,
    stream: StreamOnly = False,
    speed: Speed = None,
    until: Until = None,
    hours: Hours = None,
    grace: Grace = None,
    start: Start = None,
    end: End = None,
    timeframe: Timeframe = None,
    direction: Direction = None,
    source: Source = None,
    as_of: AsOf = None,
    capital: Capital = None,
    commission: Commission = None,
    slippage: Slippage = None,
    size: Size = None,
    stop_loss: StopLoss = None,
    take_profit: TakeProfit = None,
    participation: Participation = None,
    daily_loss: DailyLoss = None,
    drawdown: Drawdown = None,
    max_position: MaxPosition = None,
    max_exposure: MaxExposure = None,
    name: Name = None,
    no_report: NoReport = False,
    follow: Follow = False,
    live: Live = False,
) -> None:
    """Start a trading session, on paper: the same as `paper start`.

    Example: gpt-trader run --symbol AAPL --strategy momentum --start 2012-01-03 --end 2012-12-31 --follow
    """
    _begin(locals())


def _begin(given: dict[str, Any]) -> None:
    """Start the session of these options, which are the command's own parameters by name."""
    from cli.actions.paper import refuse_live, start_session

    if given.get("live"):
        refuse_live()
    start_session(request_values(given), follow=given["follow"])


def list_sessions(
    limit: Limit = 20,
    state: Annotated[
        str | None,
        typer.Option(metavar="STATE", help="Only these, e.g. active, paused, completed."),
    ] = None,
) -> None:
    """List paper sessions, newest first."""
    from cli.actions.paper import show_sessions

    show_sessions(limit=limit, state=state)


def show(session: SessionId) -> None:
    """Show a session: state, account, positions, ledger hash."""
    from cli.actions.paper import show_session

    show_session(session)


def orders(session: SessionId, limit: Limit = 100) -> None:
    """List a session's orders and what became of them."""
    from cli.actions.paper import show_rows

    show_rows(session, "orders", limit=limit)


def fills(session: SessionId, limit: Limit = 100) -> None:
    """List a session's fills."""
    from cli.actions.paper import show_rows

    show_rows(session, "fills", limit=limit)


def positions(session: SessionId) -> None:
    """Show a session's money and what it holds."""
    from cli.actions.paper import show_positions

    show_positions(session)


def equity(session: SessionId) -> None:
    """Show a session's equity and cash at each close; a table shows the newest 20."""
    from cli.actions.paper import show_equity

    show_equity(session)


def pause(session: SessionId) -> None:
    """Open no more positions: what is held is kept, with its stops, until the strategy leaves it."""
    from cli.actions.paper import ask

    ask(session, "pause")


def resume(session: SessionId) -> None:
    """Let a paused session trade again."""
    from cli.actions.paper import ask

    ask(session, "resume")


def stop(
    session: SessionId,
    flatten: Annotated[bool, typer.Option("--flatten", help="Close what is held first.")] = False,
) -> None:
    """End a session: orders are cancelled; what is held stays as it is, or is closed with --flatten."""
    from cli.actions.paper import ask

    ask(session, "stop", flatten=flatten)


def replay(session: SessionId) -> None:
    """Replay a session from its recorded inputs, compare it with a backtest, and show its new certificate.

    Exit code 1 where the replay differs: the ledger is not what its inputs lead to.
    """
    from cli.actions.paper import replay_session

    replay_session(session)


def certificate(session: SessionId) -> None:
    """Show a session's certificate: whether its replay and a backtest over the same bars are equal to it.

    Exit code 1 where the replay differs: the ledger is not what its inputs lead to.
    """
    from cli.actions.paper import show_certificate

    show_certificate(session)


def step(
    session: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SESSION",
            help="Only this session (id, beginning of one, or name); repeatable (default: all that are open).",
            autocompletion=complete_session,
        ),
    ] = None,
    no_refresh: Annotated[
        bool, typer.Option("--no-refresh", help="Fetch no new bars: trade those that are stored.")
    ] = False,
) -> None:
    """Fetch new bars now, and let each session by schedule trade those that it has not seen."""
    from cli.actions.paper import step_sessions

    step_sessions(session or [], refresh=not no_refresh)


def register(app: typer.Typer) -> None:
    """Put the commands on the group."""
    app.command()(start)
    app.command("list")(list_sessions)
    for command in (show, orders, fills, positions, equity, pause, resume, stop, replay, certificate, step):
        app.command()(command)


def register_run(app: typer.Typer) -> None:
    """Put `run` on the tree."""
    app.command()(run)
