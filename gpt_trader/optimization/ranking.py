"""Which of the trials are good, and which is best."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpt_trader.bars import Bars, Floats
from gpt_trader.errors import NotEnoughBars, Refused
from gpt_trader.optimization.screening import COLUMNS, objective_of
from gpt_trader.optimization.study import RUN, Screened
from gpt_trader.requests import OptimizeRequest


def objectives(screened: Screened, traded: Bars, request: OptimizeRequest) -> Floats:
    """Return the objective of each trial, (m,); NaN where it was not run or is undefined."""
    year = traded.periods_a_year
    return objective_of(screened.sums, request.objective, len(traded), request.capital, year)


def allowed(screened: Screened, objective: Floats, request: OptimizeRequest) -> NDArray[np.bool_]:
    """Return which trials may be chosen: run, with a defined objective, and within the request's constraints."""
    entries = screened.sums[:, COLUMNS.index("entries")]
    depth = screened.sums[:, COLUMNS.index("depth")]
    chosen: NDArray[np.bool_] = (
        (screened.state == RUN) & np.isfinite(objective) & (entries >= request.min_trades)
    )
    if request.max_drawdown is not None:
        chosen &= depth >= -request.max_drawdown
    return chosen


def ranked(screened: Screened, objective: Floats, request: OptimizeRequest) -> NDArray[np.intp]:
    """Return the places of the trials that may be chosen, the best first; of equal ones the smaller number.

    Raises Refused or NotEnoughBars, with what was in the way, where there is none.
    """
    may = np.flatnonzero(allowed(screened, objective, request))
    if not len(may):
        raise _nothing(screened, objective, request)
    return may[np.lexsort((screened.number[may], -objective[may]))]


def _nothing(screened: Screened, objective: Floats, request: OptimizeRequest) -> Refused | NotEnoughBars:
    counts = screened.counts()
    said = (
        f"of {len(screened.number)} combinations {counts['skipped']} were skipped, {counts['failed']} failed"
    )
    first = next(iter(screened.reasons.values()), "")
    if not counts["run"]:
        return Refused(f"no combination could be tried: {said}; the first: {first}")
    defined = int(np.count_nonzero(np.isfinite(objective)))
    if not defined:
        return Refused(
            f"{request.objective} is undefined for every combination ({said}): did any of them trade?"
        )
    limits = f"min_trades {request.min_trades}"
    limits += f", max_drawdown {request.max_drawdown}" if request.max_drawdown is not None else ""
    return Refused(f"none of {defined} combinations keeps the constraints ({limits}); {said}")
