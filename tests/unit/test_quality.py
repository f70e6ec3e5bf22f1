"""What each rule of the check finds, what it leaves alone, and what a policy makes of it."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime

import numpy as np
import pytest

from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.errors import Refused
from gpt_trader.quality import RULES, Policy, gap_spans, iso, suspects
from gpt_trader.raw_bars import VALUES, RawBars
from gpt_trader.validation import validated
from storage.quality import CheckedSeries, check
from storage.quality_tables import Grids, connected, prepared
from tests.quality_samples import NOW, found, labels, moved, scaled, series, verdict, walk, without

DAYS = labels("XNYS", "1d", "2020-01-01", "2021-12-31")
MINUTES = labels("24/7", "1m", "2024-01-01", "2024-01-03")


def day(row: int) -> str:
    return str(DAYS[row].astype("M8[m]"))


def with_values(bars: RawBars, rows, **values) -> RawBars:
    columns = {name: getattr(bars, name).copy() for name in VALUES}
    for name, value in values.items():
        columns[name][rows] = value
    return RawBars(bars.time, **columns)


def repeated(bars: RawBars, row: int, times: int, *, volume: float | None = None) -> RawBars:
    """Return the bars with one bar's values written over the next ones."""
    columns = {name: getattr(bars, name).copy() for name in VALUES}
    for name, column in columns.items():
        column[row + 1 : row + 1 + times] = column[row] if name != "volume" or volume is None else volume
    return RawBars(bars.time, **columns)


BROKEN = {
    "NaN close": (with_values(walk(DAYS), 40, close=np.nan), "finite", "close is not a finite number"),
    "infinite volume": (with_values(walk(DAYS), 40, volume=np.inf), "finite", "volume is not a finite number"),
    "NaN factor": (with_values(walk(DAYS), 40, factor=np.nan), "finite", "factor is not a finite number"),
    "high below low": (with_values(walk(DAYS), 40, high=80.0), "ohlc", "high is below low"),
    "low above close": (with_values(walk(DAYS), 40, low=walk(DAYS).high[40]), "ohlc", "does not contain"),
    "close in cents alone": (scaled(walk(DAYS), 40, 100, ["close"]), "ohlc", "does not contain"),
    "low of zero": (with_values(walk(DAYS), 40, low=0.0), "ohlc", "not above zero"),
    "negative volume": (with_values(walk(DAYS), 40, volume=-1.0), "ohlc", "volume is negative"),
    "factor of zero": (with_values(walk(DAYS), 40, factor=0.0), "ohlc", "factor is not above zero"),
    "a close in cents": (scaled(walk(DAYS), 40, 100, ["high", "close"]), "outliers", "comes back"),
    "a bar in cents": (scaled(walk(DAYS), 40, 100), "outliers", "leaps by +9"),
    "an open in cents": (scaled(walk(DAYS), 40, 100, ["high", "open"]), "outliers", "the open leaps"),
    "a high in cents": (scaled(walk(DAYS), 40, 100, ["high"]), "outliers", "high or low lies"),
    "a low of a tenth": (scaled(walk(DAYS), 40, 0.1, ["low"]), "outliers", "high or low lies"),
    "a step of 13 % on usual volume": (scaled(walk(DAYS), slice(40, None), 1.13), "outliers", "on usual volume"),
    "one for two": (scaled(walk(DAYS), slice(40, None), 0.5), "splits", "as by a split of 2:1"),
    "three for two": (scaled(walk(DAYS), slice(40, None), 2 / 3), "splits", "as by a split of 3:2"),
    "ten to one": (scaled(walk(DAYS), slice(40, None), 10), "splits", "as by a split of 1:10"),
    "pence for pounds": (scaled(walk(DAYS), slice(40, None), 100), "splits", "as by a split of 1:100"),
}  # fmt: skip


@pytest.mark.parametrize(("bars", "rule", "detail"), BROKEN.values(), ids=BROKEN)
def test_a_broken_bar_is_one_finding_of_its_rule(bars, rule, detail):
    judged = verdict(bars)
    assert [(f.rule, f.first, f.last, f.count) for f in judged.findings] == [(rule, DAYS[40], DAYS[40], 1)]
    assert detail in judged.findings[0].detail
    assert (judged.status, judged.bars, judged.expected) == ("warn", len(DAYS), len(DAYS))


def test_adjacent_bars_are_one_finding_and_others_are_not():
    bars = with_values(walk(DAYS), [40, 41, 42, 50], volume=-1.0)
    assert found(bars) == [("ohlc", day(40), day(42), 3), ("ohlc", day(50), day(50), 1)]


def test_duplicates_count_the_bars_too_many():
    twice = walk(DAYS)[np.sort(np.append(np.arange(len(DAYS)), [40, 40, 70]))]
    assert found(twice) == [("duplicates", day(40), day(40), 2), ("duplicates", day(70), day(70), 1)]


@pytest.mark.parametrize(("times", "volume", "rules"), [
    (5, None, ["stale"]), (4, None, []), (5, 0.0, ["stale"]), (4, 0.0, []),
])  # fmt: skip
def test_a_run_of_repetitions_is_stale_from_five_on(times, volume, rules):
    judged = verdict(repeated(walk(DAYS), 40, times, volume=volume))
    assert [f.rule for f in judged.findings] == rules
    assert [(f.first, f.count) for f in judged.findings] == [(DAYS[41], times)] * len(rules)


def test_a_quiet_price_that_trades_is_not_stale():
    bars = walk(DAYS)
    for name in VALUES[:4]:
        getattr(bars, name)[40:60] = 100.0
    assert found(bars) == []


def test_minutes_must_repeat_for_an_hour():
    assert found(repeated(walk(MINUTES), 40, 59), timeframe="1m", calendar="24/7") == []
    assert found(repeated(walk(MINUTES), 40, 60), timeframe="1m", calendar="24/7") == [
        ("stale", "2024-01-01T00:41", "2024-01-01T01:40", 60)
    ]
    soon = Policy(stale_bars=3, stale_minutes=0)
    assert (
        found(repeated(walk(MINUTES), 40, 3), policy=soon, timeframe="1m", calendar="24/7")[0][0] == "stale"
    )


def test_a_step_on_many_times_the_usual_volume_is_news():
    step = scaled(walk(DAYS), slice(40, None), 0.87)
    assert found(scaled(step, 40, 5, ["volume"])) == []
    half = scaled(walk(DAYS), slice(40, None), 0.5)
    assert found(scaled(half, 40, 10, ["volume"])) == []
    assert found(scaled(half, 40, 2, ["volume"]))[0][0] == "splits", "a split doubles the volume of shares"


def test_a_market_gone_wild_has_no_outliers():
    bars = walk(DAYS)
    noise = np.exp(np.random.default_rng(3).normal(0, 0.04, 60))
    for name in VALUES[:4]:
        getattr(bars, name)[200:260] *= noise
    assert found(bars) == []


def test_series_without_volume_are_judged_too():
    bars = with_values(scaled(walk(DAYS), slice(40, None), 1.13), slice(None), volume=0.0)
    assert found(bars) == [("outliers", day(40), day(40), 1)]


def test_a_weekend_may_move_more_than_a_minute():
    time = labels("CMES", "1m", "2024-01-08", "2024-01-19")
    jumps = np.flatnonzero(np.diff(time) > np.timedelta64(1, "D")) + 1
    calm = moved(walk(time), np.timedelta64(0))
    over_weekend = scaled(calm, slice(jumps[0], None), 1.02)
    assert found(over_weekend, timeframe="1m", calendar="CMES") == []
    within = scaled(calm, slice(jumps[0] + 90, None), 1.06)
    assert [f[0] for f in found(within, timeframe="1m", calendar="CMES")] == ["outliers"]


EX_DATE = DAYS[40].astype("M8[D]").item()


@pytest.mark.parametrize("ratio", [2.0, 1.5, 0.1, 7.0])
def test_a_split_that_is_recorded_is_explained(ratio):
    bars = scaled(walk(DAYS), slice(40, None), 1 / ratio)
    assert found(bars, actions=CorporateActions.of({EX_DATE: ratio})) == []
    sunday = date.fromordinal(EX_DATE.toordinal() - 1)
    assert DAYS[39].astype("M8[D]").item() < sunday, "an ex-date without a bar belongs to the next one"
    assert found(bars, actions=CorporateActions.of({sunday: ratio})) == []
    assert found(bars, actions=CorporateActions.none())[0][:2] == ("splits", day(40))


def test_a_large_dividend_is_explained():
    bars = scaled(walk(DAYS), slice(40, None), 0.8)
    cash = float(bars.close[39]) * 0.2
    assert found(bars, actions=CorporateActions.of(dividends={EX_DATE: cash})) == []


def test_a_change_of_the_sources_own_ratio_explains_a_split():
    factor = np.where(np.arange(len(DAYS)) < 40, 0.25, 0.5)
    bars = with_values(scaled(walk(DAYS), slice(40, None), 0.5), slice(None), factor=factor)
    assert found(bars) == []


def test_a_split_that_the_prices_do_not_show_is_found():
    (finding,) = verdict(walk(DAYS), actions=CorporateActions.of({EX_DATE: 2.0})).findings
    assert (finding.rule, finding.first) == ("splits", DAYS[40])
    assert "the prices do not show" in finding.detail


def test_actions_beyond_the_bars_change_nothing():
    actions = CorporateActions.of({date(1999, 1, 4): 2.0, date(2025, 1, 3): 3.0})
    assert found(walk(DAYS), actions=actions) == []


def test_values_that_changed_when_fetched_again_are_restated():
    bars = walk(DAYS)
    older = scaled(scaled(bars[30:60], 5, 1.01, ["close"]), slice(20, 22), 2, ["volume"])
    judged = verdict(bars, revisions=older)
    assert [(f.rule, f.first, f.last, f.count) for f in judged.findings] == [
        ("restated", DAYS[35], DAYS[35], 1),
        ("restated", DAYS[50], DAYS[51], 2),
    ]
    assert judged.findings[0].detail == f"close was {older.close[5]:.10g}, is {bars.close[35]:.10g}"
    assert found(bars, revisions=bars[30:60]) == []
    assert found(bars, revisions=older, policy=Policy(restated_tolerance=0.6)) == []


@pytest.mark.parametrize(
    ("calendar", "timeframe", "last", "now", "over"),
    [
        ("XNYS", "1d", "2024-03-08T00:00", "2024-03-08T20:59", False),
        ("XNYS", "1d", "2024-03-08T00:00", "2024-03-08T21:00", True),
        ("XNYS", "1d", "2024-11-29T00:00", "2024-11-29T18:00", True),  # a half-day
        ("XNYS", "1w", "2024-03-04T00:00", "2024-03-08T20:59", False),
        ("XNYS", "1w", "2024-03-04T00:00", "2024-03-08T21:00", True),
        ("24/7", "1d", "2024-03-08T00:00", "2024-03-08T23:59", False),
        ("24/7", "1h", "2024-03-08T05:00", "2024-03-08T06:00", True),
        (None, "1h", "2024-03-08T05:00", "2024-03-08T05:59", False),
    ],
)
def test_a_bar_that_is_not_over_is_incomplete(calendar, timeframe, last, now, over):
    step = {"1d": 1, "1w": 7}.get(timeframe)
    every = (
        labels(calendar or "24/7", timeframe, "2024-01-08", last[:10])
        if step
        else np.arange(np.datetime64("2024-03-01", "h"), np.datetime64(last[:13], "h") + 1).astype("M8[us]")
    )
    assert str(every[-1].astype("M8[m]")) == last
    moment = datetime.fromisoformat(now).replace(tzinfo=UTC)
    expected = [] if over else [("incomplete", last, last, 1)]
    assert found(walk(every), calendar=calendar, timeframe=timeframe, now=moment) == expected


def test_a_time_without_a_zone_is_refused():
    with pytest.raises(Refused, match="without a zone"):
        check([series(walk(DAYS))], Policy(), datetime(2024, 1, 1))  # noqa: DTZ001 - this is the case


def thin(seed: int, share: float) -> tuple[RawBars, np.ndarray]:
    bars = walk(MINUTES)
    keep = np.random.default_rng(seed).random(len(bars)) >= share
    keep[[0, -1]] = True
    return bars[keep], keep


@pytest.mark.parametrize("share", [0.02, 0.1, 0.4])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_gaps_of_a_thinly_traded_market_are_a_note(share, seed):
    bars, keep = thin(seed, share)
    judged = verdict(bars, timeframe="1m", calendar="24/7")
    assert judged.findings == ()
    assert judged.notes[0].startswith(f"{np.count_nonzero(~keep)} bars are missing in ")
    assert judged.expected == len(MINUTES)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.4])
def test_an_outage_of_a_thinly_traded_market_is_a_gap(share):
    bars, _ = thin(1, share)
    outage = (bars.time >= MINUTES[2000]) & (bars.time < MINUTES[2060])
    gapped = bars[~outage]
    (gap,) = verdict(gapped, timeframe="1m", calendar="24/7").findings
    assert gap.rule == "gaps"
    assert gap.first <= MINUTES[2000]
    assert gap.last >= MINUTES[2059]
    assert gap.count == (gap.last - gap.first) // np.timedelta64(1, "m") + 1


def test_a_market_that_is_thin_at_night_is_so_at_night():
    """A minute that lacks at noon among nights with few trades is a gap if two lack in a row, at night not."""
    bars = walk(labels("24/7", "1m", "2024-01-01", "2024-01-10"))
    hour = bars.time.astype("M8[h]").astype(int) % 24
    keep = (hour >= 6) | (np.random.default_rng(5).random(len(bars)) > 0.2)
    keep[[0, -1]] = True
    noon = 5 * 1440 + 12 * 60
    keep[noon : noon + 4] = False
    judged = verdict(bars[keep], timeframe="1m", calendar="24/7")
    assert [(f.first, f.count) for f in judged.findings] == [(bars.time[noon], 4)]
    assert max(np.diff(np.flatnonzero(keep[: noon - 400]))) > 4, "longer ones at night are none"


def test_a_liquid_market_has_every_gap_reported():
    bars = without(walk(MINUTES), 100, 2000, slice(3000, 3002))
    assert [f[3] for f in found(bars, timeframe="1m", calendar="24/7")] == [1, 1, 2]
    daily = without(walk(DAYS), *range(20, 400, 20))
    assert [f[3] for f in found(daily)] == [1] * 19, "daily bars of any market"


def test_gap_spans_are_the_first_and_last_missing_labels_in_order():
    firsts, lasts = gap_spans(verdict(without(walk(DAYS), 100, slice(40, 43))))
    assert firsts.tolist() == DAYS[[40, 100]].tolist()
    assert lasts.tolist() == DAYS[[42, 100]].tolist()
    none, _ = gap_spans(verdict(walk(DAYS)))
    assert none.shape == (0,)
    assert none.dtype == "M8[us]"


def test_suspects_are_the_bars_that_the_policy_holds_back():
    bars = with_values(scaled(walk(DAYS), 80, 100), [40, 41], close=np.nan)
    policy = Policy(rules={"finite": "quarantine", "outliers": "quarantine"})
    judged = verdict(bars, policy)
    assert np.flatnonzero(suspects(judged, bars.time)).tolist() == [40, 41, 80]
    assert judged.status == "quarantine"
    assert not suspects(verdict(bars), bars.time).any()


@pytest.mark.parametrize(("severity", "status"), [("warn", "warn"), ("block", "block"), ("off", "ok")])
def test_a_policy_decides_what_a_finding_leads_to(severity, status):
    bars = without(walk(DAYS), 40)
    judged = verdict(bars, Policy(rules={"gaps": severity}))
    assert judged.status == status
    assert [f.severity for f in judged.findings] == ([] if severity == "off" else [severity])


def test_the_gravest_finding_is_the_status():
    bars = without(with_values(walk(DAYS), 60, close=np.nan), 40)
    assert verdict(bars, Policy(rules={"finite": "quarantine", "gaps": "block"})).status == "block"
    assert verdict(bars, Policy(rules={"finite": "quarantine"})).status == "quarantine"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rules": {"gaps": "quarantine"}}, "gaps names no bars that could be quarantined: off, warn or block"),
        ({"rules": {"ohlc": "quarantin"}}, "did you mean 'quarantine'"),
        ({"rules": {"outlier": "warn"}}, "did you mean 'outliers'"),
        ({"outlier_zz": 3}, "did you mean 'outlier_z'"),
        ({"outlier_z": 0}, "greater than 0"),
    ],
)  # fmt: skip
def test_a_policy_that_makes_no_sense_is_refused(values, message):
    with pytest.raises(Refused, match=message):
        validated(Policy, values)


def test_a_document_is_json_with_iso_times():
    judged = verdict(without(walk(DAYS), 40))
    document = json.loads(json.dumps(judged.document()))
    assert document == {
        "schema_version": 1, "symbol": "TEST", "timeframe": "1d", "status": "warn", "bars": 504, "expected": 505,
        "first": "2020-01-02T00:00:00Z", "last": "2021-12-31T00:00:00Z", "calendar": "XNYS", "notes": [],
        "findings": [{"rule": "gaps", "severity": "warn", "first": "2020-03-02T00:00:00Z",
                      "last": "2020-03-02T00:00:00Z", "count": 1, "detail": "1 expected bar is missing"}],
    }  # fmt: skip
    assert judged.counts() == {"gaps": 1}
    assert iso(np.datetime64("2024-01-01T00:00:00.5", "us")) == "2024-01-01T00:00:00.500000Z"


def test_no_bars_are_no_fault():
    judged = verdict(RawBars.empty())
    assert (judged.bars, judged.first, judged.expected, judged.status) == (0, None, None, "ok")
    assert judged.document()["first"] is None
    assert verdict(walk(DAYS[:1])).status == "ok"


def test_series_are_judged_apart_and_in_order(monkeypatch):
    """However many are checked at once: neighbours in a table must not be neighbours in time."""
    daily = [walk(DAYS, seed) for seed in range(4)]
    high = scaled(daily[1], slice(None), 1000)
    given = [
        series(daily[0], symbol="A"),
        series(high, symbol="B"),
        series(RawBars.empty(), symbol="C"),
        series(walk(MINUTES), symbol="D", calendar="24/7", timeframe="1m"),
        series(with_values(daily[2], 0, close=np.nan), symbol="E"),
        series(without(daily[3], 40), symbol="F", calendar=None),
        series(without(daily[3], 40), symbol="G"),
    ]
    whole = [v.document() for v in check(given, Policy(), NOW)]
    assert [(d["symbol"], [f["rule"] for f in d["findings"]]) for d in whole] == [
        ("A", []), ("B", []), ("C", []), ("D", []), ("E", ["finite"]), ("F", []), ("G", ["gaps"]),
    ]  # fmt: skip
    monkeypatch.setattr("storage.quality._TOGETHER", 600)
    assert [v.document() for v in check(given, Policy(), NOW)] == whole


def test_every_rule_is_known_to_the_policy_and_warns():
    assert {Policy().severity(rule) for rule in RULES} == {"warn"}
    assert all(rule.meaning.endswith(".") for rule in RULES.values())


@pytest.mark.parametrize("sql", [
    "SELECT * FROM read_csv('/etc/passwd')", "COPY bars TO '/tmp/out.csv'", "SET enable_external_access = true",
    "ATTACH '/tmp/x.db'", "SELECT * FROM DAYS",
])  # fmt: skip
def test_the_connection_touches_no_file(sql):
    import duckdb

    one = series(walk(DAYS))
    with (
        connected([prepared(one, Grids([one]), NOW)], Policy()) as connection,
        pytest.raises(duckdb.Error),
    ):
        connection.execute(sql)


def test_a_checked_series_is_named_by_its_instrument():
    assert isinstance(series(walk(DAYS), symbol="ABC"), CheckedSeries)
    assert series(walk(DAYS), symbol="ABC").symbol == "ABC"
