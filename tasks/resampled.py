"""Makes stored series of finer stored ones."""

from __future__ import annotations

from gpt_trader.calendars import calendar
from gpt_trader.errors import GptTraderError, Problem, Refused
from gpt_trader.instruments import Instrument
from gpt_trader.raw_bars import inspect
from gpt_trader.resampling import finer, resampled
from storage.lake import Lake
from storage.lake_writing import Arrival
from storage.market_stream import Commit
from tasks.fetching import Outcome
from tasks.ingest_plan import Series


def make_of_finer(lake: Lake, series: Series, commit: Commit | None = None) -> Outcome:
    """Make one series of the longest finer bars that are stored, commit it, and return what became of it.

    `commit` as in `tasks.fetching.Fetching`.
    """
    outcome = Outcome(series)
    try:
        arrival, remarks = _made(lake, series)
        outcome.remarks |= dict.fromkeys(remarks)
        done = (commit or lake.upsert_many)([arrival])[0]
        if isinstance(done, GptTraderError):
            raise done
        outcome.count(done)
    except GptTraderError as error:
        outcome.error = error
    return outcome


def _made(lake: Lake, series: Series) -> tuple[Arrival, list[str]]:
    manifest = lake.manifest()
    base = next((t for t in finer(series.timeframe) if (series.symbol, t) in manifest.entries), None)
    if base is None:
        raise Refused.of(
            Problem(
                "timeframe",
                series.timeframe,
                f"cannot be made for {series.symbol}: the lake has no finer bars of it",
                allowed=", ".join(finer(series.timeframe)) or "no timeframe is finer",
            )
        )
    name = manifest.instruments[series.symbol].calendar
    made = resampled(
        lake.raw_bars(series.symbol, base),
        base,
        series.timeframe,
        calendar(name) if name else None,
        lake.actions(series.symbol),
    )
    facts = Instrument(symbol=series.symbol)  # names no fact: those that are known stay
    arrival = Arrival(facts, series.timeframe, inspect(made.bars, series.timeframe), series.source)
    return arrival, [f"made of {base} bars", *made.remarks()]
