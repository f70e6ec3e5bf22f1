"""What every source must do, and what a user's file may get wrong."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpt_trader.adapters import table_file
from gpt_trader.adapters.base import Source
from gpt_trader.adapters.csv_file import CsvSource, file_instrument
from gpt_trader.adapters.sample import SampleSource
from gpt_trader.adapters.sources import SOURCES, source
from gpt_trader.errors import BadBars, GptTraderError, NotEnoughBars, Refused, UnknownName
from gpt_trader.instruments import valid_symbol
from gpt_trader.raw_bars import RawBars, inspect
from gpt_trader.requests import DataRequest
from tests.lake_samples import equal, some_bars

HEADER = "timestamp,open,high,low,close,volume"


def written(path: Path, *lines: str) -> CsvSource:
    """Write the lines and return a source that reads them as symbol MINE."""
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return of_file(path)


def of_file(path: Path, **options: object) -> CsvSource:
    return CsvSource(path, file_instrument("MINE", None), **options)  # type: ignore[arg-type]


def rows_of(raw: RawBars) -> list[str]:
    return [
        ",".join([str(t), *(repr(float(v)) for v in (o, h, low, c, v))])
        for t, o, h, low, c, v in zip(
            raw.time, raw.open, raw.high, raw.low, raw.close, raw.volume, strict=True
        )
    ]


def sample_source(_: Path) -> Source:
    return SampleSource()


def csv_source(folder: Path) -> Source:
    return written(folder / "bars.csv", HEADER, *rows_of(some_bars(300, start="2020-01-01")))


def parquet_source(folder: Path) -> Source:
    raw = some_bars(300, start="2020-01-01")
    table = pa.table({name: getattr(raw, name) for name in HEADER.replace("timestamp", "time").split(",")})
    pq.write_table(table, folder / "bars.parquet")
    return of_file(folder / "bars.parquet")


@pytest.fixture(params=[sample_source, csv_source, parquet_source])
def any_source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    make: Callable[[Path], Source] = request.param
    return make(tmp_path)


def test_a_source_lists_instruments_with_valid_ids(any_source: Source):
    assert isinstance(any_source, Source)
    assert any_source.name in SOURCES
    listed = any_source.instruments()
    assert listed
    assert all(valid_symbol(instrument.symbol) == instrument.symbol for instrument in listed)


def test_what_a_source_gives_passes_inspection(any_source: Source):
    for instrument in any_source.instruments():
        raw = any_source.fetch(instrument.symbol, "1d")
        inspection = inspect(raw, "1d")
        assert len(inspection.clean) == len(raw) > 100
        assert inspection.remarks() == []


def test_both_bounds_are_inclusive(any_source: Source):
    symbol = any_source.instruments()[0].symbol
    whole = any_source.fetch(symbol, "1d")
    first, last = whole.time[10].item(), whole.time[20].item()
    assert equal(any_source.fetch(symbol, "1d", first.date(), last.date()), whole[10:21])
    exact = any_source.fetch(symbol, "1d", first.replace(tzinfo=UTC), last.replace(tzinfo=UTC))
    assert equal(exact, whole[10:21])


def test_a_bound_without_a_zone_is_refused(any_source: Source):
    with pytest.raises(Refused, match="start: is a time without a zone"):
        any_source.fetch(any_source.instruments()[0].symbol, "1d", datetime(2001, 1, 1))  # noqa: DTZ001 - the point


def test_a_range_without_bars_says_which_there_are(any_source: Source):
    symbol = any_source.instruments()[0].symbol
    with pytest.raises(
        NotEnoughBars, match=r"no bars from 1950-01-01 to 1950-12-31; it has 20\d\d-\d\d-\d\d to 20"
    ):
        any_source.fetch(symbol, "1d", date(1950, 1, 1), date(1950, 12, 31))


def test_an_unknown_symbol_names_the_nearest(any_source: Source):
    known = any_source.instruments()[0].symbol
    with pytest.raises(UnknownName) as caught:
        any_source.fetch(known + "X", "1d")
    assert caught.value.problems[0].nearest == known


def test_an_unknown_timeframe_is_refused(any_source: Source):
    with pytest.raises(UnknownName, match="timeframe"):
        any_source.fetch(any_source.instruments()[0].symbol, "7d")


def test_the_sample_is_what_the_package_holds():
    sample = SampleSource()
    counts = {i.symbol: len(sample.fetch(i.symbol, "1d")) for i in sample.instruments()}
    assert counts == {"AAPL": 3270, "FB": 196, "GOOG": 2148, "IBM": 3270, "MSFT": 3270}
    aapl = sample.fetch("aapl", "1d")
    assert (aapl.time[0], aapl.open[0], aapl.close[0]) == (np.datetime64("2000-03-01"), 118.56, 130.31)
    assert aapl.close[0] * aapl.factor[0] == pytest.approx(4.186662803811, rel=1e-15)


def test_splits_show_in_the_raw_bars_and_not_in_the_adjusted():
    aapl = SampleSource().fetch("AAPL", "1d")
    split = int(np.flatnonzero(aapl.time == np.datetime64("2005-02-28"))[0])
    adjusted = aapl.close * aapl.factor
    assert aapl.close[split] / aapl.close[split - 1] == pytest.approx(0.504, abs=0.001)
    assert adjusted[split] / adjusted[split - 1] == pytest.approx(1.008, abs=0.001)


def test_an_unknown_source_names_the_nearest():
    with pytest.raises(UnknownName) as caught:
        source("samples")
    assert caught.value.problems[0].nearest == "sample"


def test_csv_without_a_file_says_how_to_name_one():
    with pytest.raises(Refused, match="--file FILE --symbol SYMBOL"):
        source("csv")


def test_a_request_sets_up_the_csv_source(tmp_path: Path):
    path = tmp_path / "mine.csv"
    path.write_text("Tag;o;h;l;c;v\n2024-01-02;10;11;9;10.5;100\n")
    columns = {"timestamp": "Tag", "open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"}
    request = DataRequest(
        symbols=("BTC-USDT",), source="csv", file=str(path), columns=columns, calendar="24/7"
    )
    found = source("csv", request)
    assert found.instruments()[0].periods_a_year("1d") == 365
    assert found.fetch("BTC-USDT", "1d").close.tolist() == [10.5]


def test_a_file_without_a_calendar_has_none_and_an_unknown_one_is_refused():
    assert file_instrument("MINE", None).calendar is None
    with pytest.raises(UnknownName, match="did you mean 'XETR'"):
        file_instrument("MINE", "XETRA")


ROW = "10,11,9,10.5,100"


@pytest.mark.parametrize(
    ("time", "timezone", "expected"),
    [
        ("2024-01-31 09:30:00", "UTC", "2024-01-31T09:30"),
        ("2024-01-31T09:30", "UTC", "2024-01-31T09:30"),
        ("2024-01-31T09:30:00Z", "America/New_York", "2024-01-31T09:30"),
        ("2024-01-31 09:30:00 UTC", "UTC", "2024-01-31T09:30"),
        ("2024-01-31 09:30:00.000000", "UTC", "2024-01-31T09:30"),
        ("2024-01-31 09:30:00.000000000+02:00", "UTC", "2024-01-31T07:30"),
        ("2024-01-31 09:30:00-0500", "UTC", "2024-01-31T14:30"),
        ("2024-01-31 09:30:00", "America/New_York", "2024-01-31T14:30"),
        ("2024-07-31 09:30:00", "America/New_York", "2024-07-31T13:30"),
        ("1706693400", "UTC", "2024-01-31T09:30"),
        ("1706693400000", "UTC", "2024-01-31T09:30"),
        ("1706693400000000", "UTC", "2024-01-31T09:30"),
        ("1706693400000000000", "UTC", "2024-01-31T09:30"),
        ("1706693400.0", "UTC", "2024-01-31T09:30"),
    ],
)
def test_times_are_read_in_every_common_spelling(tmp_path: Path, time: str, timezone: str, expected: str):
    path = tmp_path / "bars.csv"
    path.write_text(f"{HEADER}\n{time},{ROW}\n")
    raw = of_file(path, timezone=timezone).fetch("MINE", "1m")
    assert raw.time.tolist() == [datetime.fromisoformat(expected)]


@pytest.mark.parametrize(
    ("time", "timezone", "expected"),
    [
        ("2024-01-31", "Asia/Tokyo", "2024-01-31"),
        ("20240131", "UTC", "2024-01-31"),
        ("2024-01-31 16:00:00", "America/New_York", "2024-01-31"),
        ("2024-01-31 00:00:00-05:00", "America/New_York", "2024-01-31"),
        ("2024-01-30T15:00:00Z", "Asia/Tokyo", "2024-01-31"),
    ],
)
def test_a_daily_label_is_the_date_where_it_trades(tmp_path: Path, time: str, timezone: str, expected: str):
    path = tmp_path / "bars.csv"
    path.write_text(f"{HEADER}\n{time},{ROW}\n")
    raw = of_file(path, timezone=timezone).fetch("MINE", "1d")
    assert raw.time.tolist() == [datetime.fromisoformat(expected)]
    assert len(inspect(raw, "1d").clean) == 1


@pytest.mark.parametrize(
    ("times", "complaint"),
    [
        (["01/31/2024 10:00"], "01/31/2024 10:00"),
        (["2024-13-01"], "2024-13-01"),
        (["yesterday"], "yesterday"),
        (["2024-01-31T09:30:00Z", "2024-01-31 09:31:00"], "like '2024-01-31 09:31:00', have none"),
        (["2024-11-03 01:30:00"], "ambiguous in timezone 'America/New_York'"),
        (["2024-03-10 02:30:00"], "doesn't exist in timezone 'America/New_York'"),
    ],
)
def test_what_is_no_time_is_refused_with_the_cell_and_the_column(
    tmp_path: Path, times: list[str], complaint: str
):
    path = tmp_path / "bars.csv"
    path.write_text("\n".join([HEADER, *(f"{time},{ROW}" for time in times)]))
    with pytest.raises(BadBars) as caught:
        of_file(path, timezone="America/New_York").fetch("MINE", "1m")
    assert complaint in caught.value.detail
    assert "column 'timestamp'" in caught.value.detail
    assert "Write times as" in caught.value.detail


def test_an_unknown_time_zone_names_the_nearest(tmp_path: Path):
    with pytest.raises(UnknownName) as caught:
        of_file(tmp_path / "bars.csv", timezone="America/NewYork")
    assert caught.value.problems[0].nearest == "America/New_York"


def test_empty_and_nan_cells_and_disorder_are_left_to_the_inspection(tmp_path: Path):
    mine = written(
        tmp_path / "bars.csv",
        HEADER,
        "2024-01-03,10,11,9,10,1",
        "2024-01-02,10,11,9,NaN,1",
        "2024-01-01,10,11,9,,1",
        ",10,11,9,10,1",
        "2024-01-04,10,11,9,10,-1",
        "2023-12-29,10,11,9,10,1",
    )
    inspection = inspect(mine.fetch("MINE", "1d"), "1d")
    assert inspection.clean.time.astype("datetime64[D]").astype(str).tolist() == ["2023-12-29", "2024-01-03"]
    assert inspection.reordered == 1
    assert inspection.quarantined.row.tolist() == [1, 2, 3, 4]
    assert inspection.quarantined.counts() == {
        "price is not a finite number": 2,
        "time is missing": 1,
        "volume is negative": 1,
    }


def test_the_factor_is_adjusted_close_over_close(tmp_path: Path):
    mine = written(
        tmp_path / "bars.csv", "Date,Open,High,Low,Close,Volume,Adj Close", f"2024-01-02,{ROW},5.25"
    )
    assert mine.fetch("MINE", "1d").factor.tolist() == [0.5]


def test_packed_tab_separated_and_marked_files_are_read(tmp_path: Path):
    text = f"\ufeff{HEADER}\n2024-01-02,{ROW}\n".replace(",", "\t")
    (tmp_path / "bars.csv.gz").write_bytes(gzip.compress(text.encode()))
    assert of_file(tmp_path / "bars.csv.gz").fetch("MINE", "1d").close.tolist() == [10.5]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b"\n\n\n", "is empty"),
        (f"{HEADER}\n".encode(), "has no rows"),
        (f"{HEADER}\n2024-01-02,ten,11,9,10,1\n".encode(), "column 'open': 'ten' is not a number"),
        (f"{HEADER}\n2024-01-02;10,11,9\n".encode(), "Expected 6 columns, got 3"),
        (f"{HEADER},open\n2024-01-02,{ROW},1\n".encode(), "column 'open' stands there more than once"),
        (b"\xff\xfet\0i\0m\0e\0", "neither Parquet nor CSV text"),
        (b"PK\x03\x04\0\0\0\0", "neither Parquet nor CSV text"),
        (b"PAR1 and then nothing of the kind", "not a whole Parquet file"),
        (f"{HEADER}\n2024-01-02,\xff,11,9,10,1\n".encode("latin-1"), "neither Parquet nor CSV text in UTF-8"),
    ],
)
def test_a_file_that_is_no_table_is_refused_by_name(tmp_path: Path, content: bytes, complaint: str):
    path = tmp_path / "bars.csv"
    path.write_bytes(content)
    with pytest.raises(BadBars) as caught:
        of_file(path).fetch("MINE", "1d")
    assert complaint in caught.value.detail
    assert str(path) in caught.value.detail


def test_a_column_that_is_missing_is_named_with_what_there_is(tmp_path: Path):
    mine = written(tmp_path / "bars.csv", "timestamp_x,open,high,low,close,volume", f"2024-01-02,{ROW}")
    with pytest.raises(UnknownName) as caught:
        mine.fetch("MINE", "1d")
    problem = caught.value.problems[0]
    assert problem.field == "columns.timestamp"
    assert problem.nearest == "timestamp_x"
    assert problem.allowed == "timestamp_x, open, high, low, close, volume"
    assert "--column timestamp=NAME" in caught.value.detail


def test_a_mapped_column_that_is_missing_is_refused(tmp_path: Path):
    path = tmp_path / "bars.csv"
    path.write_text(f"{HEADER}\n2024-01-02,{ROW}\n")
    with pytest.raises(UnknownName, match=r"columns\.adjusted_close.*no column 'Adjusted'"):
        of_file(path, columns={"adjusted_close": "Adjusted"}).fetch("MINE", "1d")


def test_a_file_of_another_timeframe_is_refused_with_the_right_one(tmp_path: Path):
    mine = written(tmp_path / "bars.csv", HEADER, *rows_of(some_bars(100, timeframe="5m")))
    with pytest.raises(BadBars, match="0:05:00 apart, too close for 1d bars: give --timeframe 5m"):
        mine.fetch("MINE", "1d")
    assert len(mine.fetch("MINE", "5m")) == 100


@pytest.mark.parametrize("kept", [3, 50, 500, 2000])
def test_a_parquet_file_cut_off_anywhere_is_refused(tmp_path: Path, kept: int):
    parquet_source(tmp_path)
    path = tmp_path / "bars.parquet"
    path.write_bytes(path.read_bytes()[:-kept])
    with pytest.raises(BadBars, match="cut off or damaged"):
        of_file(path).fetch("MINE", "1d")


def test_a_damaged_page_of_a_parquet_file_is_refused(tmp_path: Path):
    raw = some_bars(300)
    path = tmp_path / "bars.parquet"
    table = pa.table({name: getattr(raw, name) for name in HEADER.replace("timestamp", "time").split(",")})
    pq.write_table(table, path, write_page_checksum=True, compression="none", use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[4000] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadBars, match="is damaged"):
        of_file(path).fetch("MINE", "1d")


@pytest.mark.parametrize(
    ("column", "values", "complaint"),
    [
        ("close", ["ten"], "column 'close' holds string, not numbers"),
        ("close", [[1.0]], r"column 'close' holds list<.*>, not numbers"),
        ("timestamp", [True], "column 'timestamp': holds bool, not times"),
    ],
)
def test_a_parquet_column_of_another_type_is_refused(
    tmp_path: Path, column: str, values: list[object], complaint: str
):
    cells: dict[str, list[object]] = {"timestamp": [date(2024, 1, 2)], "open": [10], "high": [11], "low": [9]}
    cells |= {"close": [10.5], "volume": [100], column: values}
    pq.write_table(pa.table(cells), tmp_path / "bars.parquet")
    with pytest.raises(BadBars, match=complaint):
        of_file(tmp_path / "bars.parquet").fetch("MINE", "1d")


def test_a_path_that_is_no_regular_file_is_refused(tmp_path: Path):
    with pytest.raises(Refused, match="does not exist"):
        of_file(tmp_path / "nowhere.csv").fetch("MINE", "1d")
    with pytest.raises(Refused, match="is a folder"):
        of_file(tmp_path).fetch("MINE", "1d")
    with pytest.raises(Refused, match="is not a regular file"):
        of_file(Path("/dev/zero")).fetch("MINE", "1d")
    with pytest.raises(Refused, match="does not exist"):
        of_file(tmp_path / "a\0b").fetch("MINE", "1d")


def test_a_file_too_large_is_refused_before_it_is_read(tmp_path: Path):
    path = tmp_path / "bars.csv"
    with path.open("wb") as file:
        file.truncate(table_file.MAX_BYTES + 1)
    with pytest.raises(Refused, match="more than 4: split it"):
        of_file(path).fetch("MINE", "1d")


def test_a_packed_file_that_grows_without_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(table_file, "MAX_ROWS", 1000)
    lines = "\n".join([HEADER, *([f"2024-01-02,{ROW}"] * 1001)])
    (tmp_path / "bars.csv.gz").write_bytes(gzip.compress(lines.encode()))
    with pytest.raises(BadBars, match="more than 1,000 rows"):
        of_file(tmp_path / "bars.csv.gz").fetch("MINE", "1d")


def test_a_packed_file_that_is_cut_off_is_refused(tmp_path: Path):
    lines = "\n".join([HEADER, *rows_of(some_bars(3000))])
    packed = gzip.compress(lines.encode())
    (tmp_path / "bars.csv.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(GptTraderError, match=r"bars\.csv\.gz"):
        of_file(tmp_path / "bars.csv.gz").fetch("MINE", "1d")
