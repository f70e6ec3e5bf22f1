"""Lakes that programs of the past wrote (tests/golden): read bit for bit, and written on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import orjson
import pytest

from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.errors import CorruptLake, NotFound
from gpt_trader.raw_bars import RawBars
from storage.lake import Lake
from storage.manifest import Manifest, Origin
from tests.lake_samples import AAPL, IBM, changed, equal, exact_bars

GOLDEN = Path(__file__).parent.parent / "golden"
#: Snapshot ids, oldest first.
IDS = {
    "lake-v1": (
        "ac60aa4b74629031a63299b9d3d48da5",
        "d9230735b3bdb27d3d5f7a09d3dd641f",
        "3a626de0ad5fa264209c5d1a7c86849a",
    ),
    "lake-v2": (
        "6f6a66e377feda1dd67b0cf4e6b0a674",
        "6f3ab80dffcba95879c7569902ae3b2d",
        "2553e5fc15a61f188e561f632d52df00",
    ),
    "lake-minutes": ("ffc3cb45ac8815c300daae409ddbbb67", "da31b82f5d0b1c4edc454d2cd3b26134"),
}
ACTIONS = CorporateActions.of({date(2019, 12, 16): 2.0}, {date(2020, 1, 6): 0.5})
IBM_OF_V1 = exact_bars(40, timeframe="4h", start="2019-12-29")
IBM_OF_V2 = exact_bars(40, timeframe="4h", start="2019-12-29", factor=0.5)
AAPL_OF_V1 = exact_bars(60, factor=0.5)


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[str], Lake]:
    def copy(name: str) -> Lake:
        return Lake(shutil.copytree(GOLDEN / name, tmp_path / name))

    return copy


def contents(root: Path) -> dict[str, bytes]:
    left_out = {"lock", "tmp", "pins"}
    files = (path for path in root.rglob("*") if path.is_file())
    found = {str(path.relative_to(root)): path.read_bytes() for path in files}
    return {name: content for name, content in found.items() if name.split("/")[0] not in left_out}


@pytest.mark.parametrize("name", IDS)
def test_every_snapshot_is_there_under_the_id_it_had_and_reading_changes_nothing(
    opened: Callable[[str], Lake], name: str
):
    lake = opened(name)
    assert tuple(s.id for s in lake.snapshots()) == IDS[name]
    for identity in IDS[name]:
        manifest = lake.manifest(identity)
        assert manifest.id == identity
        assert Manifest.from_bytes(manifest.to_bytes(), "written anew").id == identity
        for entry in manifest.entries.values():
            rows = lake.raw_bars(entry.symbol, entry.timeframe, snapshot=identity)
            assert (len(rows), lake.verified_paths([entry]) != []) == (entry.rows, True)
    assert contents(lake.root) == contents(GOLDEN / name)


def test_bars_of_version_1_are_what_was_put_in(opened: Callable[[str], Lake]):
    lake = opened("lake-v1")
    first, second, third = IDS["lake-v1"]
    for identity in (first, second):
        assert equal(lake.raw_bars("AAPL", snapshot=identity), AAPL_OF_V1)
    assert equal(lake.raw_bars("AAPL", snapshot=third), changed(AAPL_OF_V1, 7, volume=1.0))
    assert equal(lake.raw_bars("IBM", "4h"), IBM_OF_V1)
    assert [file.part for file in lake.entry("IBM", "4h").files] == ["2019", "2020"]
    assert lake.bars("AAPL").close.tolist() == (AAPL_OF_V1.close * AAPL_OF_V1.factor).tolist()
    assert lake.bars("AAPL").volume.tolist() == changed(AAPL_OF_V1, 7, volume=1.0).volume.tolist()
    assert lake.entry("AAPL").logical_hash == (
        "d3d12dc6eff3be553487fa795a2c4959a89d4a836b0b2d5f9b6acf5f077910ea"
    )


def test_what_version_1_did_not_know_is_unknown_and_not_none(opened: Callable[[str], Lake]):
    lake = opened("lake-v1")
    assert lake.actions("AAPL") is None
    assert lake.instruments() == [AAPL, IBM]
    assert lake.instrument("AAPL").edited == ()
    assert lake.entry("AAPL").origins == (Origin("csv", "2019-12-02T00:00:00Z", "2020-01-30T00:00:00Z"),)


def test_a_lake_of_version_2_has_actions_origins_facts_by_hand_and_a_gap(opened: Callable[[str], Lake]):
    lake = opened("lake-v2")
    first, second, third = IDS["lake-v2"]
    assert equal(lake.raw_bars("IBM", "4h", snapshot=first), IBM_OF_V1[:20])
    assert equal(lake.raw_bars("AAPL", snapshot=second), exact_bars(50))
    assert equal(lake.raw_bars("AAPL", snapshot=third), exact_bars(60))
    assert equal(lake.raw_bars("IBM", "4h"), IBM_OF_V2)
    actions = lake.actions("AAPL")
    assert actions is not None
    assert actions.logical_hash == ACTIONS.logical_hash
    assert lake.actions("IBM") is None
    assert lake.entry("AAPL").origins == (
        Origin("csv", "2019-12-02T00:00:00Z", "2020-01-20T00:00:00Z"),
        Origin("sample", "2020-01-16T00:00:00Z", "2020-01-30T00:00:00Z"),
    )
    assert lake.instrument("IBM").edited == ("name", "tick")
    assert lake.instrument("IBM").tick == Decimal("0.05")
    with pytest.raises(NotFound, match="are removed by `gpt-trader data collect`"):
        lake.snapshot(lake.snapshots()[-1].created_at - timedelta(microseconds=1))


def test_what_version_1_stored_is_not_written_again_when_it_comes_again(opened: Callable[[str], Lake]):
    lake = opened("lake-v1")
    ingest = lake.upsert(IBM, "4h", IBM_OF_V1, source="csv")
    assert (ingest.snapshot_id, ingest.unchanged, len(lake.snapshots())) == (IDS["lake-v1"][-1], 40, 3)
    assert contents(lake.root) == contents(GOLDEN / "lake-v1")


def test_writing_on_top_of_version_1_keeps_the_old_and_adds_what_is_new(opened: Callable[[str], Lake]):
    lake = opened("lake-v1")
    before = contents(lake.root)
    longer = changed(exact_bars(70, factor=0.5), 7, volume=1.0)
    lake.upsert(AAPL, "1d", longer[60:], source="sample", actions=ACTIONS)
    lake.edit_instrument("AAPL", {"name": "Apple"})

    again = Lake(lake.root)
    assert [s.id for s in again.snapshots()[:3]] == list(IDS["lake-v1"])
    assert [s.parent for s in again.snapshots()[3:]] == [s.id for s in again.snapshots()[2:4]]
    rows = again.raw_bars("AAPL")
    assert equal(rows[:60], changed(AAPL_OF_V1, 7, volume=1.0))
    assert equal(rows[60:], longer[60:])
    assert equal(again.raw_bars("IBM", "4h"), IBM_OF_V1)
    assert again.entry("AAPL").origins == (
        Origin("csv", "2019-12-02T00:00:00Z", "2020-01-30T00:00:00Z"),
        Origin("sample", "2020-01-31T00:00:00Z", "2020-02-09T00:00:00Z"),
    )
    for identity in IDS["lake-v1"]:
        assert equal(again.raw_bars("AAPL", snapshot=identity)[:5], AAPL_OF_V1[:5])
    after = contents(lake.root)
    assert {name: content for name, content in after.items() if name in before and name != "CURRENT"} == {
        name: content for name, content in before.items() if name != "CURRENT"
    }
    assert orjson.loads(after["CURRENT"])["schema_version"] == 2


def test_old_snapshots_of_version_1_can_be_collected(opened: Callable[[str], Lake]):
    lake = opened("lake-v1")
    done = lake.collect(datetime.now(UTC) + timedelta(days=365), lambda: {IDS["lake-v1"][0]})
    assert done.snapshots == (IDS["lake-v1"][1],)
    assert (done.files, done.kept) == (0, 2)
    assert equal(lake.raw_bars("AAPL", snapshot=IDS["lake-v1"][0]), AAPL_OF_V1)


MINUTES = [exact_bars(60, timeframe="1m", start=f"{day}T23:30") for day in ("2019-12-31", "2020-02-29")]


def parts_of(lake: Lake) -> list[str]:
    return [file.part for file in lake.entry("AAPL", "1m").files]


def test_of_minutes_in_a_file_of_a_year_the_newest_month_gets_its_own(opened: Callable[[str], Lake]):
    lake = opened("lake-minutes")
    assert parts_of(lake) == ["2019", "2020"]
    assert equal(lake.raw_bars("AAPL", "1m"), RawBars.joined(*MINUTES))
    (before, _) = lake.entry("AAPL", "1m").files
    more = exact_bars(10, timeframe="1m", start="2020-03-01T00:25")
    ingest = lake.upsert(AAPL, "1m", more, source="csv")
    assert (ingest.added, ingest.restated, ingest.unchanged) == (5, 5, 0)
    assert parts_of(lake) == ["2019", "2020", "2020-03"]
    assert lake.entry("AAPL", "1m").files[0] == before, "what nothing came to stays as it is"
    assert equal(lake.raw_bars("AAPL", "1m"), RawBars.joined(MINUTES[0], MINUTES[1][:55], more))
    assert equal(lake.raw_bars("AAPL", "1m", snapshot=IDS["lake-minutes"][1]), RawBars.joined(*MINUTES))
    assert equal(lake.newest_bars("AAPL", "1m", 50), RawBars.joined(MINUTES[1][15:55], more))


def test_minutes_that_are_known_leave_files_of_a_year_as_they_are(opened: Callable[[str], Lake]):
    lake = opened("lake-minutes")
    ingest = lake.upsert(AAPL, "1m", RawBars.joined(*MINUTES)[20:100], source="csv")
    assert (ingest.added, ingest.restated, ingest.unchanged) == (0, 0, 80)
    assert ingest.snapshot_id == IDS["lake-minutes"][1]
    assert parts_of(lake) == ["2019", "2020"]


def test_a_damaged_year_of_minutes_is_repaired_by_all_of_them_alone(opened: Callable[[str], Lake]):
    lake = opened("lake-minutes")
    path = lake.root / lake.entry("AAPL", "1m").files[1].path
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptLake, match="is damaged"):
        lake.upsert(AAPL, "1m", MINUTES[1], source="csv")
    everything = RawBars.joined(*MINUTES)
    ingest = lake.upsert(AAPL, "1m", everything, source="csv")
    assert ingest.repaired == (str(path.relative_to(lake.root)),)
    assert parts_of(lake) == ["2019", "2020", "2020-03"]
    assert equal(lake.raw_bars("AAPL", "1m"), everything)
