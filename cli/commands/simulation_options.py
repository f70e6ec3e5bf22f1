"""The options that every simulation has on the command line: what is simulated, on which terms."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from cli.commands.complete import complete_strategy, complete_symbol

REQUEST = "Request"
COSTS = "Costs and sizing"
RUN = "How it runs"

Symbol = Annotated[
    str | None,
    typer.Option(
        metavar="ID",
        help="Instrument, e.g. AAPL.",
        autocompletion=complete_symbol,
        rich_help_panel=REQUEST,
    ),
]
StrategyName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="A registered strategy, or your own as ./mine.py:MyStrategy (default: momentum).",
        autocompletion=complete_strategy,
        rich_help_panel=REQUEST,
    ),
]
Start = Annotated[
    str | None, typer.Option(metavar="YYYY-MM-DD", help="First day, inclusive.", rich_help_panel=REQUEST)
]
End = Annotated[
    str | None, typer.Option(metavar="YYYY-MM-DD", help="Last day, inclusive.", rich_help_panel=REQUEST)
]
Timeframe = Annotated[
    str | None,
    typer.Option(metavar="BAR", help="Length of a bar, e.g. 1d, 1h.", rich_help_panel=REQUEST),
]
Direction = Annotated[
    Literal["long", "short", "both"] | None,
    typer.Option(help="Sides it may take (default: long).", rich_help_panel=REQUEST),
]
Source = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Where a symbol the lake lacks is ingested from.", rich_help_panel=REQUEST
    ),
]
AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        "--snapshot",
        metavar="TIME|SNAPSHOT",
        help="Read the lake as it was at a time, or by a snapshot's id (default: newest).",
        rich_help_panel=REQUEST,
    ),
]
Capital = Annotated[
    str | None,
    typer.Option(metavar="CASH", help="Initial cash (default: 10000).", rich_help_panel=COSTS),
]
Commission = Annotated[
    str | None,
    typer.Option(
        metavar="FRACTION|MODEL",
        help="Of an order's notional (default: 0.001), or parts, e.g. per_unit=0.005,minimum=1,maximum=0.01.",
        rich_help_panel=COSTS,
    ),
]
Slippage = Annotated[
    str | None,
    typer.Option(
        metavar="FRACTION|MODEL",
        help="Of the fill price (default: 0.0005), or parts, e.g. rate=0.0002,per_unit=0.01.",
        rich_help_panel=COSTS,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        metavar="FRACTION", help="Of equity put into a position (default: 1).", rich_help_panel=COSTS
    ),
]
StopLoss = Annotated[
    str | None,
    typer.Option(metavar="FRACTION", help="Out at this loss from the fill price.", rich_help_panel=COSTS),
]
TakeProfit = Annotated[
    str | None,
    typer.Option(metavar="FRACTION", help="Out at this gain from the fill price.", rich_help_panel=COSTS),
]
Seed = Annotated[
    str | None,
    typer.Option(metavar="N", help="Seed of anything random (default: 0).", rich_help_panel=RUN),
]
NoReport = Annotated[
    bool, typer.Option("--no-report", help="Write no HTML report and no picture.", rich_help_panel=RUN)
]
OnGaps = Annotated[
    Literal["warn", "mark", "refuse"] | None,
    typer.Option(
        help="Where bars are missing: say so, mark the trades they touch too, or do not run (default: mark).",
        rich_help_panel=REQUEST,
    ),
]
