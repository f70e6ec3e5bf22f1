"""Tasks over the lake: bring bars in, and load what a request asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from gpt_trader.adapters.sources import source as source_named
from gpt_trader.adapters.sources import unknown_symbol
from gpt_trader.bars import Bars
from gpt_trader.errors import NotEnoughBars, Problem
from gpt_trader.requests import BacktestRequest, DataRequest
from tasks.stores import stores

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State, TaskRun
    from prefect.tasks import Task

    from storage.lake_writing import Ingest


@dataclass(frozen=True)
class LoadedBars:
    """Bars up to the end of the range; those before `first` are warm-up. `snapshot_id` says where they are from."""

    bars: Bars
    first: int
    snapshot_id: str


def _is_io_error(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Retry what may pass by itself (a disk, a network); a refusal would only be refused again."""
    return isinstance(state.result(raise_on_failure=False), OSError)


@task(
    name="ingest",
    task_run_name="ingest-{symbol}",
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=[1, 5],
    retry_condition_fn=_is_io_error,
)
def ingest(symbol: str, request: DataRequest) -> Ingest:
    """Fetch one symbol from the request's source and merge it into the lake; return what changed."""
    home = stores()
    source = source_named(request.source or home.settings.default_source, request)
    from gpt_trader.adapters.base import listed

    instrument = listed(source, symbol)
    raw = source.fetch(symbol, request.timeframe, request.start, request.end)
    return home.lake.upsert(instrument, request.timeframe, raw, source=source.name)


def symbols_of(request: DataRequest) -> list[str]:
    """Return the request's symbols, or every symbol that its source lists."""
    if request.symbols:
        return list(request.symbols)
    source = source_named(request.source or stores().settings.default_source, request)
    return [instrument.symbol for instrument in source.instruments()]


def ensure_bars(request: BacktestRequest) -> None:
    """Ingest the request's symbol, as a task of its own, where the lake lacks it and its source lists it.

    Raises UnknownName that says what there is, in the lake and in the source, and how to bring more.
    """
    home = stores()
    manifest = home.lake.manifest(request.snapshot)
    if request.snapshot or (request.symbol, request.timeframe) in manifest.entries:
        return
    name = request.source or home.settings.default_source
    offered = [i.symbol for i in source_named(name).instruments()] if name != "csv" else []
    if request.symbol not in offered:
        stored = (symbol for symbol, timeframe in manifest.entries if timeframe == request.timeframe)
        raise unknown_symbol(request.symbol, name, [*stored, *offered])
    ingest(request.symbol, DataRequest(symbols=(request.symbol,), source=name, timeframe=request.timeframe))


@task(name="load bars", task_run_name="load-{request.symbol}", cache_policy=NO_CACHE)
def load_bars(request: BacktestRequest) -> LoadedBars:
    """Return the bars of the range with all history before it; raise NotEnoughBars if the range is empty."""
    home = stores()
    snapshot = home.lake.snapshot(request.snapshot)
    whole = home.lake.bars(request.symbol, request.timeframe, snapshot=snapshot.id if snapshot else None)
    first, stop = whole.between(request.start, request.end)
    if first >= stop:
        raise NotEnoughBars.of(
            Problem(
                field="start",
                value=f"{request.start or ''}..{request.end or ''}",
                message=f"the lake has no {request.timeframe} bars of {request.symbol} in this range",
                allowed=f"{whole.time[0].astype('datetime64[D]')} to {whole.time[-1].astype('datetime64[D]')}",
            )
        )
    return LoadedBars(whole[:stop].identified(), first, snapshot.id if snapshot else "")
