"""The options of `paper start` and `run`: what a session trades, on which terms, fed by what."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli.commands.complete import complete_param, complete_strategy, complete_symbol
from cli.commands.simulation_options import COSTS, RUN

_LEGS = "Legs"
_FEED = "Feed"
_RISK = "Limits"
_STREAMED = "Trade each new bar as it comes over the live stream of --source, until the session's close."

Symbols = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ID",
        help="Instrument, e.g. AAPL; repeatable, a leg each.",
        autocompletion=complete_symbol,
        rich_help_panel=_LEGS,
    ),
]
StrategyOfLegs = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="What trades the legs of --symbol: a registered strategy, or ./mine.py:MyStrategy (default: momentum).",
        autocompletion=complete_strategy,
        rich_help_panel=_LEGS,
    ),
]
Param = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="A parameter of that strategy; repeatable.",
        autocompletion=complete_param,
        rich_help_panel=_LEGS,
    ),
]
Leg = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ID[@WEIGHT]:STRATEGY[:NAME=VALUE,…]",
        help="One more leg, with its share of the equity, e.g. MSFT@0.4:ma_crossover:fast=10,slow=30; repeatable.",
        rich_help_panel=_LEGS,
    ),
]
Replay = Annotated[
    bool | None,
    typer.Option(
        "--replay/--schedule",
        help="Trade the stored bars of the range (default), or each new bar as the daily run brings it.",
        rich_help_panel=_FEED,
    ),
]
Stream = Annotated[
    bool,
    typer.Option(
        "--live",
        "--stream",
        help=_STREAMED,
        rich_help_panel=_FEED,
    ),
]
StreamOnly = Annotated[bool, typer.Option("--stream", help=_STREAMED, rich_help_panel=_FEED)]
Until = Annotated[
    str | None,
    typer.Option(
        metavar="HH:MM|TIME",
        help="Of a live stream: when it closes, on the exchange's clock, or a time with a zone (default: the "
        "exchange's close; a market that never closes: when it is stopped).",
        rich_help_panel=_FEED,
    ),
]
Hours = Annotated[
    str | None,
    typer.Option(
        metavar="N", help="Of a live stream: it closes so many hours after it began.", rich_help_panel=_FEED
    ),
]
Grace = Annotated[
    str | None,
    typer.Option(
        metavar="SECONDS",
        help="Of a live stream: how long a moment waits for the bars of its other symbols (default: 5).",
        rich_help_panel=_FEED,
    ),
]
Speed = Annotated[
    str | None,
    typer.Option(
        metavar="max|TIMES",
        help="Of a replay: so many times as fast as the market was, or max (default).",
        rich_help_panel=_FEED,
    ),
]
Participation = Annotated[
    str | None,
    typer.Option(
        metavar="FRACTION",
        help="Most of a bar's volume that is traded of it; a larger order fills in parts (default: no bound).",
        rich_help_panel=COSTS,
    ),
]
DailyLoss = Annotated[
    str | None,
    typer.Option(
        metavar="FRACTION",
        help="At this loss since the close of the day before, positions are only closed until the next day.",
        rich_help_panel=_RISK,
    ),
]
Drawdown = Annotated[
    str | None,
    typer.Option(
        metavar="FRACTION",
        help="At this fall from the highest equity everything is closed, and the session halts.",
        rich_help_panel=_RISK,
    ),
]
MaxPosition = Annotated[
    str | None,
    typer.Option(metavar="FRACTION", help="Most of the equity in one symbol.", rich_help_panel=_RISK),
]
MaxExposure = Annotated[
    str | None,
    typer.Option(metavar="FRACTION", help="Most of the equity in all positions.", rich_help_panel=_RISK),
]
Name = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="What lists call the session.", rich_help_panel=RUN),
]
Follow = Annotated[
    bool,
    typer.Option(
        "--follow",
        help="Wait for the run's end and show what it came to; Ctrl-C leaves the session trading.",
        rich_help_panel=RUN,
    ),
]
Live = Annotated[
    bool,
    typer.Option(
        "--live", help="Trade with real money: refused, it is not in the program yet.", rich_help_panel=RUN
    ),
]


def request_values(given: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of the request that options stand for (None: not given).

    Raises Refused for an option that cannot be read, and for a session without a leg.
    """
    from cli.runs.legs import legs_of

    risk = {name: given[name] for name in ("daily_loss", "drawdown")}
    risk |= {name: given[f"max_{name}"] for name in ("position", "exposure")}
    fields = (
        "name", "start", "end", "timeframe", "direction", "source", "capital", "commission", "slippage", "size",
        "stop_loss", "take_profit", "participation", "speed", "until", "hours", "grace",
    )  # fmt: skip
    return {
        **{name: given[name] for name in fields},
        "legs": legs_of(given["symbol"], given["strategy"], given["param"], given["leg"]),
        "snapshot": given["as_of"],
        "risk": {name: value for name, value in risk.items() if value is not None} or None,
        "feed": _feed(given["replay"], stream=given["stream"]),
        "report": False if given["no_report"] else None,
    }


def _feed(replay: bool | None, *, stream: bool) -> str | None:
    """Return the feed that the flags name; raise Refused for two."""
    if not stream:
        return None if replay is None else "replay" if replay else "schedule"
    if replay is not None:
        from gpt_trader.errors import Problem, Refused

        other = "--replay" if replay else "--schedule"
        raise Refused.of(Problem("stream", other, "is another feed than the live stream: give one of them"))
    return "stream"
