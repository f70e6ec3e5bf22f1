"""Runs one backtest: a strategy's targets on bars, executed by vectorbt, measured by `metrics`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import index
from typing import TYPE_CHECKING, SupportsIndex

import numpy as np

from gpt_trader.backtesting import metrics as measure
from gpt_trader.backtesting.execution import execute, vectorbt_version
from gpt_trader.backtesting.result import BacktestResult, iso
from gpt_trader.errors import NotEnoughBars, Problem, Refused
from gpt_trader.simulation.kernel import bound
from gpt_trader.strategies.base import Strategy

if TYPE_CHECKING:
    from gpt_trader.bars import Bars, Floats
    from gpt_trader.requests import BacktestRequest, SimulationRequest

#: Beyond ±1 by no more than this is rounding, not leverage.
_ROUNDING = 1e-9


def simulate(
    bars: Bars,
    first: int,
    strategy: Strategy,
    request: BacktestRequest,
    *,
    snapshot_id: str = "",
    on_stage: Callable[[str], None] | None = None,
) -> BacktestResult:
    """Backtest `strategy` on `bars[first:]`; bars before `first` only warm its indicators up.

    The first decision falls at the close of bar `first` and is filled at the next open, so `equity[0]` is the
    capital; an open position at the end is marked at the last close, not sold. Execution is defined in
    `gpt_trader.backtesting.execution`, every metric in `gpt_trader.backtesting.metrics`. The same arguments give
    the same `result_hash`.

    Args:
        bars: Warm-up bars and the bars of the range, oldest first.
        first: Index of the range's first bar.
        strategy: What to trade; its `direction` should be the request's, which is enforced on its targets.
        request: Capital, costs, size, stops and direction (its dates and symbol have been applied to `bars`).
        snapshot_id: Where the bars came from; recorded, not part of the hash.
        on_stage: Told each stage's name as it starts: `targets`, `simulate`, `metrics`.

    Raises:
        NotEnoughBars: The range is empty, or the bars up to its end are fewer than the strategy's warm-up.
        Refused: The strategy's targets are not finite numbers of [−1, 1], one a bar; or the request sells short
            what cannot be.
    """
    require_bars(bars, first, strategy, request)
    require_shortable(bars, request)
    durations: dict[str, float] = {}

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        if on_stage is not None:
            on_stage(name)
        started = time.perf_counter()
        yield
        durations[name] = time.perf_counter() - started

    traded = bars[first:]
    with stage("targets"):
        targets = wanted_targets(strategy, bars, first, request)
    with stage("simulate"):
        execution = execute(traded, targets, request)
    with stage("metrics"):
        year, equity = bars.periods_a_year, execution.equity
        found = measure.metrics(equity, execution.trades, request.capital, year, execution.position)
        held, held_metrics = measure.benchmark(traded.close, traded.time, request.capital, year)
        drawdowns = measure.drawdowns(equity, traded.time)
    params = strategy.params()
    return BacktestResult(
        symbol=bars.symbol,
        timeframe=bars.timeframe,
        strategy=request.strategy,
        params=params,
        # All parameters, so that a default given and one left out are the same request.
        request={**request.canonical(), "params": params},
        snapshot_id=snapshot_id,
        bars_hash=bars.logical_hash,
        metrics=found,
        benchmark=held_metrics,
        trades=execution.trades,
        drawdowns=drawdowns,
        time=traded.time,
        close=traded.close,
        equity=equity,
        benchmark_equity=held,
        drawdown=measure.drawdown(equity),
        position=execution.position,
        periods_a_year=year,
        provenance={"engine": f"vectorbt {vectorbt_version()}", "durations": durations},
    )


def wanted_targets(strategy: Strategy, bars: Bars, first: int, request: SimulationRequest) -> Floats:
    """Return a strategy's targets on `bars[first:]`, without the sides that the request does not trade.

    Flat until the strategy has seen the bars of its warm-up, however it is asked: a session that begins with the first
    bar there is knows fewer, and its strategy is not called with what it does not expect.

    Raises Refused where they are not finite numbers of [−1, 1], one a bar.
    """
    undecided = declared_warmup(strategy) - 1
    if len(bars) <= undecided:
        return np.zeros(len(bars) - first)
    found = _checked(strategy.targets(bars, first), len(bars), strategy, request)[first:]
    found[: max(undecided - first, 0)] = 0.0
    return found


def declared_warmup(strategy: Strategy) -> int:
    """Return the warm-up that a strategy declares, in bars; raise Refused where it is no whole number from 1 on."""
    declared: object = strategy.warmup
    if type(declared) is int and declared >= 1:  # nearly always, and a sweep asks for each trial
        return declared
    # `index` takes numpy's whole numbers as well, and no fraction.
    bars = index(declared) if isinstance(declared, SupportsIndex) and not isinstance(declared, bool) else 0
    if bars >= 1:
        return bars
    message = f"warmup is {declared!r}"
    allowed = "a whole number of bars, at least 1 (the deciding one)"
    raise Refused.of(Problem("strategy", strategy.name, message, allowed))


def sides(request: SimulationRequest) -> tuple[float, float]:
    """Return the lowest and the highest target that the request trades."""
    return 0.0 if request.direction == "long" else -1.0, 0.0 if request.direction == "short" else 1.0


def require_bars(bars: Bars, first: int, strategy: Strategy, request: SimulationRequest) -> None:
    """Raise NotEnoughBars if there is nothing to trade or nothing to decide from."""
    many = len(bars)
    if 0 <= first < many and declared_warmup(strategy) <= many:
        return
    if first < 0:
        raise ValueError(f"first is {first}, an index of bars is ≥ 0")
    stored = f"{iso(bars.time[0])} to {iso(bars.time[-1])}" if len(bars) else None
    if first >= len(bars):
        asked = f"from {request.start or 'the first'} to {request.end or 'the last'} bar"
        problem = Problem(
            field="start",
            value=str(request.start) if request.start else None,
            message=f"{bars.symbol} has 0 {bars.timeframe} bars {asked}, at least 1 is needed",
            allowed=f"bars there are before the range: {stored}" if stored else None,
        )
    else:
        problem = Problem(
            field="end",
            value=str(request.end) if request.end else None,
            message=(
                f"{bars.symbol} has {len(bars)} {bars.timeframe} bars up to the end of the range ({stored}), "
                f"{strategy.name} needs {strategy.warmup} for its first decision"
            ),
            allowed="a later end, an earlier first bar in the lake, or shorter periods in params",
        )
    raise NotEnoughBars(str(problem), problems=[problem])


def require_shortable(bars: Bars, request: SimulationRequest) -> None:
    """Raise Refused where the request sells short what cannot be."""
    if request.direction != "long" and not bars.instrument.shortable:
        raise Refused.of(
            Problem("direction", request.direction, f"{bars.symbol} cannot be sold short", "long", "long")
        )


def _checked(targets: object, bars: int, strategy: Strategy, request: SimulationRequest) -> Floats:
    """Return what a strategy gave as floats, without the sides that the request does not trade.

    Raises Refused saying which value breaks the contract.
    """
    try:
        values = np.asarray(targets, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise _broken(strategy, f"targets() returned {type(targets).__name__}, not numbers") from error
    if values.shape != (bars,):
        raise _broken(strategy, f"targets() returned shape {values.shape} for {bars} bars")
    low, high = sides(request)
    found = np.empty(bars)
    if (where := bound(np.ascontiguousarray(values), low, high, _ROUNDING, found)) >= 0:
        count = np.count_nonzero(~(np.abs(values) <= 1.0 + _ROUNDING))
        raise _broken(strategy, f"targets()[{where}] is {values[where]} ({count} such values)")
    return found


def _broken(strategy: Strategy, message: str) -> Refused:
    return Refused.of(Problem("strategy", strategy.name, message, "one finite number of [-1, 1] a bar"))


class _Alternating(Strategy):
    """Long, flat, short, and again: touches every path of the engine."""

    name = "alternating"

    def targets(self, bars: Bars, first: int = 0) -> Floats:
        """Return +1, 0, −1, 0, …, one a bar."""
        return np.resize([1.0, 0.0, -1.0, 0.0], len(bars))


def warm_up() -> BacktestResult:
    """Import vectorbt and run every path once, so that a process forked afterwards pays for neither.

    Returns the last result, for whoever wants to warm up what comes after.

    Starts no Python thread. numpy's OpenBLAS starts native ones when it is first imported, unless
    `OPENBLAS_NUM_THREADS=1` is in the environment.
    """
    from gpt_trader.bars import Bars
    from gpt_trader.instruments import Instrument
    from gpt_trader.requests import BacktestRequest
    from gpt_trader.strategies.registry import BUILT_IN, strategy_type

    close = 100.0 + np.sin(np.arange(60.0))
    day = np.datetime64("2000-01-03", "us") + np.arange(60) * np.timedelta64(1, "D")
    bars = Bars(Instrument(symbol="WARM-UP"), "1d", day, close, close + 1.0, close - 1.0, close, close)
    for direction in ("long", "short", "both"):
        for stop in (None, 0.01):
            request = BacktestRequest(symbol="WARM-UP", direction=direction, stop_loss=stop, take_profit=stop)
            result = simulate(bars, 10, _Alternating(), request)
    for name in BUILT_IN:  # what indicators and targets are compiled of
        strategy_type(name)().targets(bars)
    return result
