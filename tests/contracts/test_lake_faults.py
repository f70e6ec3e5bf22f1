"""What must not hurt the lake: crashes at every step, other writers, readers, flipped bits, a full disk."""

from __future__ import annotations

import fcntl
import os
import random
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import storage
from gpt_trader.crash_points import KILLED
from gpt_trader.errors import Conflict, CorruptLake, GptTraderError
from gpt_trader.raw_bars import RawBars
from storage.lake import Lake
from tests.lake_samples import AAPL, IBM, changed, equal, restated_bars, some_bars

REPOSITORY = Path(storage.__file__).parent.parent
DEADLINE = 60

CRASH_POINTS = sorted(
    name
    for source in Path(storage.__file__).parent.glob("*.py")
    for name in re.findall(r'crash_point\("(lake\.\w+)"\)', source.read_text())
)
OF_COLLECTION = ["lake.before_doomed", "lake.collecting", "lake.forgotten"]
OF_WRITING = [name for name in CRASH_POINTS if name not in OF_COLLECTION]

#: Restates AAPL (one row of it bad, so that there is a quarantine too) in a process of its own.
RESTATE = """
import sys
from pathlib import Path
from storage.lake import Lake
from tests.lake_samples import AAPL, restated_bars
Lake(Path(sys.argv[1])).upsert(AAPL, "1d", restated_bars(), source="sample")
"""


def python(code: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code, *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for the end; return the exit status and what was said on stderr."""
    try:
        _, said = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
    return process.returncode, said


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def test_there_is_a_crash_point_before_and_after_every_durable_step():
    assert CRASH_POINTS == [
        "lake.after_files",
        "lake.after_manifest",
        "lake.after_quarantine",
        "lake.before_current",
        "lake.before_doomed",
        "lake.before_manifest",
        "lake.before_rename",
        "lake.collecting",
        "lake.committed",
        "lake.forgotten",
        "lake.locked",
    ]


@pytest.mark.parametrize("name", OF_WRITING)
def test_a_crash_leaves_the_old_or_the_new_snapshot_and_the_next_ingest_ends_it(lake: Lake, name: str):
    old = some_bars(300)
    new = changed(old, 7, volume=1.0)
    before = lake.upsert(AAPL, "1d", old, source="sample").snapshot_id
    status, said = ended(python(RESTATE, lake.root, GPT_TRADER_CRASH_AT=name))
    assert status == KILLED, said
    committed = name == "lake.committed"
    assert equal(Lake(lake.root).raw_bars("AAPL"), new if committed else old)
    assert equal(Lake(lake.root).raw_bars("AAPL", snapshot=before), old)

    survivor = Lake(lake.root)
    survivor.upsert(AAPL, "1d", restated_bars(), source="sample")
    assert equal(survivor.raw_bars("AAPL"), new)
    assert len(survivor.snapshots()) == 2
    assert list((lake.root / "tmp").iterdir()) == []


def test_a_crash_in_the_first_ingest_leaves_an_empty_lake(lake: Lake):
    assert ended(python(RESTATE, lake.root, GPT_TRADER_CRASH_AT="lake.before_current"))[0] == KILLED
    assert Lake(lake.root).entries() == []
    lake.upsert(AAPL, "1d", restated_bars(), source="sample")
    assert len(Lake(lake.root).raw_bars("AAPL")) == 299


#: Adds every second row of AAPL, one at a time, from a given one on.
ADD_ROWS = """
import sys
from pathlib import Path
from storage.lake import Lake
from tests.lake_samples import AAPL, some_bars
raw, lake = some_bars(40), Lake(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for row in range(int(sys.argv[2]), 40, 2):
    lake.upsert(AAPL, "1d", raw[row : row + 1], source="sample")
"""


def test_two_writers_on_one_symbol_lose_no_update(lake: Lake):
    writers = [python(ADD_ROWS, lake.root, first) for first in (0, 1)]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    assert [ended(writer) for writer in writers] == [(0, ""), (0, "")]
    assert equal(lake.raw_bars("AAPL"), some_bars(40))
    assert len(lake.snapshots()) == 40


#: Restates all of AAPL over and over, all volumes alike.
REWRITE = """
import sys
from pathlib import Path
import numpy as np
from gpt_trader.raw_bars import RawBars
from storage.lake import Lake
from tests.lake_samples import AAPL, some_bars
b, lake = some_bars(500), Lake(Path(sys.argv[1]))
for n in range(2, 42):
    raw = RawBars(b.time, b.open, b.high, b.low, b.close, np.full(500, float(n)), b.factor)
    lake.upsert(AAPL, "1d", raw, source="sample")
"""


def test_a_reader_during_rewrites_sees_whole_snapshots_only(lake: Lake):
    b = some_bars(500)
    raw = RawBars(b.time, b.open, b.high, b.low, b.close, np.ones(500), b.factor)
    lake.upsert(AAPL, "1d", raw, source="sample")
    writer = python(REWRITE, lake.root)
    seen = []
    while writer.poll() is None:
        volumes = set(lake.raw_bars("AAPL").volume.tolist())
        assert len(volumes) == 1
        seen.append(volumes.pop())
    assert ended(writer) == (0, "")
    assert seen == sorted(seen)
    assert len(set(seen)) > 2
    assert lake.raw_bars("AAPL").volume[0] == 41.0


def flips(lake: Lake, count: int, seed: int) -> Iterator[tuple[Path, int]]:
    """Flip one random bit of a random file of the lake, `count` times; mend it after each."""
    dice = random.Random(seed)
    files = sorted(p for p in lake.root.rglob("*") if p.is_file() and p.name != "lock")
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


@pytest.mark.parametrize("count", [24, pytest.param(200, marks=pytest.mark.slow)])
def test_every_flipped_bit_is_detected_and_the_file_named(lake: Lake, count: int):
    lake.upsert(AAPL, "1d", some_bars(300), source="sample")
    lake.upsert(IBM, "4h", some_bars(300, timeframe="4h", start="2019-12-01"), source="csv")
    seed = random.randrange(2**32)
    undetected = []
    for path, bit in flips(lake, count, seed):
        reader = Lake(lake.root)
        if path.name != "CURRENT" and path.stem == lake.snapshots()[0].id:
            read = {"AAPL 1d": lambda r=reader: r.bars("AAPL", snapshot=lake.snapshots()[0].id)}
        else:
            read = {
                "AAPL 1d": lambda r=reader: r.bars("AAPL"),
                "IBM 4h": lambda r=reader: r.bars("IBM", "4h"),
            }
        found = []
        for one in read.values():
            try:
                one()
            except CorruptLake as error:
                found.append(str(path) in error.detail)
        if not any(found):
            undetected.append((str(path), bit))
    assert undetected == [], f"seed {seed}: {len(undetected)} of {count} undetected"
    assert len(lake.bars("AAPL")) == len(lake.bars("IBM", "4h")) == 300


def damage(lake: Lake, symbol: str = "AAPL", timeframe: str = "1d") -> Path:
    path = lake.root / lake.entry(symbol, timeframe).files[0].path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    replace(path, bytes(content))
    return path


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


def test_damage_done_while_a_process_lives_is_found_by_its_sql_paths(lake: Lake):
    lake.upsert(AAPL, "1d", some_bars(300), source="sample")
    assert len(lake.verified_paths(lake.entries())) == 1
    damage(lake)
    with pytest.raises(CorruptLake, match="is damaged"):
        lake.verified_paths(lake.entries())


def test_a_writer_that_does_not_end_is_named_after_a_bounded_wait(lake: Lake):
    lake.root.mkdir()
    with (lake.root / "lock").open("w") as lock:
        lock.write("4711")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Conflict, match=r"held by another writer \(process 4711\) for more than 0.05 s"):
            Lake(lake.root, lock_wait_seconds=0.05).upsert(AAPL, "1d", some_bars(3), source="sample")
    assert lake.upsert(AAPL, "1d", some_bars(3), source="sample").added == 3


HOLD = """
import sys
from pathlib import Path
from storage.durable import write_lock
with write_lock(Path(sys.argv[1]), wait_seconds=5):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_killed_writer_holds_nobody_up(lake: Lake):
    holder = python(HOLD, lake.root / "lock")
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Conflict, match=f"process {holder.pid}"):
            Lake(lake.root, lock_wait_seconds=0.05).upsert(AAPL, "1d", some_bars(3), source="sample")
    finally:
        holder.send_signal(signal.SIGKILL)
        ended(holder)
    assert lake.upsert(AAPL, "1d", some_bars(3), source="sample").added == 3


#: Restates AAPL with more rows than the file size limit of the process lets it write.
TOO_LARGE = """
import resource, sys
from pathlib import Path
from gpt_trader.errors import GptTraderError
from storage.lake import Lake
from tests.lake_samples import AAPL, some_bars
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    Lake(Path(sys.argv[1])).upsert(AAPL, "1d", some_bars(5_000, seed=2), source="sample")
except GptTraderError as error:
    print(error.detail)
"""


def test_a_write_that_fails_leaves_the_old_snapshot_and_no_litter(lake: Lake):
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    lake.upsert(AAPL, "1d", some_bars(300), source="sample")
    writer = python(TOO_LARGE, lake.root)
    said, errors = writer.communicate(timeout=DEADLINE)
    assert errors == ""
    assert f"cannot write bars below {lake.root}: File too large" in said
    assert equal(Lake(lake.root).raw_bars("AAPL"), some_bars(300))
    assert list((lake.root / "tmp").iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 192 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=192k", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this user may not mount a tmpfs")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_leaves_the_old_snapshot_and_says_so(small_disk: Path):
    lake = Lake(small_disk / "lake")
    lake.upsert(AAPL, "1d", some_bars(300), source="sample")
    with pytest.raises(GptTraderError, match="No space left on device; free some space and try again"):
        lake.upsert(AAPL, "1d", some_bars(20_000, start="1950-01-01", seed=2), source="sample")
    assert equal(Lake(lake.root).raw_bars("AAPL"), some_bars(300))
    assert list((lake.root / "tmp").iterdir()) == []
    lake.upsert(AAPL, "1d", some_bars(310), source="sample")
    assert equal(Lake(lake.root).raw_bars("AAPL"), some_bars(310))


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


def test_a_home_that_cannot_be_written_is_refused_in_words(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(GptTraderError, match=r"cannot write bars below .*file/lake: File exists"):
        Lake(tmp_path / "file" / "lake").upsert(AAPL, "1d", some_bars(3), source="sample")
