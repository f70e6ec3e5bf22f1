"""What the lake promises: upserts, snapshots, reads by version, and refusals that help."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from gpt_trader.adapters.sample import SampleSource
from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.errors import BadBars, CorruptLake, NotEnoughBars, NotFound, Refused, UnknownName
from gpt_trader.instruments import Instrument
from gpt_trader.raw_bars import RawBars
from storage.lake import Lake
from storage.manifest import FileRef, seal, unseal
from tests.contracts.lake_workers import ended, python
from tests.lake_samples import AAPL, IBM, changed, equal, some_bars


def files_below(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_what_goes_in_comes_out_bit_for_bit(lake: Lake):
    raw = some_bars(100)
    ingest = lake.upsert(AAPL, "1d", raw, source="sample")
    assert (ingest.added, ingest.restated, ingest.unchanged, ingest.quarantined) == (100, 0, 0, 0)
    assert equal(lake.raw_bars("AAPL"), raw)
    bars = lake.bars("aapl")
    assert bars.instrument == AAPL
    assert bars.close.tolist() == (raw.close * raw.factor).tolist()
    assert lake.bars("AAPL", adjust="none").close.tolist() == raw.close.tolist()
    assert bars.logical_hash == lake.entry("AAPL").logical_hash


def test_reading_an_empty_lake_creates_nothing(lake: Lake):
    assert lake.current() is None
    assert lake.snapshots() == ()
    assert lake.entries() == []
    assert lake.instruments() == []
    with pytest.raises(
        UnknownName, match="AAPL is not in the lake; bring it in with: gpt-trader data ingest"
    ):
        lake.bars("AAPL")
    assert not lake.root.exists()


def test_new_rows_win_and_are_counted(lake: Lake):
    raw = some_bars(10)
    lake.upsert(AAPL, "1d", raw[:8], source="sample")
    ingest = lake.upsert(AAPL, "1d", changed(raw, 6, volume=7.0)[5:], source="csv")
    assert (ingest.added, ingest.restated, ingest.unchanged) == (2, 1, 2)
    assert equal(lake.raw_bars("AAPL"), changed(raw, 6, volume=7.0))
    assert lake.entry("AAPL").source == "csv"


def test_an_upsert_that_changes_nothing_makes_no_snapshot(lake: Lake):
    raw = some_bars(10)
    first = lake.upsert(AAPL, "1d", raw, source="sample")
    before = files_below(lake.root)
    again = lake.upsert(AAPL, "1d", raw[3:7], source="csv")
    assert again.snapshot_id == first.snapshot_id
    assert (again.added, again.restated, again.unchanged) == (0, 0, 4)
    assert len(lake.snapshots()) == 1
    assert files_below(lake.root) == before


def test_two_lakes_with_the_same_bars_have_the_same_snapshot(tmp_path: Path):
    one, other = Lake(tmp_path / "one"), Lake(tmp_path / "other")
    one.upsert(AAPL, "1d", some_bars(10), source="sample")
    one.upsert(IBM, "1d", some_bars(10, seed=2), source="sample")
    other.upsert(IBM, "1d", some_bars(10, seed=2), source="csv")
    other.upsert(AAPL, "1d", some_bars(10), source="csv")
    assert one.manifest().id == other.manifest().id
    assert one.snapshots()[0].id != other.snapshots()[0].id


def test_an_older_snapshot_stays_readable_by_id_prefix_and_time(lake: Lake):
    raw = some_bars(10)
    old = lake.upsert(AAPL, "1d", raw, source="sample").snapshot_id
    new = lake.upsert(AAPL, "1d", changed(raw, 3, volume=1.0), source="sample").snapshot_id
    first, second = lake.snapshots()
    assert (first.id, second.id, second.parent, first.parent) == (old, new, old, None)
    for version in (old, old[:6], f" {old[:8].upper()} ", first.created_at, first.created_at.isoformat()):
        assert equal(lake.raw_bars("AAPL", snapshot=version), raw)
    for now in (None, new, second.created_at, second.created_at + timedelta(days=1), date.max):
        assert lake.raw_bars("AAPL", snapshot=now).volume[3] == 1.0
    local = first.created_at.astimezone(tz=None)
    assert lake.snapshot(local) == first


def test_content_that_returns_has_its_old_id_at_a_new_time(lake: Lake):
    raw, other = some_bars(10), changed(some_bars(10), 3, volume=1.0)
    ids = [lake.upsert(AAPL, "1d", bars, source="sample").snapshot_id for bars in (raw, other, raw)]
    assert ids[0] == ids[2] != ids[1]
    first, second, third = lake.snapshots()
    assert first.created_at < second.created_at < third.created_at
    assert lake.raw_bars("AAPL", snapshot=second.created_at).volume[3] == 1.0
    assert equal(lake.raw_bars("AAPL", snapshot=third.created_at), raw)


def test_a_snapshot_that_is_not_there_says_what_is(lake: Lake):
    with pytest.raises(NotFound, match="the lake is empty; fill it with gpt-trader data ingest"):
        lake.manifest("abcdef")
    known = lake.upsert(AAPL, "1d", some_bars(3), source="sample").snapshot_id
    unknown = "0" * 32 if known[0] != "0" else "f" * 32
    with pytest.raises(NotFound, match=f"there are 1, since .*Z; the newest: {known[:12]} of"):
        lake.manifest(unknown)
    with pytest.raises(NotFound, match=r"no snapshot at 1999-12-31T23:59:59Z: there are 1"):
        lake.manifest(date(1999, 12, 31))


@pytest.mark.parametrize(
    ("version", "complaint"),
    [
        ("abc", "at least 6 digits"),
        ("latest", "is neither a snapshot id nor a time"),
        ("", "is neither a snapshot id nor a time"),
        ("../../x", "is neither a snapshot id nor a time"),
        (datetime(2026, 1, 1), "is a time without a zone"),  # noqa: DTZ001 - the point
    ],
)
def test_a_version_that_means_nothing_is_refused(lake: Lake, version: str | datetime, complaint: str):
    lake.upsert(AAPL, "1d", some_bars(3), source="sample")
    with pytest.raises(Refused, match=complaint):
        lake.bars("AAPL", snapshot=version)


def test_a_prefix_of_several_ids_is_refused_with_all_of_them(lake: Lake):
    ids = ["abcdef" + "0" * 26, "abcdef" + "1" * 26]
    lake.root.mkdir()
    (lake.root / "CURRENT").write_bytes(
        seal({"snapshot": ids[1], "history": [(i, "2026-01-01T00:00:00+00:00") for i in ids]})
    )
    with pytest.raises(Refused, match=f"several ids start so; allowed: {ids[0]}, {ids[1]}"):
        lake.snapshot("abcdef")


def test_snapshot_times_never_go_back_with_the_clock(lake: Lake):
    lake.upsert(AAPL, "1d", some_bars(3), source="sample")
    current = lake.root / "CURRENT"
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    body = unseal(current.read_bytes(), "it")
    body["history"][0][1] = tomorrow.isoformat()
    current.unlink()
    current.write_bytes(seal(body))
    lake.upsert(AAPL, "1d", some_bars(4), source="sample")
    assert lake.snapshots()[1].created_at == tomorrow + timedelta(microseconds=1)


def test_intraday_bars_lie_in_one_file_a_year_and_untouched_years_are_kept(lake: Lake):
    raw = some_bars(3000, timeframe="4h", start="2019-11-01")
    lake.upsert(AAPL, "4h", raw, source="csv")
    before = {file.part: file for file in lake.entry("AAPL", "4h").files}
    assert list(before) == ["2019", "2020", "2021"]
    assert equal(lake.raw_bars("AAPL", "4h"), raw)
    lake.upsert(AAPL, "4h", changed(raw, 500, volume=1.0)[450:550], source="csv")
    after = {file.part: file for file in lake.entry("AAPL", "4h").files}
    assert [part for part in after if after[part] != before[part]] == ["2020"]
    assert equal(lake.raw_bars("AAPL", "4h"), changed(raw, 500, volume=1.0))


def test_of_minutes_the_newest_month_has_its_own_file_until_another_comes(lake: Lake):
    raw = some_bars(70, timeframe="1d", start="2019-11-25")  # minutes a day apart
    lake.upsert(AAPL, "1m", raw[:50], source="csv")  # until January 13th

    def files() -> dict[str, FileRef]:
        return {file.part: file for file in lake.entry("AAPL", "1m").files}

    before = files()
    assert list(before) == ["2019", "2020-01"]
    lake.upsert(AAPL, "1m", raw[50:51], source="csv")
    assert [part for part, file in files().items() if file != before[part]] == ["2020-01"]
    lake.upsert(AAPL, "1m", raw[51:69], source="csv")
    assert list(files()) == ["2019", "2020", "2020-02"]
    before = files()
    lake.upsert(AAPL, "1m", raw[69:], source="csv")
    assert [part for part, file in files().items() if file != before[part]] == ["2020-02"]
    lake.upsert(AAPL, "1m", changed(raw, 3, volume=1.0)[2:5], source="csv")
    assert list(files()) == ["2019", "2020", "2020-02"]
    assert equal(lake.raw_bars("AAPL", "1m"), changed(raw, 3, volume=1.0))
    assert equal(lake.newest_bars("AAPL", "1m", 5), raw[-5:]), "from two files"


def test_a_damaged_month_that_would_move_stays_and_new_bars_come_all_the_same(lake: Lake):
    raw = some_bars(40, timeframe="1d", start="2019-12-01")
    lake.upsert(AAPL, "1m", raw[:31], source="csv")
    path = lake.root / lake.entry("AAPL", "1m").files[0].path
    content = path.read_bytes()
    path.write_bytes(b"")
    lake.upsert(AAPL, "1m", raw[31:39], source="csv")
    assert [file.part for file in lake.entry("AAPL", "1m").files] == ["2019-12", "2020-01"]
    path.write_bytes(content)
    lake.upsert(AAPL, "1m", raw[39:], source="csv")
    assert [file.part for file in lake.entry("AAPL", "1m").files] == ["2019", "2020-01"]
    assert equal(lake.raw_bars("AAPL", "1m"), raw)


def test_many_files_are_read_side_by_side_and_joined_in_their_order(lake: Lake):
    raw = some_bars(40_000, timeframe="1m", start="2019-12-25")
    lake.upsert(AAPL, "1m", raw, source="csv")
    files = lake.entry("AAPL", "1m").files
    assert (len(files), sum(file.bytes for file in files) > 2**20) == (2, True)
    assert equal(lake.raw_bars("AAPL", "1m"), raw)
    (lake.root / files[1].path).write_bytes(b"")
    with pytest.raises(CorruptLake, match="is damaged"):
        lake.raw_bars("AAPL", "1m")


def test_facts_that_are_said_win_and_others_stay(lake: Lake):
    lake.upsert(AAPL, "1d", some_bars(3), source="sample")
    lake.upsert(Instrument(symbol="AAPL"), "1d", some_bars(3), source="csv")
    assert lake.instrument("AAPL") == AAPL
    ingest = lake.upsert(
        Instrument(symbol="AAPL", calendar="24/7", bars_a_year=365), "1d", some_bars(3), source="csv"
    )
    assert lake.instrument("AAPL").calendar == "24/7"
    assert lake.instrument("AAPL").venue == "XNAS"
    assert ingest.snapshot_id == lake.snapshots()[-1].id
    assert len(lake.snapshots()) == 2


def test_rows_that_are_no_bars_are_kept_beside_and_counted(lake: Lake):
    import pyarrow.parquet as pq

    ingest = lake.upsert(AAPL, "1d", changed(some_bars(5), 2, close=np.nan), source="csv")
    assert (ingest.added, ingest.quarantined) == (4, 1)
    assert ingest.reasons == {"price is not a finite number": 1}
    assert ingest.remarks == ("1 rows quarantined: price is not a finite number",)
    assert ingest.quarantine is not None
    rows = pq.read_table(ingest.quarantine).to_pylist()
    assert [(row["row"], row["reason"], row["volume"]) for row in rows] == [
        (2, "price is not a finite number", some_bars(5).volume[2])
    ]


def test_a_bad_row_does_not_replace_a_stored_bar(lake: Lake):
    raw = some_bars(5)
    lake.upsert(AAPL, "1d", raw, source="sample")
    lake.upsert(AAPL, "1d", changed(raw, 2, close=np.nan), source="sample")
    assert equal(lake.raw_bars("AAPL"), raw)


def test_input_without_a_bar_leaves_the_lake_as_it_was(lake: Lake):
    raw = some_bars(2)
    with pytest.raises(NotEnoughBars, match="source csv gave no bars of AAPL 1d"):
        lake.upsert(AAPL, "1d", RawBars.empty(), source="csv")
    with pytest.raises(BadBars):
        lake.upsert(AAPL, "1d", changed(raw[:1], 0, open=-1.0), source="csv")
    assert lake.current() is None
    lake.upsert(AAPL, "1d", raw, source="csv")
    assert lake.upsert(AAPL, "1d", RawBars.empty(), source="csv").added == 0


def test_an_unknown_symbol_or_timeframe_says_what_there_is_and_how_to_get_more(lake: Lake):
    lake.upsert(AAPL, "1d", some_bars(3), source="sample")
    with pytest.raises(UnknownName) as caught:
        lake.bars("APPL")
    assert caught.value.problems[0].nearest == "AAPL"
    assert caught.value.problems[0].allowed == "AAPL"
    assert "gpt-trader data ingest --source csv --file FILE --symbol APPL" in caught.value.detail
    with pytest.raises(UnknownName, match=r"AAPL is not stored as 1h bars.*--timeframe 1h; allowed: 1d"):
        lake.bars("AAPL", "1h")
    with pytest.raises(UnknownName, match=r"'1D' is not known.*did you mean '1d'"):
        lake.bars("AAPL", "1D")
    with pytest.raises(UnknownName):
        lake.instrument("MSFT")


@pytest.mark.parametrize(
    "symbol",
    [
        "../../etc/passwd",
        "..",
        ".hidden",
        "A/B",
        "A\\B",
        "",
        "A" * 33,
        "x" * 10_000,
        "📈",
        "A\0B",
        "'; DROP",
        "A\nB",
    ],
)
def test_a_symbol_that_is_no_id_reaches_no_path(lake: Lake, symbol: str):
    with pytest.raises(Refused, match="a symbol is 1 to 32 letters"):
        lake.bars(symbol)
    with pytest.raises(Refused, match="a symbol is 1 to 32 letters"):
        lake.upsert(Instrument.model_construct(symbol=symbol), "1d", some_bars(3), source="csv")
    assert not lake.root.exists()


def test_a_manifest_that_names_a_file_elsewhere_is_refused(lake: Lake):
    lake.upsert(AAPL, "1d", some_bars(3), source="sample")
    path = lake.root / "manifests" / f"{lake.manifest().id}.json"
    body = unseal(path.read_bytes(), "it")
    body["entries"][0]["files"][0]["path"] = "bars/../../secret.parquet"
    path.chmod(0o644)
    path.write_bytes(seal(body))
    with pytest.raises(CorruptLake, match="names a file outside of the lake"):
        Lake(lake.root).bars("AAPL")


def test_a_lake_of_a_newer_program_is_refused_in_words(lake: Lake, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("storage.manifest.SCHEMA_VERSION", 3)
    lake.upsert(AAPL, "1d", some_bars(3), source="sample")
    monkeypatch.undo()
    with pytest.raises(CorruptLake, match="has schema version 3; this program reads 1 to 2"):
        Lake(lake.root).bars("AAPL")


def test_stored_files_are_read_only_and_named_by_their_content(lake: Lake):
    lake.upsert(AAPL, "1d", some_bars(3), source="sample")
    stored = lake.root / lake.entry("AAPL").files[0].path
    assert stored.stat().st_mode & 0o777 == 0o444
    assert lake.entry("AAPL").files[0].sha256.startswith(re.findall(r"all-(\w+)\.parquet", stored.name)[0])
    assert files_below(lake.root) == {
        "CURRENT",
        "lock",
        f"manifests/{lake.manifest().id}.json",
        str(stored.relative_to(lake.root)),
    }


def test_entries_say_what_is_stored(lake: Lake):
    lake.upsert(IBM, "1d", some_bars(3), source="sample")
    lake.upsert(AAPL, "1d", some_bars(5), source="sample")
    lake.upsert(AAPL, "1h", some_bars(5, timeframe="1h"), source="csv")
    said = [(e.symbol, e.timeframe, e.source, e.rows, e.first, e.last) for e in lake.entries()]
    assert said == [
        ("AAPL", "1h", "csv", 5, "2020-01-01T00:00:00Z", "2020-01-01T04:00:00Z"),
        ("AAPL", "1d", "sample", 5, "2020-01-01T00:00:00Z", "2020-01-05T00:00:00Z"),
        ("IBM", "1d", "sample", 3, "2020-01-01T00:00:00Z", "2020-01-03T00:00:00Z"),
    ]
    assert [i.symbol for i in lake.instruments()] == ["AAPL", "IBM"]


def test_the_sample_goes_in_whole(lake: Lake):
    sample = SampleSource()
    for instrument in sample.instruments():
        ingest = lake.upsert(instrument, "1d", sample.fetch(instrument.symbol, "1d"), source="sample")
        assert (ingest.quarantined, ingest.remarks) == (0, ())
    assert {e.symbol: e.rows for e in lake.entries()} == {
        "AAPL": 3270,
        "FB": 196,
        "GOOG": 2148,
        "IBM": 3270,
        "MSFT": 3270,
    }
    assert lake.current() is not None
    assert abs(lake.snapshots()[-1].created_at - datetime.now(UTC)) < timedelta(minutes=5)


WRITE_AND_READ = """
import sys
from pathlib import Path
from storage.lake import Lake
from tests.lake_samples import AAPL, some_bars
lake = Lake(Path(sys.argv[1]))
lake.upsert(AAPL, "1d", some_bars(300), source="sample")
lake.bars("AAPL")
sys.exit("pandas was imported" if "pandas" in sys.modules else 0)
"""


def test_writing_and_reading_bars_never_imports_pandas(lake: Lake):
    assert ended(python(WRITE_AND_READ, lake.root)) == (0, "")


def test_the_newest_bars_are_those_of_the_whole_series(lake: Lake):
    """Adjusted as all of them are, whatever of the splits and dividends lies before them."""
    raw = some_bars(400, start="2019-06-01")
    raw = RawBars(raw.time, raw.open, raw.high, raw.low, raw.close, raw.volume, np.ones(400))
    actions = CorporateActions.of({date(2019, 8, 5): 2.0, date(2020, 3, 2): 4.0}, {date(2020, 2, 3): 0.5})
    lake.upsert(AAPL, "1d", raw, source="sample", actions=actions)
    whole = lake.bars("AAPL")
    for count in (1, 30, 150, 200, 399, 1_000):
        recent = lake.recent("AAPL", "1d", count)
        assert len(recent) == min(count, 400)
        for name in ("time", "open", "high", "low", "close", "volume"):
            np.testing.assert_array_equal(getattr(recent, name), getattr(whole, name)[-count:])
