"""What an optimization found: the trials, the best as the engine of record has them, whether to believe it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gpt_trader.backtesting import engine
from gpt_trader.backtesting.causality import is_proven, require_causal
from gpt_trader.backtesting.result import BacktestResult
from gpt_trader.bars import Floats
from gpt_trader.errors import GptTraderError, Refused
from gpt_trader.optimization.ranking import objectives, ranked
from gpt_trader.optimization.study import Screened, Study

SCHEMA_VERSION = 1

#: Trials drawn at random that are verified by the engine of record beside the best.
SAMPLED = 10

#: So many of the best are tried for look-ahead.
LOOKAHEAD = 5

#: So many rows are read and hashed at once.
_HASHED = 4_096

#: A number within a reason, which differs from trial to trial; not one that is part of a name.
_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+(?:\.\d+)?(?:e[-+]?\d+)?|nan|inf)(?![\w])", re.IGNORECASE)


@dataclass(frozen=True)
class OptimizeResult:
    """Everything an optimization found. `objective` is (m,), a value a trial, NaN where it was not run or undefined.

    `top` are backtests by the engine of record, the best first, `numbers` their combinations; `verified` is how many
    trials it was held against. `stopped` is `search.Search.stopped`; `optuna_study` names the study that keeps the
    trials for Optuna's tools (None: a search that does not adapt is not kept there). `tried_for_lookahead` is how many
    of the best were tried on a history that was cut off.
    """

    study: Study
    screened: Screened
    objective: Floats
    numbers: tuple[int, ...]
    top: tuple[BacktestResult, ...]
    verified: int
    snapshot_id: str
    overfitting: dict[str, Any]
    walk_forward: dict[str, Any] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    data_quality: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    stopped: dict[str, Any] | None = None
    optuna_study: str | None = None
    tried_for_lookahead: int = 0

    @property
    def result_hash(self) -> str:
        """sha256 over the canonical request, the space, every trial, the best backtest, the verdicts.

        Not in it, as in a backtest's: run id, times, durations, versions.
        """
        digest = hashlib.sha256()
        space = {name: list(values) for name, values in self.study.space.values.items()}
        digest.update(
            _canonical({"schema": SCHEMA_VERSION, "request": self.study.request.canonical(), "space": space})
        )
        digest.update(self.top[0].bars_hash.encode())
        screened = self.screened
        digest.update(screened.number.astype("<i8").tobytes())
        digest.update(screened.state.tobytes())
        for first in range(0, len(screened.number), _HASHED):
            places = np.arange(first, min(first + _HASHED, len(screened.number)))
            digest.update(screened.rows_at(places).astype("<f8").tobytes())
        digest.update(self.top[0].result_hash.encode())
        digest.update(_canonical({"overfitting": self.overfitting, "walk_forward": self.walk_forward}))
        return digest.hexdigest()


def choose(
    study: Study, screened: Screened, *, snapshot_id: str
) -> tuple[Floats, list[int], list[BacktestResult], int]:
    """Return the objective of each trial, the best combinations, their backtests, and how many trials were verified.

    The best and a random sample of the others are simulated by the engine of record, which must agree.
    Raises as `ranking.ranked` where nothing can be chosen, GptTraderError where the two simulations disagree.
    """
    request = study.request
    objective = objectives(screened, study.bars[study.first :], request)
    order = ranked(screened, objective, request)
    best = [int(screened.number[place]) for place in order[: request.top]]
    rest = screened.number[order[request.top :]]
    drawn = rest[np.random.default_rng(request.seed).permutation(len(rest))[:SAMPLED]]
    verified = study.verify([*best, *drawn.tolist()], screened)
    backtests = [
        engine.simulate(
            study.bars,
            study.first,
            study.candidate(number),
            request.backtest(dict(study.space.at(number))),
            snapshot_id=snapshot_id,
        )
        for number in best
    ]
    for place, backtest in zip(order, backtests, strict=False):
        _same_objective(float(objective[place]), backtest, request.objective)
    return objective, best, backtests, verified


def require_causal_best(study: Study, numbers: Sequence[int]) -> int:
    """Try the best combinations on a history that is cut off (`causality.require_causal`); return how many were tried.

    One may look ahead where another does not, and what looks ahead comes first. `LOOKAHEAD` of them bound the cost:
    nine calls of `targets` each. Our own strategies, proven once, are not tried. Raises Refused with the combination.
    """
    tried = 0
    for number in numbers[:LOOKAHEAD]:
        candidate = study.candidate(number)
        if is_proven(candidate):
            continue
        try:
            require_causal(candidate, study.bars, study.first)
        except Refused as refused:
            raise Refused.of(
                *(
                    replace(one, message=f"{one.message} (of {dict(study.space.at(number))})")
                    for one in refused.problems
                )
            ) from None
        tried += 1
    return tried


def _same_objective(screened: float, backtest: BacktestResult, objective: str) -> None:
    found = backtest.metrics.as_dict()[objective]
    if found is None or abs(found - screened) > 1e-9 * max(abs(screened), 1.0):
        raise GptTraderError(
            f"{objective} of {backtest.params} was {screened!r} in the sweep and is {found!r} by the engine of record. "
            "This is a fault of gpt-trader: please report it"
        )


def summary(result: OptimizeResult) -> dict[str, Any]:
    """Return what is shown of a result, JSON-ready; run id, state and artifacts are the run's to add."""
    best, request, study = result.top[0], result.study.request, result.study
    traded = study.bars[study.first :]
    return {
        "schema_version": SCHEMA_VERSION,
        "flow": "optimize",
        "symbol": best.symbol,
        "timeframe": best.timeframe,
        "strategy": request.strategy,
        "direction": request.direction,
        "method": request.method,
        "objective": request.objective,
        "space": {name: list(values) for name, values in study.space.values.items()},
        "snapshot_id": result.snapshot_id,
        "bars_hash": best.bars_hash,
        "result_hash": result.result_hash,
        "start": str(traded.time[0].astype("datetime64[D]")),
        "end": str(traded.time[-1].astype("datetime64[D]")),
        "bars": len(traded),
        "periods_a_year": best.periods_a_year,
        "trials": result.screened.counts(),
        "stopped": result.stopped,
        "optuna_study": result.optuna_study,
        "verified": result.verified,
        "reasons": rules(study, result.screened),
        "tried_for_lookahead": result.tried_for_lookahead,
        "best": _entry(best, request.objective),
        "top": [_entry(backtest, request.objective) for backtest in result.top],
        "benchmark": best.benchmark.as_dict(),
        "overfitting": result.overfitting,
        "walk_forward": result.walk_forward,
        "warnings": list(result.warnings),
        "data_quality": result.data_quality,
        "provenance": result.provenance,
    }


def _entry(backtest: BacktestResult, objective: str) -> dict[str, Any]:
    metrics = backtest.metrics.as_dict()
    return {
        "params": backtest.params,
        "objective": metrics[objective],
        "metrics": {**metrics, "benchmark_return": backtest.benchmark.total_return},
        "result_hash": backtest.result_hash,
    }


def rules(study: Study, screened: Screened, shown: int = 5) -> list[dict[str, Any]]:
    """Return the rules by which trials were skipped or failed, the one of most first.

    A rule is a reason without the numbers in which its trials differ ("fast … must be below slow …"); with it go how
    many trials it is of, and the first of them as an example: its number, its reason word by word, its parameters.
    """
    counted: dict[str, _Rule] = {}
    for number, reason in screened.reasons.items():
        numbers = _NUMBER.findall(reason)
        rule = counted.setdefault(_NUMBER.sub("…", reason), _Rule(number, reason, numbers))
        rule.trials += 1
        rule.common = [one if one == other else "…" for one, other in zip(rule.common, numbers, strict=True)]
    ordered = sorted(counted.values(), key=lambda rule: -rule.trials)
    return [
        {
            "rule": rule.said(),
            "trials": rule.trials,
            "first": rule.first,
            "reason": rule.reason,
            "params": dict(study.space.at(rule.first)),
        }
        for rule in ordered[:shown]
    ]


@dataclass
class _Rule:
    """Reasons that differ in numbers alone: the first, its trial, and the numbers that they have in common (else …)."""

    first: int
    reason: str
    common: list[str]
    trials: int = 0

    def said(self) -> str:
        """Return the first reason without the numbers that differ."""
        common = iter(self.common)
        return _NUMBER.sub(lambda _: next(common), self.reason)


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
