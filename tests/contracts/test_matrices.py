"""Matrices over many series: the lake's own numbers, and a cache that is never trusted."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.errors import CorruptLake, NotFound, Refused, UnknownName
from gpt_trader.instruments import Instrument
from gpt_trader.raw_bars import RawBars
from storage import array_cache
from storage.array_cache import ArrayCache
from storage.lake import Lake
from storage.matrices import Matrix, matrix
from tests.lake_samples import AAPL, IBM, some_bars

GAPPY = Instrument(symbol="GAPPY")
ACTIONS = CorporateActions.of({date(2020, 2, 3): 2.0}, {date(2020, 3, 2): 0.13, date(2020, 4, 1): 0.2})
SYMBOLS = ["AAPL", "IBM", "GAPPY"]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "lake")
    lake.upsert(AAPL, "1d", some_bars(120), source="sample")
    plain = some_bars(100, seed=2, start="2020-01-15")
    plain = RawBars(plain.time, plain.open, plain.high, plain.low, plain.close, plain.volume, np.ones(100))
    lake.upsert(IBM, "1d", plain, source="csv", actions=ACTIONS)
    gappy = some_bars(150, seed=3, start="2019-12-20")
    lake.upsert(GAPPY, "1d", gappy[np.random.default_rng(1).random(150) < 0.8], source="csv")
    lake.upsert(AAPL, "1h", some_bars(9000, timeframe="1h"), source="csv")
    lake.upsert(IBM, "1h", some_bars(50, timeframe="1h", seed=5), source="csv")
    return lake


@pytest.fixture
def cache(tmp_path: Path) -> ArrayCache:
    return ArrayCache(tmp_path / "cache" / "matrices", 10**8)


def by_hand(lake: Lake, symbols: list[str], timeframe: str, column: str, **view: object) -> Matrix:
    """Return the matrix cell by cell from `Lake.bars`."""
    start, end = view.pop("start", None), view.pop("end", None)
    cells: dict[np.datetime64, dict[str, float]] = {}
    for symbol in symbols:
        bars = lake.bars(symbol, timeframe, **view)  # type: ignore[arg-type]
        for time, value in zip(bars.time, getattr(bars, column), strict=True):
            day = time.astype("datetime64[D]").item()
            if (start is None or day >= start) and (end is None or day <= end):
                cells.setdefault(time, {})[symbol] = value
    time = np.array(sorted(cells), "datetime64[us]")
    values = np.array([[cells[t].get(symbol, np.nan) for symbol in symbols] for t in time])
    return Matrix(tuple(symbols), time, values)


def same(one: Matrix, other: Matrix) -> bool:
    return (
        one.symbols == other.symbols
        and np.array_equal(one.time, other.time)
        and np.array_equal(one.values, other.values, equal_nan=True)
    )


@pytest.mark.parametrize(
    ("symbols", "timeframe", "column", "view"),
    [
        (SYMBOLS, "1d", "close", {}),
        (SYMBOLS[::-1], "1d", "volume", {}),
        (SYMBOLS, "1d", "open", {"adjust": "none"}),
        (["IBM"], "1d", "high", {"adjust": "split"}),
        (SYMBOLS, "1d", "low", {"known_at": date(2020, 3, 10)}),
        (SYMBOLS, "1d", "close", {"start": date(2020, 2, 1), "end": date(2020, 3, 1)}),
        (["AAPL", "IBM"], "1h", "close", {}),
    ],
)
def test_values_are_those_of_the_lake_bit_for_bit(
    lake: Lake, cache: ArrayCache, symbols: list[str], timeframe: str, column: str, view: dict[str, object]
) -> None:
    hand = by_hand(lake, symbols, timeframe, column, **view)
    made = matrix(lake, symbols, timeframe, column, cache=cache, **view)  # type: ignore[arg-type]
    kept = matrix(lake, symbols, timeframe, column, cache=cache, **view)  # type: ignore[arg-type]
    assert same(made, hand)
    assert same(kept, hand)
    assert cache.size().entries == 1
    for found in (made, kept):
        assert not found.values.flags.writeable
        assert not found.time.flags.writeable
        assert found.values.shape == (len(found.time), len(symbols))


def test_a_range_without_bars_is_empty(lake: Lake, cache: ArrayCache) -> None:
    for _ in range(2):
        assert matrix(lake, SYMBOLS, start=date(2031, 1, 1), cache=cache).values.shape == (0, 3)


def test_every_option_and_every_change_of_what_is_stored_has_its_own_entry(
    lake: Lake, cache: ArrayCache
) -> None:
    first = lake.current()
    assert first is not None
    before = matrix(lake, SYMBOLS, cache=cache)
    for n, view in enumerate([{"column": "open"}, {"adjust": "none"}, {"end": date(2020, 3, 1)}], start=2):
        matrix(lake, SYMBOLS, cache=cache, **view)  # type: ignore[arg-type]
        assert cache.size().entries == n
    matrix(lake, SYMBOLS[::-1], cache=cache)
    lake.replace_actions("IBM", CorporateActions.of({date(2020, 2, 3): 5.0}))
    assert same(matrix(lake, SYMBOLS, cache=cache), by_hand(lake, SYMBOLS, "1d", "close"))
    assert cache.size().entries == 6
    lake.upsert(Instrument(symbol="OTHER"), "1d", some_bars(5), source="csv")
    assert same(matrix(lake, SYMBOLS, snapshot=first.id, cache=cache), before)
    matrix(lake, SYMBOLS, cache=cache)
    assert cache.size().entries == 6, "a series that is not asked for makes no other matrix"


@pytest.mark.parametrize("name", ["values.npy", "time.npy", "seal.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "remove"])
def test_a_damaged_entry_is_made_anew(lake: Lake, cache: ArrayCache, name: str, damage: str) -> None:
    hand = matrix(lake, SYMBOLS)
    matrix(lake, SYMBOLS, cache=cache)
    (entry,) = [path for path in cache.folder.iterdir() if len(path.name) == 40]
    path = entry / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    if damage != "remove":
        path.write_bytes({"flip": bytes(content), "cut": bytes(content[:-9]), "empty": b""}[damage])
    assert same(matrix(lake, SYMBOLS, cache=cache), hand)
    array_cache._verified.clear()
    kept = cache.get(entry.name, ["time", "values"])
    assert kept is not None
    assert np.array_equal(kept[1], hand.values, equal_nan=True)


def test_what_was_used_longest_ago_goes_first_and_a_reader_keeps_what_it_has(
    lake: Lake, tmp_path: Path
) -> None:
    one = matrix(lake, SYMBOLS)
    room = int(2.7 * (one.values.nbytes + one.time.nbytes + 700))
    cache = ArrayCache(tmp_path / "small", room)
    held = matrix(lake, SYMBOLS, column="open", cache=cache)
    held = matrix(lake, SYMBOLS, column="open", cache=cache)
    before = held.values.copy()
    matrix(lake, SYMBOLS, column="high", cache=cache)
    matrix(lake, SYMBOLS, column="open", cache=cache)  # used again: the other one is the oldest now
    opened = set(cache.folder.glob("*/seal.json"))
    matrix(lake, SYMBOLS, column="low", cache=cache)
    assert len(opened & set(cache.folder.glob("*/seal.json"))) == 1
    matrix(lake, SYMBOLS, column="close", cache=cache)
    assert cache.size().entries == 2
    assert cache.size().bytes <= room
    assert np.array_equal(held.values, before, equal_nan=True)
    assert cache.clear().entries == 2
    assert cache.size() == array_cache.CacheSize(0, 0)
    assert np.array_equal(held.values, before, equal_nan=True)
    tiny = ArrayCache(tmp_path / "tiny", 1000)
    assert same(matrix(lake, SYMBOLS, cache=tiny), one)
    assert tiny.size().entries == 0


def test_a_cache_that_cannot_be_written_is_no_error(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    cache = ArrayCache(tmp_path / "file" / "cache", 10**8)
    assert same(matrix(lake, SYMBOLS, cache=cache), matrix(lake, SYMBOLS))


def test_what_a_killed_writer_left_is_cleared(lake: Lake, cache: ArrayCache) -> None:
    unfinished = cache.folder / "tmp" / "half"
    unfinished.mkdir(parents=True)
    (unfinished / "values.npy").write_bytes(b"half")
    matrix(lake, SYMBOLS, cache=cache)
    assert not unfinished.exists()
    assert cache.size().entries == 1


def test_several_processes_share_one_cache(lake: Lake, cache: ArrayCache) -> None:
    program = """
import sys, hashlib, json
from pathlib import Path
from storage.array_cache import ArrayCache
from storage.lake import Lake
from storage.matrices import matrix
lake, cache = Lake(Path(sys.argv[1])), ArrayCache(Path(sys.argv[2]), int(sys.argv[3]))
said = []
for n in range(60):
    column = ["open", "high", "low", "close", "volume"][n % 5]
    values = matrix(lake, ["AAPL", "IBM", "GAPPY"], column=column, cache=cache).values
    said.append(hashlib.sha256(values.tobytes()).hexdigest())
    if n % 20 == 19:
        cache.clear()
print(json.dumps(said))
"""
    size = matrix(lake, SYMBOLS).values.nbytes * 3
    command = [sys.executable, "-P", "-c", program, str(lake.root), str(cache.folder), str(size)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(3)]
    answers = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    first, *others = [json.loads(answer) for answer in answers]
    assert len(set(first)) == 5
    assert others == [first, first]


@pytest.mark.parametrize(
    ("symbols", "options", "error", "said"),
    [
        ([], {}, Refused, "at least one"),
        (["AAPL", "aapl"], {}, Refused, "each once"),
        (["AAPL", "NOPE"], {}, UnknownName, "NOPE is not in the lake"),
        (["GAPPY"], {"timeframe": "1h"}, UnknownName, "GAPPY is not stored as 1h"),
        (["AAPL"], {"timeframe": "2d"}, UnknownName, "timeframe"),
        (["AAPL"], {"column": "price"}, UnknownName, "column"),
        (["AAPL"], {"adjust": "split"}, Refused, "no list of splits"),
        (["AAPL"], {"snapshot": "0123456789"}, NotFound, "no snapshot"),
    ],
)
def test_what_cannot_be_had_is_refused(
    lake: Lake, symbols: list[str], options: dict[str, object], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        matrix(lake, symbols, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("damage", ["flip", "remove"])
def test_a_damaged_file_of_the_lake_is_not_read(lake: Lake, damage: str) -> None:
    path = lake.root / lake.entry("IBM").files[0].path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    if damage == "flip":
        path.write_bytes(content)
    with pytest.raises(CorruptLake, match="gpt-trader data ingest --symbol IBM"):
        matrix(lake, SYMBOLS)
