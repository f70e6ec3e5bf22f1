"""A finished run as a comparison sees it: what was traded and how, what came out, and its equity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gpt_trader.bars import Floats, Times
from gpt_trader.errors import Problem, Refused

#: Terms on which a run traded, as its request names them.
TERMS: Final = ("capital", "commission", "slippage", "size", "stop_loss", "take_profit")


@dataclass(frozen=True)
class Contender:
    """One run. Metrics are fractions, not percent; an undefined one is None.

    `time` and `equity` are (n,), equity at each bar's close, in currency; both None where the run kept none.
    `chosen_of` is how many trials an optimization chose its parameters from, `verdict` what it says of the choice.
    """

    run_id: str
    flow: str
    symbol: str | None
    timeframe: str | None
    strategy: str
    params: Mapping[str, Any]
    direction: str | None
    start: str | None
    end: str | None
    bars: int | None
    snapshot_id: str | None
    bars_hash: str | None
    result_hash: str | None
    metrics: Mapping[str, float | int | None]
    terms: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    chosen_of: int | None = None
    verdict: str | None = None
    time: Times | None = None
    equity: Floats | None = None

    def document(self) -> dict[str, Any]:
        """Return everything but the equity, JSON-ready."""
        return {
            name: dict(value) if isinstance(value, Mapping) else list(value) if name == "warnings" else value
            for name, value in vars(self).items()
            if name not in ("time", "equity")
        }


def contender(
    run_id: str,
    flow: str,
    request: Mapping[str, Any],
    summary: Mapping[str, Any],
    series: tuple[Times, Floats] | None,
) -> Contender:
    """Return a finished run from its request, its summary and its equity (times, values); of an optimization its best.

    Raises Refused for a run without metrics.
    """
    best = summary.get("best")
    judged: Mapping[str, Any] = summary.get("overfitting") or {}
    found = best if isinstance(best, Mapping) else summary
    if not isinstance(found.get("metrics"), Mapping):
        message = f"is a run of {flow}, which has no metrics"
        raise Refused.of(Problem("runs", run_id, message, allowed="runs with metrics: backtest, optimize"))
    time, equity = series or (None, None)
    return Contender(
        run_id=run_id,
        flow=flow,
        strategy=str(summary.get("strategy") or flow),
        params=found.get("params") or {},
        bars=summary.get("bars"),
        result_hash=found.get("result_hash"),
        metrics=found["metrics"],
        terms={name: request[name] for name in TERMS if name in request},
        warnings=tuple(summary.get("warnings") or ()),
        chosen_of=judged.get("trials"),
        verdict=judged.get("verdict"),
        time=time,
        equity=equity,
        **{
            name: summary.get(name)
            for name in ("symbol", "timeframe", "direction", "start", "end", "snapshot_id", "bars_hash")
        },
    )
