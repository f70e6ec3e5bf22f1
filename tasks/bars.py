"""Tasks that give a slice the bars it asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prefect import task
from prefect.cache_policies import NO_CACHE

from gpt_trader.adapters.sources import unknown_symbol
from gpt_trader.backtesting.data_quality import refuse_blocked, refuse_gaps
from gpt_trader.bars import Bars
from gpt_trader.quality import Verdict
from gpt_trader.requests import DataRequest, SimulationRequest, TradingRequest
from storage.bars_in_range import bars_in_range
from storage.judging import verdicts
from tasks.ingest import ingest, sources
from tasks.passing import whole
from tasks.stores import stores


@dataclass(frozen=True)
class LoadedBars:
    """Bars up to the end of the range; those before `first` are warm-up. `snapshot_id` says where they are from.

    `verdict` is on the stored bars of the range.
    """

    bars: Bars
    first: int
    snapshot_id: str
    verdict: Verdict


def ensure_bars(request: SimulationRequest) -> None:
    """Ingest the request's symbol, as a task of its own, where the lake lacks it and its source has it.

    Raises UnknownName that says what there is, in the lake and in the source, and how to bring more.
    """
    ensure_series([request.symbol], request)


def ensure_series(symbols: Sequence[str], request: TradingRequest) -> None:
    """Ingest what the lake lacks of these symbols, together; errors as `ensure_bars`."""
    home = stores()
    manifest = home.lake.manifest(request.snapshot)
    missing = [symbol for symbol in symbols if (symbol, request.timeframe) not in manifest.entries]
    if request.snapshot or not missing:
        return
    name = request.source or home.settings.default_source
    offered: list[str] = []
    unknown = missing
    if name != "csv":
        wanted = DataRequest(symbols=tuple(missing), source=name, timeframes=(request.timeframe,))
        source = sources(wanted)(name)
        offered = [instrument.symbol for instrument in source.instruments()] if source.lists_all else []
        unknown = [symbol for symbol in missing if source.lists_all and symbol not in offered]
        if not unknown:
            ingest(wanted, whole(_tell_nobody))
            return
    stored = (symbol for symbol, timeframe in manifest.entries if timeframe == request.timeframe)
    raise unknown_symbol(unknown[0], name, [*stored, *offered])


def _tell_nobody(done: int, total: int, name: str) -> None:
    """One series needs no progress of its own."""


@task(name="load bars", task_run_name="load-{request.symbol}", cache_policy=NO_CACHE)
def load_bars(request: SimulationRequest) -> LoadedBars:
    """Return the bars of the range with all history before it, adjusted as of the end of the range.

    Raises NotEnoughBars if the range is empty, Refused where bars are missing and the request refuses that.
    """
    home = stores()
    snapshot = home.lake.snapshot(request.snapshot)
    identity = snapshot.id if snapshot else None
    bars, first = bars_in_range(
        home.lake, request.symbol, request.timeframe, request.start, request.end, snapshot=identity
    )
    key = (request.symbol, request.timeframe)
    checked = verdicts(
        home.lake, [key], home.settings.quality, snapshot=identity, start=request.start, end=request.end
    )
    verdict = next(checked)
    refuse_blocked(verdict)
    if request.on_gaps == "refuse":
        refuse_gaps(verdict)
    return LoadedBars(bars.identified(), first, identity or "", verdict)
