"""What an optimization found as one HTML page that needs no other file, runs no script and makes no request."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
from jinja2 import Template
from markupsafe import Markup

from gpt_trader.backtesting.report import formats
from gpt_trader.backtesting.report.drawing import Written
from gpt_trader.backtesting.report.glossary import GLOSSARY, METRICS, Entry
from gpt_trader.backtesting.report.page import display_name
from gpt_trader.backtesting.report.sketch import sketch
from gpt_trader.backtesting.report.static_page import static_template
from gpt_trader.optimization import charts, pictures
from gpt_trader.optimization.glossary import JUDGED, WALKED
from gpt_trader.optimization.neighborhood import neighbors
from gpt_trader.optimization.ranking import allowed, ranked
from gpt_trader.optimization.result import OptimizeResult, summary
from gpt_trader.optimization.study import FAILED
from gpt_trader.optimization.surface import STATES, VALUE, Surface, surface, varied, weights, written

#: Cells along each side of a heat map, points of a line: more are read by nobody.
CELLS: Final = 60
POINTS: Final = 240
#: Trials in the parallel coordinates.
THREADS: Final = 200
#: Metrics of the best combinations, in their table.
_SHOWN: Final = ("total_return", "annualized_return", "sharpe", "max_drawdown", "win_rate", "trades")


def render_html(result: OptimizeResult, *, run_id: str, created_at: str) -> str:
    """Return the report of an optimization. Texts are escaped; the page can be encoded as UTF-8.

    `created_at` is shown as given (ISO 8601).
    """
    shown, study, best = summary(result), result.study, result.top[0]
    objective = METRICS[study.request.objective]
    daily = formats.is_daily(best.time)
    tried = np.isfinite(result.objective)
    better = charts.distribution(result.objective, shown["best"]["objective"])
    page = _template().render(
        result=result,
        shown=shown,
        run_id=run_id,
        name=display_name(study.request.strategy),
        best=best,
        m=best.metrics,
        b=best.benchmark,
        objective=objective,
        daily=daily,
        first=formats.moment(best.time[0], daily=daily),
        last=formats.moment(best.time[-1], daily=daily),
        verdict=_VERDICTS.get(str(result.overfitting.get("verdict")), ("level", "No verdict")),
        judged=_measures(result.overfitting, JUDGED),
        glossary=GLOSSARY,
        sketch=sketch(best),
        parameters=list(study.space.values),
        metrics=[METRICS[name] for name in _SHOWN],
        barred=int(np.count_nonzero(tried & ~allowed(result.screened, result.objective, study.request))),
        map=_over_parameters(result, objective.written),
        neighbors=_neighbors(result),
        threads=_threads(result, objective.written),
        distribution=better,
        histogram=charts.histogram(better, objective.written, _luck(result)),
        reasons=_reasons(result, shown["reasons"]),
        walk=result.walk_forward,
        walked=_measures(result.walk_forward or {}, WALKED),
        timeline=charts.timeline(result.walk_forward) if result.walk_forward else None,
        touched=[best.trades[at] for at in (result.data_quality or {}).get("affected_trades") or ()],
        provenance=_provenance(shown, run_id, created_at),
        request=json.dumps(
            study.request.model_dump(mode="json"), indent=2, sort_keys=True, ensure_ascii=False
        ),
    )
    return page.encode("utf-8", "replace").decode()  # a lone surrogate has no UTF-8 form


_VERDICTS: Final = {
    "accept": ("ahead", "Accepted: more than luck"),
    "reject": ("behind", "Rejected: luck may explain it"),
    "undecided": ("level", "Undecided"),
}


@dataclass(frozen=True)
class _Map:
    """The picture of the objective over the parameters, what it shows, and how much each parameter explains."""

    surface: Surface
    picture: Markup
    weights: dict[str, float]


def _over_parameters(result: OptimizeResult, written_as: Written) -> _Map | None:
    """Return the picture over the two parameters that matter most, or the only one; None where nothing varies."""
    names = varied(result.study.space)
    if not names:
        return None
    weighed = weights(result)
    if len(names) == 1:
        over = surface(result, names, POINTS)
        return _Map(over, pictures.line(over, written_as), weighed)
    most = list(weighed)[:2]
    over = surface(result, [name for name in names if name in most], CELLS)
    return _Map(over, pictures.heat_map(over, written_as), weighed)


@dataclass(frozen=True)
class _Threads:
    """The parallel coordinates of the best trials, and a row for each: its parameters, its objective."""

    picture: Markup
    rows: list[tuple[dict[str, Any], float]]


def _threads(result: OptimizeResult, written_as: Written) -> _Threads | None:
    """Return the best trials drawn through all parameters, where there are more than a heat map shows."""
    if len(varied(result.study.space)) < 3:
        return None
    space, screened = result.study.space, result.screened
    places = ranked(screened, result.objective, result.study.request)[:THREADS].tolist()
    rows = [(space.at(int(screened.number[at])), float(result.objective[at])) for at in places]
    return _Threads(charts.parallel(result, places, written_as), rows)


def _neighbors(result: OptimizeResult) -> list[tuple[dict[str, Any], float, str]]:
    """Return the best and its neighbors: parameters, objective (NaN: none), what became of it."""
    space, screened = result.study.space, result.screened
    best = screened.number.tolist().index(result.numbers[0])
    near = neighbors(space, screened.number, best, result.study.request.method)
    return [
        (
            space.at(int(screened.number[at])),
            float(result.objective[at]),
            "best" if at == best else ("undefined", "skipped", "failed")[screened.state[at]],
        )
        for at in (best, *near.tolist())
    ]


def _reasons(result: OptimizeResult, told: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the commonest reasons with the first combination that they are of, and what became of it."""
    screened = result.screened
    failed = set(screened.number[screened.state == FAILED].tolist())
    return [{**reason, "state": "failed" if reason["first"] in failed else "skipped"} for reason in told]


def _measures(found: Mapping[str, Any], entries: Sequence[Entry]) -> list[tuple[str, str, str]]:
    """Return label, value and meaning of what is there."""
    return [(e.label, e.written(found[e.field]), e.meaning) for e in entries if e.field in found]


def _luck(result: OptimizeResult) -> float | None:
    """Return the objective to expect of luck alone, where it is known."""
    if result.study.request.objective != "sharpe":
        return None
    expected: float | None = result.overfitting.get("expected_by_luck")
    return expected


def _provenance(shown: Mapping[str, Any], run_id: str, created_at: str) -> list[tuple[str, str]]:
    return [
        ("run id", run_id),
        ("created at", created_at),
        ("snapshot id", shown["snapshot_id"]),
        ("result hash", shown["result_hash"]),
        ("best backtest's result hash", shown["best"]["result_hash"]),
        ("bars hash", shown["bars_hash"]),
        ("result schema", str(shown["schema_version"])),
        *formats.flattened(shown["provenance"]),
    ]


def cell(over: Surface, *at: int) -> str | float:
    """Return the objective of a cell, or in words why it has none."""
    state = int(over.state[at])
    return float(over.value[at]) if state == VALUE else STATES[state]


@cache
def _template() -> Template:
    return static_template(
        "optimize",
        {
            "number": formats.number,
            "money": formats.money,
            "percent": formats.percent,
            "moment": formats.moment,
            "written": written,
            "cell": cell,
        },
    )
