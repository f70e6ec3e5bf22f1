"""`gpt-trader data sql | export`: the lake asked in SQL, and bars as a file."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from cli.commands.complete import complete_symbol

_AS_OF = typer.Option(
    "--as-of", metavar="TIME|SNAPSHOT", help="Version of the lake to read (default: the newest)."
)


def sql(
    statement: Annotated[
        str,
        typer.Argument(
            metavar="SELECT",
            help="One SELECT over bars_1d, bars_1m, …, series, instruments and actions; - reads it from stdin.",
        ),
    ],
    *,
    as_of: Annotated[str | None, _AS_OF] = None,
    limit: Annotated[
        int, typer.Option(min=1, max=100_000, help="At most this many rows.", show_default=True)
    ] = 1000,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=300, help="Seconds the query may take.", show_default=True)
    ] = 30,
) -> None:
    """Ask the lake in SQL (DuckDB's dialect); nothing can be changed by it.

    Example: gpt-trader data sql "SELECT symbol, max(close) FROM bars_1d GROUP BY symbol"
    """
    from cli.actions.query import ask

    ask(statement, as_of=as_of, limit=limit, timeout=timeout)


def export(
    *,
    symbol: Annotated[
        list[str],
        typer.Option(metavar="ID", help="Instrument; repeatable.", autocompletion=complete_symbol),
    ],
    file: Annotated[str, typer.Option(metavar="PATH", help="Where to write: a name in .parquet or .csv.")],
    timeframe: Annotated[str, typer.Option(metavar="BAR", help="Length of a bar.", show_default=True)] = "1d",
    start: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="First day, inclusive.")] = None,
    end: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="Last day, inclusive.")] = None,
    as_of: Annotated[str | None, _AS_OF] = None,
    adjust: Annotated[
        Literal["all", "split", "none"],
        typer.Option(help="For splits and dividends, for splits alone, or as printed.", show_default=True),
    ] = "all",
    force: Annotated[bool, typer.Option("--force", help="Write over a file that exists.")] = False,
) -> None:
    """Write bars of some instruments into one file, with a column for the symbol; of any length."""
    from cli.actions.query import Wanted, export_bars

    wanted = Wanted(tuple(symbol), timeframe, start, end, as_of, adjust)
    export_bars(wanted, file, force=force)


def register(app: typer.Typer) -> None:
    """Put the commands on the group."""
    app.command()(sql)
    app.command()(export)
