"""`gpt-trader data`: the lake of bars."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from cli.commands.complete import complete_symbol

_SYMBOL_ARGUMENT = typer.Argument(
    metavar="SYMBOL", help="Instrument, e.g. AAPL.", autocompletion=complete_symbol
)


def ingest(
    *,
    symbol: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Instrument to ingest; repeatable. Default: all the source has."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="sample, csv, yahoo, alpaca, ccxt:VENUE, synthetic, or resample: of stored finer bars "
            "(default: setting default_source).",
        ),
    ] = None,
    file: Annotated[
        str | None, typer.Option(metavar="PATH", help="CSV or Parquet file with the bars of one symbol.")
    ] = None,
    timeframe: Annotated[
        list[str] | None,
        typer.Option(metavar="BAR", help="Length of a bar, e.g. 1m, 1h; repeatable (default: 1d)."),
    ] = None,
    start: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="First day, inclusive.")] = None,
    end: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="Last day, inclusive.")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="OURS=THEIRS", help="Column of the file, e.g. close=Last; repeatable."),
    ] = None,
    timezone: Annotated[
        str | None, typer.Option(metavar="ZONE", help="Zone of times without one (default: UTC).")
    ] = None,
    label: Annotated[
        Literal["open", "close"] | None,
        typer.Option(help="Do the file's intraday times name a bar's open or its close (default: open)?"),
    ] = None,
    calendar: Annotated[
        str | None, typer.Option(metavar="NAME", help="Trading calendar, e.g. XNYS, CMES, 24/7.")
    ] = None,
    refetch: Annotated[
        bool, typer.Option("--refetch", help="Fetch what is stored as well, to find what was restated.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put the bars in the place of all that is stored of the series.")
    ] = False,
    refresh: Annotated[
        bool,
        typer.Option("--refresh", help="Bring all stored series up to date, each from its own source."),
    ] = False,
) -> None:
    """Bring bars from a source into the lake; what is stored is not fetched again.

    Example: gpt-trader data ingest --symbol ACME --file acme.csv --column timestamp=Date --column close=Last
    """
    from cli.actions.data import ingest_bars
    from cli.runs.parameters import pairs

    ingest_bars(
        {
            "symbols": symbol or None,
            "source": source,
            "file": file,
            "timeframes": timeframe or None,
            "start": start,
            "end": end,
            "label": label,
            "refetch": refetch or None,
            "replace": replace or None,
            "refresh": refresh or None,
            "columns": pairs(column or [], option="column") or None,
            "timezone": timezone,
            "calendar": calendar,
        }
    )


def list_symbols(
    as_of: Annotated[
        str | None,
        typer.Option(
            "--as-of", metavar="TIME|SNAPSHOT", help="Version of the lake to read (default: the newest)."
        ),
    ] = None,
) -> None:
    """List the symbols of the lake with their ranges."""
    from cli.actions.data import show_symbols

    show_symbols(as_of)


def show(
    symbol: Annotated[str, _SYMBOL_ARGUMENT],
    *,
    timeframe: Annotated[str, typer.Option(metavar="BAR", help="Length of a bar.", show_default=True)] = "1d",
    start: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="First day, inclusive.")] = None,
    end: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="Last day, inclusive.")] = None,
    as_of: Annotated[
        str | None,
        typer.Option(
            "--as-of", metavar="TIME|SNAPSHOT", help="Version of the lake to read (default: the newest)."
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, max=100_000, help="At most this many bars.", show_default=True)
    ] = 20,
) -> None:
    """Show bars of a symbol."""
    from cli.actions.data import show_bars

    show_bars(symbol, timeframe=timeframe, start=start, end=end, as_of=as_of, limit=limit)


def register(app: typer.Typer) -> None:
    """Put the commands on the group."""
    from cli.commands import credentials, market, query, versions

    app.command()(ingest)
    app.command("list")(list_symbols)
    app.command()(show)
    for part in (market, versions, credentials, query):
        part.register(app)
