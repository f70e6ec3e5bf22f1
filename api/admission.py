"""What a request must pass before it becomes a run: everything that can be known without running it.

Prefect accepts unknown parameters and lets the run crash; here the request model, the strategy's own
parameters and the symbols are checked first, so that a wrong name is a 422 with the nearest right one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from api.principals import Principal
from gpt_trader.adapters.names import RESAMPLE
from gpt_trader.adapters.sources import source, streams, unknown_symbol
from gpt_trader.calendars import calendar
from gpt_trader.credentials import credential, required
from gpt_trader.errors import NotFound, Problem, Refused, UnknownName
from gpt_trader.instruments import Instrument
from gpt_trader.optimization.space import search_space
from gpt_trader.portfolio.request import PortfolioRequest
from gpt_trader.requests import (
    BacktestRequest,
    DataRequest,
    OptimizeRequest,
    Request,
    SimulationRequest,
    TradingRequest,
)
from gpt_trader.settings import Home, Settings
from gpt_trader.slices import Slice
from gpt_trader.strategies.registry import build, strategy_type
from gpt_trader.strategies.user import parse_stored_id
from gpt_trader.trading.request import PaperTradeRequest
from gpt_trader.validation import validated
from storage.lake import Lake

#: Sources whose list is at hand without asking a vendor.
_LISTS_AT_ONCE: Final = ("sample",)


def admitted(
    row: Slice, body: Mapping[str, Any], caller: Principal, *, lake: Lake, home: Home, settings: Settings
) -> Request:
    """Return the slice's request made of `body`; raise Refused, UnknownName, NotFound or Denied.

    Reads the lake's manifest and a source's list, never bars; blocks for some milliseconds: call it in a thread.
    """
    request = validated(row.request_type(), body)
    if isinstance(request, SimulationRequest):
        _check_strategy(request, home)
        _check_symbol(request.symbol, request, lake, request.source or settings.default_source)
    if isinstance(request, PortfolioRequest):
        if request.strategy is not None:
            _check_strategy(request.backtest(request.symbols[0]), home)
        for symbol in request.symbols:
            _check_symbol(symbol, request, lake, request.source or settings.default_source)
    if isinstance(request, PaperTradeRequest):
        for leg in request.legs:
            _check_strategy(request.backtest(leg), home)
            if request.feed != "stream":
                _check_symbol(leg.symbol, request, lake, request.source or settings.default_source)
        if request.feed == "stream":
            _check_stream(request, request.source or settings.default_source, home)
    if isinstance(request, DataRequest):
        _check_ingest(request, caller, request.source or settings.default_source, home)
    return request


def _check_strategy(request: SimulationRequest, home: Home) -> None:
    """Build a registered strategy with its parameters; a user's own is code, and code is not run here."""
    stored = parse_stored_id(request.strategy)
    if stored is None:
        strategy = strategy_type(request.strategy)
        if isinstance(request, BacktestRequest):
            build(strategy, request.params, request.direction)
        if isinstance(request, OptimizeRequest):
            search_space(strategy, request)
    elif not (home.strategies / f"{stored[0]}.py").is_file():
        raise NotFound(
            f"strategy {request.strategy} is not stored in this engine: POST its file to /api/v1/strategies"
        )


def _check_symbol(symbol: str, request: TradingRequest, lake: Lake, name: str) -> None:
    """Find the series in the lake's snapshot or, where the newest is meant, in the source's list."""
    entries = lake.manifest(request.snapshot).entries
    if (symbol, request.timeframe) in entries:
        return
    if request.snapshot is not None:
        lake.entry(symbol, request.timeframe, snapshot=request.snapshot)
    listed = _listed(name)
    if listed is not None and symbol not in listed:
        raise unknown_symbol(symbol, name, listed | {symbol for symbol, _ in entries})


def _check_stream(request: PaperTradeRequest, name: str, home: Home) -> None:
    """Find out what can be known without asking the vendor, or loading a library of all venues."""
    if streams(name) == "alpaca":
        required(credential(name, home.credentials), name, "key", "secret")
        source(name).require_stream(request.symbols, request.timeframe)


def _check_ingest(request: DataRequest, caller: Principal, name: str, home: Home) -> None:
    if name == "csv" or request.file is not None:
        caller.must("admin")  # it reads a file of this machine
        _check_file(request)
        return
    if request.calendar is not None:
        calendar(request.calendar)
    if request.refresh or name == RESAMPLE:
        return
    if name == "alpaca":
        required(credential(name, home.credentials), name, "key", "secret")
    listed = _listed(name)
    for symbol in request.symbols:
        if listed is not None and symbol not in listed:
            message = f"source {name} does not list {symbol}"
            raise UnknownName.among("symbols", symbol, sorted(listed), message=message)


def _check_file(request: DataRequest) -> None:
    source("csv", request)  # refuses a missing file name, columns and zones that do not exist
    path = Path(request.file or "")
    if not path.is_absolute():
        allowed = "an absolute path on the engine's machine"
        raise Refused.of(Problem("file", str(path), "is relative, and the engine runs elsewhere", allowed))
    if not path.is_file():
        raise NotFound(f"file {path} does not exist on the engine's machine")


def listed_instruments(name: str) -> list[Instrument]:
    """Return what a source on this machine lists: nothing for one that reads a file, or that would have to be asked."""
    return source(name).instruments() if name in _LISTS_AT_ONCE else []


def _listed(name: str) -> set[str] | None:
    """Return the symbols of a source; None where only the run can ask for them."""
    if name not in (*_LISTS_AT_ONCE, "csv"):
        return None
    return {instrument.symbol for instrument in listed_instruments(name)}
