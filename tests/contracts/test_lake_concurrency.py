"""Writers, readers and collection at once: wrong reads = 0, lost updates = 0."""

from __future__ import annotations

import fcntl
import json
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from gpt_trader.errors import Conflict
from storage.lake import Lake
from tests.contracts import lake_campaign
from tests.contracts.lake_workers import Nursery, ended, python, together, volumes
from tests.lake_samples import AAPL, equal, some_bars


@pytest.mark.parametrize("seconds", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_four_writers_two_readers_and_collection_read_nothing_wrong_and_lose_nothing(
    lake: Lake, nursery: Nursery, tmp_path: Path, figure: Callable[[str], None], seconds: int
):
    seed = random.randrange(2**32)
    kept = lake_campaign.start(lake.root)
    results = tmp_path / "results"
    results.mkdir()
    status = nursery.run("campaign", lake.root, seconds=seconds, seed=seed, kept=kept, results=str(results))
    assert status == 0, f"seed {seed}"
    found = {path.name: json.loads(path.read_text()) for path in results.iterdir()}
    writers = [found[f"writer {number}"] for number in range(lake_campaign.WRITERS)]
    readers = [found["long reader"], found["short reader"]]
    wrong = [words for one in found.values() for words in one["wrong"]]
    numbers, mixed = lake_campaign.view(Lake(lake.root), None)
    lost = sum(writer["last"] - number for writer, number in zip(writers, numbers, strict=True))
    reads, updates = (sum(one["done"] for one in those) for those in (readers, writers))
    collected = found["collection"]["done"]
    figure(
        f"wrong reads {len(wrong)} / {reads}, lost updates {lost} / {updates}, with {collected} snapshots "
        f"collected, {found['short reader']['met']} of them under a reader without a pin (seed {seed})"
    )
    assert (wrong, mixed, lost) == ([], "", 0), f"seed {seed}"
    assert min(*(one["done"] for one in found.values()), updates) > 0
    assert lake_campaign.view(Lake(lake.root), kept) == ([0] * lake_campaign.WRITERS, "")
    assert list((lake.root / "tmp").iterdir()) == []


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
    with together([python(ADD_ROWS, lake.root, first) for first in (0, 1)]) as writers:
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
from storage.lake import Lake
from tests.contracts.lake_workers import volumes
from tests.lake_samples import AAPL, some_bars
lake = Lake(Path(sys.argv[1]))
for number in range(2, 42):
    lake.upsert(AAPL, "1d", volumes(some_bars(500), number), source="sample")
"""


def test_a_reader_during_rewrites_sees_whole_snapshots_only(lake: Lake):
    lake.upsert(AAPL, "1d", volumes(some_bars(500), 1), source="sample")
    writer = python(REWRITE, lake.root)
    seen = []
    while writer.poll() is None:
        found = set(lake.raw_bars("AAPL").volume.tolist())
        assert len(found) == 1
        seen.append(found.pop())
    assert ended(writer) == (0, "")
    assert seen == sorted(seen)
    assert len(set(seen)) > 2
    assert lake.raw_bars("AAPL").volume[0] == 41.0


def test_threads_that_share_a_lake_object_lose_no_update(lake: Lake):
    raw = some_bars(40)

    def add(first: int) -> None:
        for row in range(first, 40, 4):
            lake.upsert(AAPL, "1d", raw[row : row + 1], source="sample")
            assert len(lake.raw_bars("AAPL")) > 0

    threads = [threading.Thread(target=add, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert equal(lake.raw_bars("AAPL"), raw)
    assert len(lake.snapshots()) == 40


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
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_a_killed_writer_holds_nobody_up(lake: Lake):
    with together([python(HOLD, lake.root / "lock")]) as (holder,):
        with pytest.raises(Conflict, match=f"process {holder.pid}"):
            Lake(lake.root, lock_wait_seconds=0.05).upsert(AAPL, "1d", some_bars(3), source="sample")
        holder.send_signal(signal.SIGKILL)
        ended(holder)
        assert lake.upsert(AAPL, "1d", some_bars(3), source="sample").added == 3
