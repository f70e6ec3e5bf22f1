"""Processes killed while they write to the lake or collect: torn / N = 0."""

from __future__ import annotations

import random
import re
import shutil
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

import storage
from gpt_trader.crash_points import KILLED
from storage.lake import Lake
from tests.contracts.lake_workers import (
    Nursery,
    ended,
    needed,
    number_of,
    numbered,
    python,
    stored,
    whole_batch,
)

CRASH_POINTS = sorted(
    name
    for source in Path(storage.__file__).parent.glob("*.py")
    for name in re.findall(r'crash_point\("(lake\.\w+)"\)', source.read_text())
)
OF_COLLECTION = ["lake.before_doomed", "lake.collecting", "lake.forgotten"]
OF_WRITING = [name for name in CRASH_POINTS if name not in OF_COLLECTION]
#: Those that an arrival passes: the first has a row in quarantine, the last writes actions alone.
OF_AN_ARRIVAL = [
    ("lake.after_quarantine", 0),
    ("lake.before_rename", 0),
    ("lake.after_quarantine", 1),
    ("lake.before_rename", 1),
    ("lake.before_rename", 2),
    ("lake.after_quarantine", 3),
    ("lake.before_rename", 3),
]
#: The system calls before which a crash finds another disk, and who makes them.
DURABLE = [
    ("fsync", "write"),
    ("rename", "write"),
    ("fsync", "collect"),
    ("rename", "collect"),
    ("unlink", "collect"),
]


def write(lake: Lake, *numbers: int) -> list[str]:
    """Bring the lake into states; return their snapshots' ids."""
    for number in numbers:
        whole_batch(lake.upsert_many(numbered(number)))
    return [snapshot.id for snapshot in lake.snapshots()[-len(numbers) :]]


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


@pytest.mark.parametrize(("name", "place"), [*((name, None) for name in OF_WRITING), *OF_AN_ARRIVAL])
def test_a_crash_leaves_the_old_or_the_new_snapshot_and_the_next_ingest_ends_it(
    lake: Lake, nursery: Nursery, name: str, place: int | None
):
    (before,) = write(lake, 1)
    at = {} if place is None else {"place": place}
    assert nursery.run("write", lake.root, number=2, crash_at=name, **at) == KILLED
    survivor = Lake(lake.root)
    assert number_of(survivor) == (2 if name == "lake.committed" else 1)
    assert number_of(survivor, before) == 1

    write(survivor, 2)
    assert number_of(survivor) == 2
    assert len(survivor.snapshots()) == 2
    assert list((lake.root / "tmp").iterdir()) == []


@pytest.mark.parametrize("name", [name for name in OF_WRITING if name != "lake.committed"])
def test_a_crash_in_the_first_ingest_leaves_an_empty_lake(lake: Lake, nursery: Nursery, name: str):
    assert nursery.run("write", lake.root, number=1, crash_at=name) == KILLED
    assert (Lake(lake.root).entries(), Lake(lake.root).snapshots()) == ([], ())
    write(lake, 1)
    assert number_of(Lake(lake.root)) == 1


@pytest.mark.parametrize("name", OF_COLLECTION)
def test_a_killed_collection_loses_nothing_that_is_held_and_the_next_one_ends_it(
    lake: Lake, nursery: Nursery, name: str
):
    ids = write(lake, 1, 2, 3, 4)
    with lake.pinned(ids[1]):
        assert nursery.run("collect", lake.root, pinned=[ids[0]], crash_at=name) == KILLED
        survivor = Lake(lake.root)
        assert [number_of(survivor, ids[n]) for n in (0, 1, 3)] == [1, 2, 4]
        with survivor.pinned(ids[1]) as held:  # doomed was what nobody held: it says so, and stays
            assert held is not None
            assert number_of(survivor, held.id) == 2
        survivor.collect(datetime.now(UTC), lambda: {ids[0]})
    assert [number_of(survivor, ids[n]) for n in (0, 1, 3)] == [1, 2, 4]
    assert [snapshot.id for snapshot in survivor.snapshots()] == [ids[0], ids[1], ids[3]]
    assert stored(survivor) == needed(survivor)
    assert not (lake.root / "DOOMED").exists()


@pytest.mark.parametrize("name", OF_COLLECTION)
def test_an_ingest_after_a_killed_collection_brings_a_doomed_state_back_whole(
    lake: Lake, nursery: Nursery, name: str
):
    write(lake, 1, 2)
    assert nursery.run("collect", lake.root, pinned=[], crash_at=name) == KILLED
    survivor = Lake(lake.root)
    write(survivor, 1)
    assert number_of(survivor) == 1
    survivor.collect(datetime.now(UTC), set)
    assert number_of(survivor) == 1
    assert stored(survivor) == needed(survivor)


@pytest.mark.parametrize(
    "trials", [12, pytest.param(300, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
def test_killed_at_random_times_a_writer_that_collects_leaves_whole_snapshots(
    lake: Lake, nursery: Nursery, tmp_path: Path, figure: Callable[[str], None], trials: int
):
    seed = random.randrange(2**32)
    dice = random.Random(seed)
    (run_id,) = write(lake, 1)
    acknowledged = tmp_path / "acknowledged"
    acknowledged.write_text("1\n")
    last, killed, torn, lost, idle = 1, 0, [], 0, 0
    for trial in range(10 * trials):
        if trial >= trials and last > 1:
            break
        status = nursery.run(
            "write_on",
            lake.root,
            number=last,
            acknowledged=str(acknowledged),
            collect_every=2,
            pinned=[run_id],
            kill_after=dice.uniform(0, 0.8 + 0.4 * idle),  # on a busy machine a writer needs longer to begin
        )
        assert status == -signal.SIGKILL, f"seed {seed}"
        killed += 1
        survivor = Lake(lake.root)
        states = {snapshot.id: number_of(survivor, snapshot.id) for snapshot in survivor.snapshots()}
        torn += [] if sorted(states.values()) == list(states.values()) and states[run_id] == 1 else [states]
        promised = int(acknowledged.read_text().split()[-1])
        idle = idle + 1 if number_of(survivor) == last else 0
        last = number_of(survivor)
        lost += last < promised
        if len(states) > 8:
            survivor.collect(datetime.now(UTC), lambda: {run_id})
            assert stored(survivor) == needed(survivor), f"seed {seed}"
    figure(
        f"SIGKILL at random: torn {len(torn)} / {killed}, acknowledged lost {lost} of {last} (seed {seed})"
    )
    assert (torn, lost) == ([], 0), f"seed {seed}"
    assert last > 1


#: Brings a lake from state 1 into state 2, or collects what is not pinned.
STEP = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from storage.lake import Lake
from tests.contracts.lake_workers import numbered, whole_batch
root, what, pinned = sys.argv[1:]
lake = Lake(Path(root))
if what == "write":
    whole_batch(lake.upsert_many(numbered(9)))
else:
    lake.collect(datetime.now(UTC), lambda: {pinned})
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("call", "what"), DURABLE)
def test_killed_at_every_durable_system_call_it_leaves_whole_snapshots(
    tmp_path: Path, figure: Callable[[str], None], call: str, what: str
):
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    torn, number, status = 0, 0, None
    while status != 0:
        number += 1
        lake = Lake(tmp_path / f"{what}-{number}")
        ids = write(lake, 1, 2, 3)
        inject = f"inject={call}:signal=KILL:when={number}"
        process = python(
            STEP,
            lake.root,
            what,
            ids[0],
            before=[
                "strace",
                "-f",
                "-qq",
                "-o",
                str(tmp_path / "trace"),
                "-e",
                f"trace={call}",
                "-e",
                inject,
            ],
        )
        status, said = ended(process)
        assert status in (0, -signal.SIGKILL), said
        survivor = Lake(lake.root)
        states = [number_of(survivor, snapshot.id) for snapshot in survivor.snapshots()]
        torn += (
            states not in ([1, 2, 3], [1, 2, 3, 9]) if what == "write" else states not in ([1, 2, 3], [1, 3])
        )
        write(survivor, 9)
        survivor.collect(datetime.now(UTC), lambda ids=ids: {ids[0]})
        assert [number_of(survivor, snapshot.id) for snapshot in survivor.snapshots()] == [1, 9]
        assert stored(survivor) == needed(survivor)
        shutil.rmtree(lake.root)
    figure(f"SIGKILL at each {call} of a {what}: torn {torn} / {number - 1}")
    assert torn == 0
    assert number > 2
