"""The rules as SQL over the tables of `storage.quality_tables`: one query a rule, over all series at once.

Each answers with rows s, first, last (BIGINT times), bars, detail, last_n: one for each unbroken run of bars.
"""

# ruff: noqa: S608 - the SQL is put together of this module's own constants

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gpt_trader.bars import OHLC_TOLERANCE
from gpt_trader.quality import RuleName
from gpt_trader.raw_bars import VALUES

#: Ratios of splits that happen; beyond them a coincidence is likelier than a split.
_RATIOS: Final = (
    *((p, 1) for p in (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 25, 30, 40, 50, 100, 1000)),
    (3, 2), (4, 3), (5, 2), (5, 3), (5, 4),
)  # fmt: skip

_FINITE: Final = " AND ".join(f"isfinite({name})" for name in VALUES)
_BROKEN: Final = f"""(least(open, high, low, close) <= 0 OR factor <= 0 OR volume < 0 OR high < low
        OR high < greatest(open, close) * (1 - {OHLC_TOLERANCE})
        OR low > least(open, close) * (1 + {OHLC_TOLERANCE}))"""
#: Median absolute deviation × this is the standard deviation of a normal distribution.
_SIGMA: Final = 1.4826


def _runs(flagged: str) -> str:
    """Return the runs of adjacent bars among the flagged ones; `flagged` selects s, n, time, detail."""
    return f"""
        SELECT s, min(time) AS first, max(time) AS last, count(*) AS bars, min_by(detail, n) AS detail,
               max(n) AS last_n
        FROM (SELECT *, n - row_number() OVER (PARTITION BY s ORDER BY n) AS run FROM ({flagged}))
        GROUP BY s, run ORDER BY s, first
    """


#: Made before the rules are asked. A window without an order follows the scan, and needs no sorting: the bars come
#: in order of `n`, in one thread. Bars that are broken by the rules `finite` and `ohlc` have no return,
#: and those that repeat the bar before none that would measure anything.
STEPS: Final = f"""
    CREATE TABLE steps AS
    WITH usable AS (
        SELECT s, n, time, explained, CASE WHEN good THEN volume END AS volume,
               CASE WHEN good THEN close * volume END AS money,
               CASE WHEN good THEN ln(close) END AS ln_close, CASE WHEN good THEN ln(open) END AS ln_open,
               CASE WHEN good THEN ln(high) - ln(low) END AS height,
               CASE WHEN good THEN greatest(ln(high) - ln(greatest(open, close)), ln(least(open, close)) - ln(low))
               END AS wick
        FROM (SELECT *, {_FINITE} AND NOT {_BROKEN} AS good FROM bars)
    ), followed AS (
        SELECT *, lag(s) OVER () IS NOT DISTINCT FROM s AS follows, lag(ln_close) OVER () AS before,
               lag(time) OVER () AS time_before,
               coalesce(ln_close = lag(ln_close) OVER () AND ln_open = lag(ln_open) OVER ()
                   AND height = lag(height) OVER (), false) AS repeats
        FROM usable
    )
    SELECT s, n, time, volume, money, explained,
           CASE WHEN NOT repeats THEN height END AS height, CASE WHEN NOT repeats THEN wick END AS wick,
           CASE WHEN follows AND NOT repeats THEN ln_close - before + explained END AS r,
           CASE WHEN follows AND NOT repeats THEN ln_open - before + explained END AS jump,
           CASE WHEN follows AND intraday THEN greatest((time - time_before) / step, 1.0) ELSE 1.0 END AS apart,
           coalesce(follows AND intraday AND time - time_before - step >= 2700000000, false) AS rested
    FROM followed JOIN series USING (s)
"""

#: How much a series moves: from bar to bar, over a closed market (if it was closed often enough to say), and within.
SCALES: Final = f"""
    CREATE TABLE scales AS
    SELECT s, coalesce(median(r) FILTER (NOT rested), 0) AS middle,
           coalesce(nullif(mad(r) FILTER (NOT rested), 0), median(abs(r)) FILTER (NOT rested AND r <> 0)) * {_SIGMA}
               AS calm,
           CASE WHEN count(r) FILTER (rested) >= 30 THEN coalesce(mad(r) FILTER (rested), 0) ELSE 0 END * {_SIGMA}
               AS reopening,
           coalesce(median(height), 0) AS height
    FROM steps GROUP BY s
"""

_SAME: Final = " AND ".join(f"{name} = lag({name}) OVER ()" for name in ("s", "open", "high", "low", "close"))
_REPEATED: Final = f"""
    SELECT s, n, time, CASE WHEN volume = 0 THEN 'the same prices again, without volume'
        ELSE 'the same prices and volume again' END AS detail
    FROM (SELECT s, n, time, volume, {_SAME} AND (volume = 0 OR volume = lag(volume) OVER ()) AS same FROM bars)
    WHERE same
"""
STALE: Final = f"""
    CREATE TABLE stale AS
    SELECT runs.* FROM ({_runs(_REPEATED)}) AS runs JOIN series USING (s), policy
    WHERE bars >= stale_bars AND bars * step >= stale_minutes * 60000000
"""

#: The few bars that moved far, with what surrounds them: ten bars before and after, the next one not counted. Where
#: the market itself got wild, a wild bar is none of the feed's faults; and the bar after a stale run makes up for it.
MOVES: Final = f"""
    CREATE TABLE moves AS
    WITH far AS (
        SELECT steps.*, middle, scales.height AS usual_height,
               greatest(calm * sqrt(least(apart, 1440)), CASE WHEN rested THEN reopening ELSE 0 END) AS spread
        FROM steps JOIN scales USING (s), policy
        WHERE calm > 0 AND n NOT IN (SELECT last_n + 1 FROM stale) AND (
            abs(r - middle) > least(outlier_z, split_z) * spread
            OR abs(jump - middle) > split_z * spread
            OR wick > outlier_z * greatest(usual_height, calm))
    ), near AS (
        SELECT leap, steps.*
        FROM (SELECT n AS leap, s AS of_s, unnest(range(n - 10, n + 12)) AS n FROM far) JOIN steps USING (n)
        WHERE s = of_s
    ), around AS (
        SELECT leap AS n, max(r) FILTER (n = leap + 1) AS next,
               median(volume) FILTER (n NOT IN (leap, leap + 1)) AS usual_volume,
               median(money) FILTER (n NOT IN (leap, leap + 1)) AS usual_money,
               greatest(median(abs(r)) FILTER (n < leap), median(abs(r)) FILTER (n > leap + 1), 0) * {_SIGMA}
                   AS restless,
               greatest(median(height) FILTER (n < leap), median(height) FILTER (n > leap), 0) AS tall
        FROM near GROUP BY leap
    )
    SELECT far.*, greatest(spread, restless) AS local, greatest(usual_height, tall, spread) AS local_height,
           next, usual_volume, usual_money,
           abs(r - middle) > outlier_z * local AND abs(next) > outlier_z * local AND abs(r + next) <= 0.3 * abs(r)
               AS reverts
    FROM far JOIN around USING (n), policy
"""

SPLITS: Final = f"""
    CREATE TABLE split_like AS
    SELECT moves.*, p, q, ln(p / q) AS size
    FROM moves, policy, (VALUES {", ".join(f"({p}.0, {q}.0)" for p, q in _RATIOS)}) AS ratios(p, q)
    WHERE abs(jump) > split_z * spread AND r / jump > 0.5 AND NOT coalesce(reverts, false)
        AND n NOT IN (SELECT n + 1 FROM moves WHERE reverts)
        AND abs(abs(jump) - size) <= least(greatest(0.01, 2 * spread), 0.05)
        AND NOT (usual_money > 0 AND money > outlier_volume * usual_money)
    QUALIFY row_number() OVER (PARTITION BY n ORDER BY abs(abs(jump) - size)) = 1
"""


_OUTLIERS: Final = """
    WITH leaps AS (
        SELECT s, n, time, reverts, CASE
            WHEN reverts THEN printf('the close leaps by %+.1f %% and comes back', 100 * (exp(r) - 1))
            WHEN abs(jump) > outlier_z * local AND abs(r) <= 0.3 * abs(jump)
                THEN printf('the open leaps by %+.1f %% and the bar comes back', 100 * (exp(jump) - 1))
            WHEN wick > outlier_z * local_height
                THEN printf('high or low lies %.1f %% beyond open and close', 100 * (exp(wick) - 1))
            WHEN abs(r - middle) > outlier_z * local
                    AND NOT (usual_volume > 0 AND volume > outlier_volume * usual_volume)
                THEN printf('the close leaps by %+.1f %% on usual volume', 100 * (exp(r) - 1))
            END AS detail
        FROM moves, policy
    )
    SELECT s, n, time, detail FROM leaps
    WHERE detail IS NOT NULL AND n NOT IN (SELECT n FROM split_like)
        AND n NOT IN (SELECT n + 1 FROM leaps WHERE reverts)
"""

_DUPLICATES: Final = """
    SELECT s, n, time, 'has the time of the bar before' AS detail
    FROM (SELECT s, n, time, lag(s) OVER () AS s_before, lag(time) OVER () AS time_before FROM bars)
    WHERE s = s_before AND time = time_before
"""

_OHLC: Final = f"""
    SELECT s, n, time, CASE
        WHEN least(open, high, low, close) <= 0 THEN 'a price is not above zero'
        WHEN factor <= 0 THEN 'the adjustment factor is not above zero'
        WHEN volume < 0 THEN 'volume is negative'
        WHEN high < low THEN 'high is below low'
        ELSE 'high or low does not contain open and close' END AS detail
    FROM bars WHERE {_FINITE} AND {_BROKEN}
"""

_NOT_FINITE: Final = f"""
    SELECT s, n, time, CASE {" ".join(f"WHEN NOT isfinite({name}) THEN '{name}'" for name in VALUES)} END
        || ' is not a finite number' AS detail
    FROM bars WHERE NOT ({_FINITE})
"""

_SPLIT_FINDINGS: Final = """
    SELECT s, n, time, CASE
        WHEN abs(explained) > abs(jump) / 2
            THEN printf('an action is recorded that the prices do not show: adjusted, they jump by %g:%g', p, q)
        ELSE printf('opens at %.4g of the close before, as by a split of %g:%g: no action explains it',
            exp(jump), CASE WHEN jump < 0 THEN p ELSE q END, CASE WHEN jump < 0 THEN q ELSE p END)
        END AS detail
    FROM split_like
"""

_APART: Final = "greatest({})".format(
    ", ".join(f"abs(b.{name} - r.{name}) / greatest(abs(b.{name}), abs(r.{name}), 1e-300)" for name in VALUES)
)
_CHANGES: Final = ", ".join(
    f"CASE WHEN b.{c} <> r.{c} THEN printf('{c} was %.10g, is %.10g', r.{c}, b.{c}) END" for c in VALUES
)
_RESTATED: Final = f"""
    SELECT s, n, time, concat_ws('; ', {_CHANGES}) AS detail
    FROM bars AS b JOIN revisions AS r USING (s, time), policy WHERE {_APART} > restated_tolerance
"""

#: Rules that name bars.
RULES: Final[Mapping[RuleName, str]] = {
    "extra_sessions": _runs(
        "SELECT s, n, time, 'the calendar has no session then' AS detail FROM bars WHERE outside"
    ),
    "duplicates": _runs(_DUPLICATES),
    "ohlc": _runs(_OHLC),
    "finite": _runs(_NOT_FINITE),
    "stale": "SELECT * FROM stale ORDER BY s, first",
    "outliers": _runs(_OUTLIERS),
    "splits": _runs(_SPLIT_FINDINGS),
    "restated": _runs(_RESTATED),
    "incomplete": _runs("SELECT s, n, time, 'the bar is not over yet' AS detail FROM bars WHERE not_over"),
    "label": _runs(
        "SELECT s, n, time, 'the time lies between two labels of the timeframe' AS detail FROM bars WHERE off_grid"
    ),
}

#: Runs of missing labels (first, last, bars), and whether each is what a thinly traded market leaves: such a market
#: has many gaps, so the chance of one of this length is (share of bars followed by a gap) ^ length. The share is
#: that of this half-hour of the day (with one more, as a gap is never impossible) or of the 120 bars around, whichever
#: is higher. The run itself is left out, and runs are counted, not bars, so that an outage does not look usual.
GAPS: Final = """
    WITH expected AS (
        SELECT s, series.step, intraday, i, label, label // 1800000000 % 48 AS half_hour,
               bars.label IS NULL AS missing
        FROM series JOIN labels USING (grid)
        LEFT JOIN (SELECT DISTINCT s, label FROM bars) AS bars USING (s, label)
        WHERE labels.label BETWEEN series.first AND series.last
    ), runs AS (
        SELECT s, min(i) AS i, min(label) AS first, max(label) AS last, count(*) AS bars,
               min_by(half_hour, i) AS half_hour
        FROM (SELECT *, i - row_number() OVER (PARTITION BY s ORDER BY i) AS run FROM expected WHERE missing)
        GROUP BY s, run
    ), whole AS (
        SELECT s, any_value(intraday) AS intraday, count(*) AS expected, count(*) FILTER (NOT missing) AS present
        FROM expected GROUP BY s
    ), daily AS (
        SELECT s, half_hour, count(*) FILTER (NOT missing) AS present FROM expected GROUP BY s, half_hour
    ), counted AS (
        SELECT runs.*, whole.intraday, whole.expected, whole.present, daily.present AS present_then,
               count(*) OVER (PARTITION BY s) - 1 AS others,
               count(*) OVER (PARTITION BY s, half_hour) - 1 AS others_then,
               count(*) OVER near - 1 AS others_near,
               greatest(120 - (sum(runs.bars) OVER near - runs.bars), 1) AS present_near
        FROM runs JOIN whole USING (s) JOIN daily USING (s, half_hour)
        WINDOW near AS (PARTITION BY s ORDER BY i RANGE BETWEEN 60 PRECEDING AND 60 FOLLOWING)
    ), judged AS (
        SELECT *, others / (others + present) AS share,
               greatest((others_then + 1) / (others_then + present_then + 1),
                        others_near / (others_near + present_near)) AS share_then
        FROM counted
    )
    SELECT s, first, last, bars,
           intraday AND share >= liquid AND pow(share_then, bars) * expected >= gap_chance AS thin
    FROM judged, policy ORDER BY s, first
"""
