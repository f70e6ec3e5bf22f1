"""Collection: what is kept, what goes, and what a reader is told."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.errors import NotFound
from gpt_trader.raw_bars import RawBars
from storage.catalog import Snapshot
from storage.lake import Lake
from storage.manifest import Manifest
from tests.contracts.lake_workers import Nursery, ended, needed, python, stored, together
from tests.lake_samples import AAPL, IBM, changed, equal, some_bars
from tests.waiting import eventually

RAW = some_bars(20)


def restate(lake: Lake, *numbers: int) -> list[Snapshot]:
    """Write versions of a series that differ in a volume; return the snapshots of all."""
    for number in numbers:
        lake.upsert(AAPL, "1d", version(number), source="sample")
    return list(lake.snapshots())


def version(number: int) -> RawBars:
    return changed(RAW, 3, volume=float(number))


def now() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=1)


def ids(snapshots: Iterable[Snapshot]) -> list[str]:
    return [snapshot.id for snapshot in snapshots]


def test_all_but_the_newest_snapshot_goes_with_its_files(lake: Lake):
    *old, newest = restate(lake, 1, 2, 3)
    files = stored(lake)
    done = lake.collect(now(), set)
    assert done.snapshots == tuple(sorted(ids(old)))
    assert (done.files, done.kept) == (2, 1)
    assert lake.snapshots() == (Snapshot(newest.id, newest.created_at, None),)
    assert equal(lake.raw_bars("AAPL"), version(3))
    assert stored(lake) == needed(lake)
    assert len(files - stored(lake)) == 4


def test_what_is_freed_is_told_in_bytes_of_files_and_manifests(lake: Lake):
    restate(lake, 1, 2)
    before = {name: (lake.root / name).stat().st_size for name in stored(lake)}
    done = lake.collect(now(), set)
    assert done.bytes == sum(size for name, size in before.items() if name not in stored(lake)) > 0


def test_an_empty_lake_and_one_without_anything_old_lose_nothing(lake: Lake):
    assert (lake.collect(now(), set).files, lake.current()) == (0, None)
    restate(lake, 1)
    done = lake.collect(now(), set)
    assert (done.snapshots, done.files, done.bytes, done.kept) == ((), 0, 0, 1)
    assert not (lake.root / "DOOMED").exists()


def test_a_snapshot_is_as_old_as_the_time_when_a_newer_one_replaced_it(lake: Lake):
    first, second, third, _ = restate(lake, 1, 2, 3, 4)
    assert lake.collect(second.created_at, set).snapshots == ()
    assert lake.collect(second.created_at + timedelta(microseconds=1), set).snapshots == (first.id,)
    assert lake.collect(third.created_at, set).snapshots == ()
    assert equal(lake.raw_bars("AAPL", snapshot=second.id), version(2))


def test_what_a_run_names_stays(lake: Lake):
    first, second, third = restate(lake, 1, 2, 3)
    done = lake.collect(now(), lambda: {first.id, "f" * 32})
    assert done.snapshots == (second.id,)
    assert ids(lake.snapshots()) == [first.id, third.id]
    assert equal(lake.raw_bars("AAPL", snapshot=first.id), version(1))


def test_runs_are_asked_after_the_readers_were_looked_for(lake: Lake):
    """A run that ends in between is in one of the two: its pin is seen, or its result is."""
    first, *_ = restate(lake, 1, 2)
    held = lake.pinned(first.id)
    held.__enter__()

    def run_ends() -> set[str]:
        held.__exit__(None, None, None)
        return set()

    assert lake.collect(now(), run_ends).snapshots == ()
    assert equal(lake.raw_bars("AAPL", snapshot=first.id), version(1))


def test_what_somebody_reads_stays_until_they_have_ended(lake: Lake):
    first, second, *_ = restate(lake, 1, 2, 3)
    with lake.pinned(first.id) as held, Lake(lake.root).pinned(first.id):
        assert held == first
        assert lake.collect(now(), set).snapshots == (second.id,)
        assert equal(lake.raw_bars("AAPL", snapshot=first.id), version(1))
    assert list((lake.root / "pins").iterdir()) == []
    assert lake.collect(now(), set).snapshots == (first.id,)


HOLD = """
import sys
from pathlib import Path
from storage.lake import Lake
with Lake(Path(sys.argv[1])).pinned(sys.argv[2]):
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_the_pin_of_another_process_holds_and_ends_with_it_however_it_ends(lake: Lake):
    first, *_ = restate(lake, 1, 2)
    with together([python(HOLD, lake.root, first.id)]) as (reader,):
        assert lake.collect(now(), set).snapshots == ()
        reader.kill()
        ended(reader)
        assert len(list((lake.root / "pins").iterdir())) == 1
        assert lake.collect(now(), set).snapshots == (first.id,)
    assert list((lake.root / "pins").iterdir()) == []


def test_a_trial_tells_the_same_numbers_and_removes_nothing(lake: Lake):
    first, second, third, _ = restate(lake, 1, 2, 3, 4)
    orphan(lake)
    before = stored(lake)
    with lake.pinned(second.id):
        trial = lake.collect(now(), lambda: {third.id}, trial=True)
        assert (stored(lake), len(lake.snapshots())) == (before, 4)
        assert not (lake.root / "DOOMED").exists()
        assert lake.collect(now(), lambda: {third.id}) == trial
    assert trial.snapshots == (first.id,)
    assert (trial.files, trial.kept) == (2, 3)


def test_an_id_that_came_back_counts_as_its_latest(lake: Lake):
    first, second, third, fourth = restate(lake, 1, 2, 1, 3)
    assert first.id == third.id
    done = lake.collect(third.created_at + timedelta(microseconds=1), set)
    assert done.snapshots == (second.id,)
    assert ids(lake.snapshots()) == [first.id, third.id, fourth.id]
    assert lake.collect(now(), set).snapshots == (first.id,)
    assert lake.snapshots() == (Snapshot(fourth.id, fourth.created_at, None),)


def test_the_newest_content_stays_even_where_it_was_old_before(lake: Lake):
    first, second, third = restate(lake, 1, 2, 1)
    assert lake.collect(now(), set).snapshots == (second.id,)
    assert ids(lake.snapshots()) == [first.id, third.id]
    assert equal(lake.raw_bars("AAPL"), version(1))


def test_files_that_snapshots_share_stay(lake: Lake):
    lake.upsert(IBM, "4h", some_bars(500, timeframe="4h", start="2019-11-01"), source="csv")
    lake.upsert(AAPL, "1d", version(1), source="sample", actions=CorporateActions.of({date(2020, 1, 5): 2.0}))
    restate(lake, 2)
    done = lake.collect(now(), set)
    assert (len(done.snapshots), done.files) == (2, 1)
    assert len(lake.raw_bars("IBM", "4h")) == 500
    assert lake.actions("AAPL") is not None


def orphan(lake: Lake) -> Path:
    """Leave a file of a write that never was committed."""
    path = lake.root / "bars" / "1d" / "AAPL" / "all-0123456789abcdef01234567.parquet"
    path.write_bytes(b"whatever a killed writer left")
    return path


def test_files_of_a_write_that_never_was_committed_go(lake: Lake, nursery: Nursery):
    restate(lake, 1)
    left = orphan(lake)
    done = lake.collect(now(), set)
    assert (done.snapshots, done.files, done.bytes) == ((), 1, 29)
    assert not left.exists()

    nursery.run("write", lake.root, number=2, crash_at="lake.after_manifest")
    assert stored(lake) > needed(lake)
    lake.collect(now(), set)
    assert stored(lake) == needed(lake)
    assert equal(lake.raw_bars("AAPL"), version(1))


def test_rows_in_quarantine_stay(lake: Lake):
    ingest = lake.upsert(AAPL, "1d", changed(RAW, 5, close=np.nan), source="csv")
    restate(lake, 2)
    assert lake.collect(now(), set).snapshots != ()
    assert ingest.quarantine is not None
    assert ingest.quarantine.exists()


def test_a_series_that_was_removed_goes_with_the_last_snapshot_that_has_it(lake: Lake):
    lake.upsert(IBM, "1d", some_bars(5), source="csv")
    (first, *_) = restate(lake, 1)
    lake.remove("IBM", "1d")
    lake.collect(now(), lambda: {first.id})
    assert len(lake.raw_bars("IBM", snapshot=first.id)) == 5
    lake.collect(now(), set)
    assert not list((lake.root / "bars" / "1d" / "IBM").iterdir())
    assert lake.instrument("IBM") == IBM


def test_a_collected_snapshot_is_not_found_and_it_is_said_why(lake: Lake):
    first, second = restate(lake, 1, 2)
    reader = Lake(lake.root)
    reader.bars("AAPL", snapshot=first.id)
    lake.collect(now(), set)
    why = f"no snapshot {first.id}: there are 1, .* {second.id[:12]} .*removed by `gpt-trader data collect`"
    for read in (reader.manifest, reader.entries, lambda wanted: reader.bars("AAPL", snapshot=wanted)):
        with pytest.raises(NotFound, match=why):
            read(first.id)
    with pytest.raises(NotFound, match=why), reader.pinned(first.id):
        pass


def test_a_time_whose_snapshot_was_collected_shows_no_older_one(lake: Lake):
    first, second, third, fourth, fifth = restate(lake, 1, 2, 3, 4, 5)
    lake.collect(now(), lambda: {first.id, fourth.id})
    moment = timedelta(microseconds=1)
    for version_, found in (
        (first.created_at, first),
        (second.created_at - moment, first),
        (second.created_at, None),
        (third.created_at, None),
        (fourth.created_at - moment, None),
        (fourth.created_at, fourth),
        (fifth.created_at, fifth),
        (date.max, fifth),
    ):
        if found is None:
            with pytest.raises(NotFound, match=r"no snapshot at .* removed by `gpt-trader data collect`"):
                lake.snapshot(version_)
        else:
            assert (lake.snapshot(version_) or fifth).id == found.id
    restate(lake, 6)
    lake.collect(now(), lambda: {first.id})
    for gone in (second, third, fourth, fifth):
        with pytest.raises(NotFound):
            Lake(lake.root).snapshot(gone.created_at)


def test_a_short_read_that_meets_collection_looks_again(lake: Lake):
    """The reader knows its snapshot; before it reads a file that one is replaced and collected."""
    restate(lake, 1)
    reader, seen = Lake(lake.root), list[str]()

    def read(manifest: Manifest) -> list[Path]:
        seen.append(manifest.id)
        if len(seen) == 1:
            restate(lake, 2)
            lake.collect(now(), set)
        return reader.verified_paths(list(manifest.entries.values()))

    (path,) = reader._read(None, read)
    assert seen[1:] == ids(lake.snapshots())
    assert str(path.relative_to(lake.root)) in needed(lake)


def test_the_newest_snapshot_can_be_pinned_whatever_is_collected_meanwhile(lake: Lake):
    restate(lake, 1)
    reader = Lake(lake.root)
    assert reader.current() == lake.current()
    restate(lake, 2)
    lake.collect(now(), set)
    with reader.pinned() as held:
        assert held is not None
        restate(lake, 3)
        assert lake.collect(now(), set).snapshots == ()
        assert equal(reader.raw_bars("AAPL", snapshot=held.id), version(2))


def test_an_empty_lake_is_pinned_as_nothing(lake: Lake):
    with lake.pinned() as held:
        assert held is None
    assert not lake.root.exists()


def test_a_pin_that_meets_a_collection_under_way_is_never_given_what_goes(lake: Lake):
    """Between announcement and end a reader cannot know whether its pin was seen: it waits for the end."""
    first, second = restate(lake, 1, 2)
    told = list[str]()

    def read() -> None:
        try:
            with Lake(lake.root).pinned(first.id):
                told.append("held")
        except NotFound as error:
            told.append(error.detail)

    reader = threading.Thread(target=read)

    def run_names_nothing() -> set[str]:  # asked after the pins were looked for, under the lock
        reader.start()
        eventually(lambda: list((lake.root / "pins").glob(f"{first.id}.*")), what="the pin")
        assert told == []
        return set()

    assert lake.collect(now(), run_names_nothing).snapshots == (first.id,)
    reader.join()
    assert len(told) == 1
    assert "old snapshots that no run names are removed by `gpt-trader data collect`" in told[0]
    assert ids(lake.snapshots()) == [second.id]
