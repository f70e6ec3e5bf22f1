"""Finds a source by its name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gpt_trader.adapters.base import Source
from gpt_trader.errors import Problem, Refused, UnknownName

if TYPE_CHECKING:
    from gpt_trader.requests import DataRequest

#: Every source, the default first.
SOURCES: Final = ("sample", "csv")


def source(name: str, request: DataRequest | None = None) -> Source:
    """Return the source `name`, set up for `request` (csv reads the request's file).

    Raises UnknownName with the nearest source, Refused where csv is not told which file and symbol.
    """
    if name == "sample":
        from gpt_trader.adapters.sample import SampleSource

        return SampleSource()
    if name == "csv":
        return _csv(request)
    raise UnknownName.among("source", name, SOURCES)


def _csv(request: DataRequest | None) -> Source:
    from gpt_trader.adapters.csv_file import CsvSource, file_instrument

    if request is None or request.file is None or len(request.symbols) != 1:
        raise Refused.of(
            Problem(
                "file",
                None,
                "source csv reads one symbol from one file: "
                "gpt-trader data ingest --source csv --file FILE --symbol SYMBOL",
            )
        )
    return CsvSource(
        Path(request.file),
        file_instrument(request.symbols[0], request.calendar),
        columns={str(ours): name for ours, name in request.columns.items()},
        timezone=request.timezone,
    )


def unknown_symbol(symbol: str, source_name: str, known: Iterable[str]) -> UnknownName:
    """Return the error for a symbol that neither the lake nor the source has: what there is, and how to bring more."""
    return UnknownName.among(
        "symbol",
        symbol,
        sorted(set(known)),
        message=f"{symbol} is neither in the lake nor listed by the source {source_name}; bring it in with: "
        f"gpt-trader data ingest --source csv --file FILE --symbol {symbol}",
    )
