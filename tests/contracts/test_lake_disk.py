"""Disks that are full or report a fault: the old snapshot stays, nothing is left lying about, and it is said why."""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.errors import GptTraderError
from storage.lake import Lake
from tests.contracts.lake_workers import DEADLINE, needed, number_of, numbered, python, stored, whole_batch
from tests.lake_samples import AAPL, equal, some_bars

PAGE = 4096
NO_SPACE = "No space left on device; free some space and try again"


def write(lake: Lake, number: int) -> None:
    whole_batch(lake.upsert_many(numbered(number)))


def refusal(lake: Lake) -> str:
    """Bring the lake into state 2; return what is said against it (nothing: it is done)."""
    try:
        write(lake, 2)
    except GptTraderError as error:
        return error.detail
    return ""


def litter(lake: Lake) -> set[str]:
    """Return files of bars and actions that no snapshot needs, and unfinished ones."""
    unneeded = {path for path in stored(lake) - needed(lake) if not path.startswith("manifests/")}
    return unneeded | {path.name for path in (lake.root / "tmp").iterdir()}


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
    assert litter(lake) == set()


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
    with pytest.raises(GptTraderError, match=NO_SPACE):
        lake.upsert(AAPL, "1d", some_bars(20_000, start="1950-01-01", seed=2), source="sample")
    assert equal(Lake(lake.root).raw_bars("AAPL"), some_bars(300))
    assert litter(lake) == set()
    lake.upsert(AAPL, "1d", some_bars(310), source="sample")
    assert equal(Lake(lake.root).raw_bars("AAPL"), some_bars(310))


def test_a_disk_that_fills_up_anywhere_in_a_batch_leaves_the_old_snapshot_and_no_litter(
    small_disk: Path, figure: Callable[[str], None]
):
    lake = Lake(small_disk / "lake")
    write(lake, 1)
    ballast, full, torn, free = small_disk / "ballast", 0, 0, 0
    while True:
        room = shutil.disk_usage(small_disk).free // PAGE
        ballast.write_bytes(bytes((room - free) * PAGE))
        said = refusal(lake)
        if not said:
            break
        full += 1
        assert NO_SPACE in said
        torn += number_of(Lake(lake.root)) != 1
        assert litter(lake) == set(), f"{free} free pages"
        ballast.unlink()
        free += 1
    figure(f"disk full at each of {full} pages of a batch: torn {torn} / {full}")
    assert torn == 0
    assert full > len(numbered(2))
    assert number_of(Lake(lake.root)) == 2


def test_a_full_disk_keeps_the_actions_that_were_there(small_disk: Path):
    lake = Lake(small_disk / "lake")
    old = CorporateActions.of({date(2020, 3, 2): 2.0})
    lake.upsert(AAPL, "1d", some_bars(300), source="sample", actions=old)
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free // PAGE * PAGE))
    new = CorporateActions.of({date(2020, 3, 2): 3.0})
    with pytest.raises(GptTraderError, match=NO_SPACE):
        lake.upsert(AAPL, "1d", some_bars(300), source="sample", actions=new)
    with pytest.raises(GptTraderError, match=NO_SPACE):
        lake.replace_actions("AAPL", new)
    found = Lake(lake.root).actions("AAPL")
    assert found is not None
    assert found.logical_hash == old.logical_hash
    assert litter(lake) == set()


def test_a_home_that_cannot_be_written_is_refused_in_words(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(GptTraderError, match=r"cannot write bars below .*file/lake: File exists"):
        Lake(tmp_path / "file" / "lake").upsert(AAPL, "1d", some_bars(3), source="sample")


#: Brings a lake into state 2; says what it is told of the disk.
WRITE = """
import sys
from pathlib import Path
from gpt_trader.errors import GptTraderError
from storage.lake import Lake
from tests.contracts.lake_workers import numbered, whole_batch
try:
    whole_batch(Lake(Path(sys.argv[1])).upsert_many(numbered(2)))
except GptTraderError as error:
    print(error.detail)
"""


def write_with_fault(lake: Lake, call: str, number: int) -> str:
    """Write state 2 in a process whose n-th call fails with EIO; return what it says (nothing: it succeeded)."""
    inject = f"inject={call}:error=EIO:when={number}"
    trace = str(lake.root.parent / "trace")
    strace = ["strace", "-f", "-qq", "-o", trace, "-e", f"trace={call}", "-e", inject]
    process = python(WRITE, lake.root, before=strace)
    said, errors = process.communicate(timeout=DEADLINE)
    assert errors == ""
    return said


def check_fault(lake: Lake, said: str) -> bool:
    """Check a lake after a write with a fault; return whether the new snapshot is there in spite of it."""
    assert f"cannot write bars below {lake.root}: Input/output error; the disk reports a fault" in said
    number = number_of(Lake(lake.root))
    assert litter(lake) == set()
    write(lake, 2)
    assert number_of(lake) == 2
    assert len(lake.snapshots()) == 2
    lake.collect(datetime.now(UTC), set)
    assert stored(lake) == needed(lake)
    return number == 2


needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


@needs_strace
def test_a_disk_that_cannot_force_a_file_down_leaves_the_old_snapshot(lake: Lake):
    write(lake, 1)
    assert not check_fault(lake, write_with_fault(lake, "fsync", 3))


@needs_strace
def test_a_fault_after_the_commit_is_said_and_takes_no_file_of_the_new_snapshot_back(
    lake: Lake, tmp_path: Path
):
    """The last call forces down the folder of CURRENT, which readers see already."""
    other = Lake(tmp_path / "other" / "lake")
    for one in (lake, other):
        write(one, 1)
    assert write_with_fault(other, "fsync", 10_000) == ""
    calls = (tmp_path / "other" / "trace").read_text().count("fsync(")
    assert check_fault(lake, write_with_fault(lake, "fsync", calls))


@needs_strace
@pytest.mark.slow
@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_fault_at_every_call_is_said_and_leaves_a_whole_snapshot(
    tmp_path: Path, figure: Callable[[str], None], call: str
):
    faults, committed = 0, 0
    while True:
        lake = Lake(tmp_path / f"{faults}" / "lake")
        write(lake, 1)
        said = write_with_fault(lake, call, faults + 1)
        if not said:
            break
        faults += 1
        committed += check_fault(lake, said)
    figure(f"EIO at each {call} of a batch: torn 0 / {faults}, refused although committed {committed}")
    # After the last rename the folder alone is left to be forced down: then nobody knows whether it would survive.
    assert committed == (1 if call == "fsync" else 0)
    assert faults > len(numbered(2))
