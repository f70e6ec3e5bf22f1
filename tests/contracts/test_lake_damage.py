"""Flipped bits and missing files: always found, named, with the way to mend them; and mended by it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.errors import CorruptLake, NotEnoughBars
from gpt_trader.raw_bars import inspect
from storage.lake import Lake
from storage.lake_writing import Arrival, Ingest
from tests.lake_samples import AAPL, IBM, changed, equal, some_bars

SPLITS = CorporateActions.of({date(2020, 3, 2): 2.0})
MORE = CorporateActions.of({date(2020, 3, 2): 2.0}, {date(2020, 4, 1): 0.25})
#: What a bit may flip in without harm: locks, and files that no snapshot names.
NOT_DATA = ("lock", "pins", "tmp")


def flips(lake: Lake, count: int, seed: int) -> Iterator[tuple[Path, int]]:
    """Flip one random bit of a random file of the lake, `count` times; mend it after each."""
    dice = random.Random(seed)
    files = sorted(p for p in lake.root.rglob("*") if p.is_file())
    files = [path for path in files if path.relative_to(lake.root).parts[0] not in NOT_DATA]
    for _ in range(count):
        path = dice.choice(files)
        whole = path.read_bytes()
        bit = dice.randrange(len(whole) * 8)
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        replace(path, bytes(damaged))
        yield path, bit
        replace(path, whole)


def replace(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def flip(path: Path) -> Path:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    replace(path, bytes(content))
    return path


def damage(lake: Lake, symbol: str = "AAPL", timeframe: str = "1d") -> Path:
    return flip(lake.root / lake.entry(symbol, timeframe).files[0].path)


def filled(lake: Lake) -> list[str]:
    """Store daily bars, three years of intraday ones and actions, twice over; return the snapshots' ids."""
    for number, actions in ((1.0, SPLITS), (2.0, MORE)):
        intraday = changed(some_bars(2500, timeframe="4h", start="2019-12-01"), 100, volume=number)
        outcomes = lake.upsert_many(
            [
                Arrival(
                    AAPL, "1d", inspect(changed(some_bars(300), 7, volume=number), "1d"), "sample", actions
                ),
                Arrival(IBM, "4h", inspect(intraday, "4h"), "csv"),
            ]
        )
        assert all(isinstance(outcome, Ingest) for outcome in outcomes)
    return [snapshot.id for snapshot in lake.snapshots()]


def complaints(lake: Lake, ids: list[str]) -> list[str]:
    """Read everything of all snapshots as a fresh process would; return what is said of damage."""
    said = []
    for identity in ids:
        fresh = Lake(lake.root)
        reads: list[Callable[[], object]] = [
            lambda fresh=fresh, identity=identity: fresh.bars("AAPL", snapshot=identity),
            lambda fresh=fresh, identity=identity: fresh.raw_bars("IBM", "4h", snapshot=identity),
            lambda fresh=fresh, identity=identity: fresh.actions("AAPL", snapshot=identity),
            lambda fresh=fresh, identity=identity: fresh.verified_paths(fresh.entries(identity)),
        ]
        for read in reads:
            try:
                read()
            except CorruptLake as error:
                said.append(error.detail)
    return said


@pytest.mark.parametrize("count", [200, pytest.param(3000, marks=pytest.mark.slow)])
def test_every_flipped_bit_is_detected_and_the_file_named(
    lake: Lake, figure: Callable[[str], None], count: int
):
    ids = filled(lake)
    seed = random.randrange(2**32)
    undetected = [
        (str(path), bit)
        for path, bit in flips(lake, count, seed)
        if not any(str(path) in said for said in complaints(lake, ids))
    ]
    figure(f"flipped bits undetected {len(undetected)} / {count} (seed {seed})")
    assert undetected == [], f"seed {seed}: {len(undetected)} of {count} undetected"
    assert complaints(lake, ids) == []


@pytest.mark.parametrize(
    "kind", ["CURRENT", "old manifest", "new manifest", "bars", "year of bars", "actions"]
)
def test_damage_to_each_kind_of_file_is_found_and_hurts_nothing_that_does_not_need_it(lake: Lake, kind: str):
    old, new = filled(lake)
    actions = lake.manifest(new).actions["AAPL"].path
    path = {
        "CURRENT": "CURRENT",
        "old manifest": f"manifests/{old}.json",
        "new manifest": f"manifests/{new}.json",
        "bars": lake.entry("AAPL", snapshot=new).files[0].path,
        "year of bars": lake.entry("IBM", "4h", snapshot=new).files[1].path,
        "actions": actions,
    }[kind]
    flip(lake.root / path)
    said = complaints(lake, [old]), complaints(lake, [new])
    assert [len(one) for one in said] == {
        "CURRENT": [4, 4],
        "old manifest": [4, 0],
        "new manifest": [0, 4],
        "bars": [0, 2],  # as bars and as a path for SQL
        "year of bars": [2, 2],  # both snapshots have it
        "actions": [0, 2],  # by themselves, and where they adjust bars
    }[kind]
    assert all(str(lake.root / path) in detail for one in said for detail in one)


def test_a_damaged_file_says_how_to_fetch_it_again_and_that_mends_it(lake: Lake):
    raw = some_bars(300)
    before = lake.upsert(AAPL, "1d", raw, source="sample").snapshot_id
    path = damage(lake)
    with pytest.raises(CorruptLake, match="gpt-trader data ingest --symbol AAPL --source sample") as caught:
        lake.bars("AAPL")
    assert str(path) in caught.value.detail
    ingest = lake.upsert(AAPL, "1d", raw, source="sample")
    assert ingest.repaired == (str(path.relative_to(lake.root)),)
    assert (ingest.unchanged, ingest.snapshot_id) == (300, before)
    assert len(lake.snapshots()) == 1
    assert equal(lake.raw_bars("AAPL"), raw)


def test_a_missing_file_is_named_and_mended_as_well(lake: Lake):
    raw = some_bars(300, timeframe="4h")
    lake.upsert(AAPL, "4h", raw, source="csv")
    (lake.root / lake.entry("AAPL", "4h").files[0].path).unlink()
    advice = r"is missing\. Fetch it again .* --symbol AAPL --timeframe 4h --source csv --file FILE"
    with pytest.raises(CorruptLake, match=advice):
        lake.bars("AAPL", "4h")
    with pytest.raises(CorruptLake, match="is missing"):
        lake.verified_paths([lake.entry("AAPL", "4h")])
    lake.upsert(AAPL, "4h", raw, source="csv")
    assert equal(lake.raw_bars("AAPL", "4h"), raw)


def test_a_damaged_file_is_not_replaced_by_fewer_bars(lake: Lake):
    lake.upsert(AAPL, "1d", some_bars(300), source="sample")
    damage(lake)
    whole = some_bars(300)
    for fewer in (whole[1:], whole[:-1], whole[np.delete(np.arange(300), 150)]):
        with pytest.raises(CorruptLake, match="bars from 2020-01-01T00:00:00Z to 2020-10-26T00:00:00Z"):
            lake.upsert(AAPL, "1d", fewer, source="sample")


def test_other_bars_over_the_whole_range_replace_a_damaged_file(lake: Lake):
    before = lake.upsert(AAPL, "1d", some_bars(300), source="sample").snapshot_id
    damage(lake)
    restated = changed(some_bars(310), 5, volume=1.0)
    ingest = lake.upsert(AAPL, "1d", restated, source="sample")
    assert ingest.snapshot_id != before
    assert len(ingest.repaired) == 1
    assert equal(lake.raw_bars("AAPL"), restated)


def test_a_series_that_is_replaced_as_a_whole_needs_nothing_of_a_damaged_file(lake: Lake):
    lake.upsert(AAPL, "1d", some_bars(300), source="sample")
    damage(lake)
    fewer = inspect(some_bars(10), "1d")
    (outcome,) = lake.upsert_many([Arrival(AAPL, "1d", fewer, "csv", replaces=True)])
    assert isinstance(outcome, Ingest)
    assert equal(lake.raw_bars("AAPL"), some_bars(10))


def test_damage_done_while_a_process_lives_is_found_by_its_sql_paths(lake: Lake):
    lake.upsert(AAPL, "1d", some_bars(300), source="sample")
    assert len(lake.verified_paths(lake.entries())) == 1
    damage(lake)
    with pytest.raises(CorruptLake, match="is damaged"):
        lake.verified_paths(lake.entries())


def flip_actions(lake: Lake) -> Path:
    return flip(lake.root / lake.manifest().actions["AAPL"].path)


@pytest.mark.parametrize("missing", [False, True], ids=["damaged", "missing"])
def test_a_damaged_list_of_actions_is_named_says_how_to_give_it_and_hurts_adjusted_views_alone(
    lake: Lake, missing: bool
):
    raw = some_bars(300)
    lake.upsert(AAPL, "1d", raw, source="sample", actions=SPLITS)
    path = flip_actions(lake)
    if missing:
        path.unlink()
    fault = "is missing" if missing else "its sha256 is not the one in the manifest"
    for read in (lake.actions, lake.bars):
        with pytest.raises(CorruptLake, match=f"{fault}.*gpt-trader data actions AAPL --file FILE") as caught:
            read("AAPL")
        assert str(path) in caught.value.detail
    assert equal(lake.raw_bars("AAPL"), raw)


@pytest.mark.parametrize("source_knows", [SPLITS, MORE], ids=["the same list", "another list"])
def test_damaged_actions_are_healed_by_the_next_ingest_that_brings_some(
    lake: Lake, source_knows: CorporateActions
):
    raw = some_bars(300)
    before = lake.upsert(AAPL, "1d", raw, source="sample", actions=SPLITS).snapshot_id
    path = flip_actions(lake)
    without = lake.upsert(AAPL, "1d", raw, source="csv")
    assert (without.repaired, without.snapshot_id) == ((), before)
    with pytest.raises(CorruptLake):
        lake.actions("AAPL")

    ingest = lake.upsert(AAPL, "1d", raw, source="sample", actions=source_knows)
    assert ingest.repaired == (str(path.relative_to(lake.root)),)
    found = lake.actions("AAPL")
    assert found is not None
    assert found.logical_hash == source_knows.logical_hash
    assert (ingest.snapshot_id == before) is (source_knows is SPLITS)


def test_damaged_actions_are_replaced_by_a_list_given_by_hand(lake: Lake):
    lake.upsert(AAPL, "1d", some_bars(300), source="sample", actions=SPLITS)
    flip_actions(lake)
    lake.replace_actions("AAPL", SPLITS)
    found = lake.actions("AAPL")
    assert found is not None
    assert found.logical_hash == SPLITS.logical_hash
    assert len(lake.snapshots()) == 1


def test_a_damaged_series_keeps_the_others_of_a_batch_from_nothing(lake: Lake):
    filled(lake)
    path = damage(lake)
    outcomes = lake.upsert_many(
        [
            Arrival(AAPL, "1d", inspect(some_bars(300)[5:], "1d"), "sample"),
            Arrival(IBM, "1d", inspect(some_bars(0), "1d"), "sample"),
            Arrival(
                IBM, "4h", inspect(some_bars(2510, timeframe="4h", start="2019-12-01")[2490:], "4h"), "csv"
            ),
        ]
    )
    assert isinstance(outcomes[0], CorruptLake)
    assert str(path) in outcomes[0].detail
    assert isinstance(outcomes[1], NotEnoughBars)
    assert isinstance(outcomes[2], Ingest)
    assert outcomes[2].added == 10
    assert lake.entry("IBM", "4h").rows == 2510
