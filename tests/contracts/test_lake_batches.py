"""Several arrivals in one snapshot, and what the lake writes down of where bars came from."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.errors import Conflict, CorruptLake, GptTraderError, NotEnoughBars, Refused, UnknownName
from gpt_trader.instruments import Instrument
from gpt_trader.raw_bars import RawBars, inspect
from storage.durable import write_lock
from storage.lake import Lake
from storage.lake_writing import Arrival, Ingest
from storage.manifest import Origin
from tests.lake_samples import AAPL, IBM, changed, equal, some_bars

RAW = some_bars(100)
SPLIT = CorporateActions.of({date(2020, 1, 10): 2.0})


def arrival(
    raw: RawBars,
    instrument: Instrument = AAPL,
    timeframe: str = "1d",
    source: str = "sample",
    actions: CorporateActions | None = None,
    *,
    replaces: bool = False,
) -> Arrival:
    return Arrival(instrument, timeframe, inspect(raw, timeframe), source, actions, replaces)


def stored_actions(lake: Lake, snapshot: str | None = None) -> CorporateActions:
    found = lake.actions("AAPL", snapshot=snapshot)
    assert found is not None
    return found


def ingests(outcomes: list[Ingest | GptTraderError]) -> list[Ingest]:
    assert all(isinstance(outcome, Ingest) for outcome in outcomes), outcomes
    return [outcome for outcome in outcomes if isinstance(outcome, Ingest)]


def test_a_batch_is_one_snapshot_and_its_outcomes_are_in_order(lake: Lake):
    hours = some_bars(50, timeframe="1h")
    outcomes = ingests(
        lake.upsert_many([arrival(RAW, IBM), arrival(hours, AAPL, "1h", "csv"), arrival(RAW[:7], AAPL)])
    )
    assert [(i.symbol, i.timeframe, i.source, i.added) for i in outcomes] == [
        ("IBM", "1d", "sample", 100),
        ("AAPL", "1h", "csv", 50),
        ("AAPL", "1d", "sample", 7),
    ]
    assert {i.snapshot_id for i in outcomes} == {snapshot.id for snapshot in lake.snapshots()}
    assert len(lake.snapshots()) == 1
    assert equal(lake.raw_bars("IBM"), RAW)
    assert equal(lake.raw_bars("AAPL", "1h"), hours)


def test_an_empty_batch_does_nothing(lake: Lake):
    assert lake.upsert_many([]) == []
    assert lake.current() is None
    before = lake.upsert(AAPL, "1d", RAW, source="sample").snapshot_id
    assert lake.upsert_many([]) == []
    assert [snapshot.id for snapshot in lake.snapshots()] == [before]


def test_a_batch_is_what_its_arrivals_are_one_by_one(lake: Lake):
    batch = [arrival(RAW[:60]), arrival(RAW, IBM, actions=SPLIT), arrival(RAW[50:], actions=SPLIT)]
    one_by_one = Lake(lake.root / "other")
    for one in batch:
        one_by_one.upsert_many([one])
    lake.upsert_many(batch)
    assert lake.manifest() == one_by_one.manifest()
    assert (len(lake.snapshots()), len(one_by_one.snapshots())) == (1, 3)


def test_one_bad_arrival_keeps_nobody_back(lake: Lake):
    lake.upsert(AAPL, "1d", RAW, source="sample")
    (lake.root / lake.entry("AAPL").files[0].path).unlink()
    outcomes = lake.upsert_many(
        [arrival(RAW[5:6], AAPL), arrival(RawBars.empty(), IBM), arrival(RAW, IBM, actions=SPLIT)]
    )
    assert [type(outcome) for outcome in outcomes] == [CorruptLake, NotEnoughBars, Ingest]
    assert "source sample gave no bars of IBM 1d" in str(outcomes[1])
    assert equal(lake.raw_bars("IBM"), RAW)
    assert lake.entry("AAPL").rows == 100
    assert len(lake.snapshots()) == 2


def test_a_batch_of_bad_arrivals_alone_commits_nothing(lake: Lake):
    (outcome,) = lake.upsert_many([arrival(RawBars.empty(), IBM, actions=SPLIT)])
    assert isinstance(outcome, NotEnoughBars)
    assert lake.current() is None
    lake.upsert(AAPL, "1d", RAW, source="sample")
    lake.upsert_many([arrival(RawBars.empty(), IBM, actions=SPLIT)])
    assert [i.symbol for i in lake.instruments()] == ["AAPL"]
    assert lake.manifest().actions == {}
    assert len(lake.snapshots()) == 1


def test_an_arrival_without_a_name_of_ours_refuses_the_batch_before_anything_is_written(lake: Lake):
    good = arrival(RAW)
    with pytest.raises(UnknownName, match="'2d' is not known"):
        lake.upsert_many([good, Arrival(AAPL, "2d", good.found, "csv")])
    with pytest.raises(Refused, match="a symbol is 1 to 32 letters"):
        lake.upsert_many([good, Arrival(Instrument.model_construct(symbol="../x"), "1d", good.found, "csv")])
    assert not lake.root.exists()


def test_a_batch_that_gets_no_lock_commits_nothing(lake: Lake):
    with (
        write_lock(lake.root / "lock", wait_seconds=1),
        pytest.raises(Conflict, match="held by another writer"),
    ):
        Lake(lake.root, lock_wait_seconds=0.01).upsert_many([arrival(RAW), arrival(RAW, IBM)])
    assert lake.current() is None


def test_a_series_twice_in_a_batch_is_merged_in_order(lake: Lake):
    outcomes = ingests(
        lake.upsert_many([arrival(RAW[:60]), arrival(changed(RAW, 55, volume=1.0)[50:]), arrival(RAW[55:56])])
    )
    assert [(i.added, i.restated, i.unchanged) for i in outcomes] == [(60, 0, 0), (40, 1, 9), (0, 1, 0)]
    assert equal(lake.raw_bars("AAPL"), RAW)
    assert len(lake.snapshots()) == 1


def test_facts_of_several_arrivals_of_a_symbol_add_up(lake: Lake):
    lake.upsert_many(
        [
            arrival(RAW, Instrument(symbol="AAPL", venue="XNAS")),
            arrival(RAW, Instrument(symbol="AAPL", calendar="XNYS")),
        ]
    )
    assert lake.instrument("AAPL") == Instrument(symbol="AAPL", venue="XNAS", calendar="XNYS")


def test_a_batch_that_changes_nothing_makes_no_snapshot_and_writes_no_file(lake: Lake):
    batch = [arrival(RAW, actions=SPLIT), arrival(some_bars(50, timeframe="4h"), IBM, "4h")]
    (first, _) = ingests(lake.upsert_many(batch))
    state = {path: path.stat().st_mtime_ns for path in lake.root.rglob("*") if path.is_file()}
    again = ingests(lake.upsert_many(batch))
    assert [(i.added, i.restated, i.unchanged) for i in again] == [(0, 0, 100), (0, 0, 50)]
    assert {i.snapshot_id for i in again} == {first.snapshot_id}
    assert len(lake.snapshots()) == 1
    lock = lake.root / "lock"
    assert {p: t for p, t in state.items() if p != lock} == {
        p: p.stat().st_mtime_ns for p in lake.root.rglob("*") if p.is_file() and p != lock
    }


def test_new_actions_alone_make_a_snapshot_and_change_no_file_of_bars(lake: Lake):
    old = lake.upsert(AAPL, "1d", RAW, source="sample", actions=CorporateActions.none())
    files = lake.entry("AAPL").files
    new = lake.upsert(AAPL, "1d", RAW[90:], source="sample", actions=SPLIT)
    assert (new.added, new.restated, new.unchanged) == (0, 0, 10)
    assert new.snapshot_id != old.snapshot_id
    assert lake.entry("AAPL").files == files
    assert len(stored_actions(lake, old.snapshot_id)) == 0
    assert len(stored_actions(lake)) == 1


def test_actions_add_up_and_a_source_that_knows_of_none_takes_none_away(lake: Lake):
    lake.upsert(AAPL, "1d", RAW, source="sample", actions=SPLIT)
    later = CorporateActions.of({}, {date(2020, 2, 3): 0.5})
    lake.upsert_many([arrival(RAW, source="csv"), arrival(RAW, actions=later)])
    assert stored_actions(lake).logical_hash == SPLIT.merged(later).logical_hash
    corrected = CorporateActions.of({date(2020, 1, 10): 3.0})
    lake.upsert(AAPL, "1d", RAW, source="sample", actions=corrected)
    assert stored_actions(lake).split.tolist() == [3.0, 1.0]
    lake.replace_actions("AAPL", CorporateActions.none())
    assert len(stored_actions(lake)) == 0


def test_a_series_can_be_replaced_as_a_whole(lake: Lake):
    lake.upsert(AAPL, "4h", some_bars(500, timeframe="4h", start="2019-11-01"), source="csv")
    shorter = some_bars(20, timeframe="4h", start="2020-01-05", seed=2)
    (outcome,) = ingests(lake.upsert_many([arrival(shorter, AAPL, "4h", "sample", replaces=True)]))
    assert (outcome.added, outcome.remarks) == (20, ())
    assert equal(lake.raw_bars("AAPL", "4h"), shorter)
    assert [origin.source for origin in lake.entry("AAPL", "4h").origins] == ["sample"]


@pytest.mark.parametrize(
    ("before", "source", "said"),
    [
        ("sample", "alpaca", ("bars of source sample were stored before: the series now has bars of both",)),
        ("sample", "sample", ()),
        ("csv", "sample", ()),
        ("sample", "csv", ()),
    ],
)
def test_bars_of_two_vendors_in_one_series_are_remarked(
    lake: Lake, before: str, source: str, said: tuple[str, ...]
):
    lake.upsert(AAPL, "1d", RAW[:50], source=before)
    assert lake.upsert(AAPL, "1d", RAW[45:], source=source).remarks == said


def spans(lake: Lake) -> list[tuple[str, int, int]]:
    """Return the origins of AAPL as source and rows of RAW."""
    days = {np.datetime_as_string(time, unit="s") + "Z": row for row, time in enumerate(RAW.time)}
    return [(o.source, days[o.first], days[o.last]) for o in lake.entry("AAPL").origins]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([("a", 0, 9)], [("a", 0, 9)]),
        ([("a", 0, 9), ("a", 8, 20)], [("a", 0, 20)]),
        ([("a", 0, 9), ("a", 10, 20)], [("a", 0, 20)]),
        ([("a", 50, 60), ("a", 0, 9)], [("a", 0, 60)]),
        ([("a", 0, 50), ("b", 46, 60)], [("a", 0, 50), ("b", 46, 60)]),
        ([("a", 0, 50), ("b", 0, 60)], [("b", 0, 60)]),
        ([("a", 0, 50), ("b", 46, 60), ("b", 56, 70)], [("a", 0, 50), ("b", 46, 70)]),
        ([("a", 0, 50), ("b", 46, 60), ("a", 56, 70)], [("a", 0, 50), ("b", 46, 60), ("a", 56, 70)]),
        # b adds on both sides of a: what lies between is a's all the same
        ([("a", 10, 50), ("b", 46, 60), ("b", 0, 10)], [("a", 10, 50), ("b", 46, 60), ("b", 0, 10)]),
        ([("a", 10, 50), ("b", 46, 60), ("b", 0, 60)], [("b", 0, 60)]),
    ],
)
def test_origins_say_which_source_gave_which_span(
    lake: Lake, given: list[tuple[str, int, int]], expected: list[tuple[str, int, int]]
):
    for number, (source, first, last) in enumerate(given):
        rows = RAW[first : last + 1]
        volume = np.full(len(rows), float(number))
        restated = RawBars(rows.time, rows.open, rows.high, rows.low, rows.close, volume, rows.factor)
        lake.upsert(AAPL, "1d", restated, source=source)
    assert spans(lake) == expected
    assert lake.entry("AAPL").source == given[-1][0]


def test_bars_that_change_nothing_change_no_origin(lake: Lake):
    lake.upsert(AAPL, "1d", RAW, source="a")
    lake.upsert(AAPL, "1d", RAW[20:40], source="b")
    assert lake.entry("AAPL").origins == (Origin("a", "2020-01-01T00:00:00Z", "2020-04-09T00:00:00Z"),)
