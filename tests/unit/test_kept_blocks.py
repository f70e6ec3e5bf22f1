"""What a search keeps of many trials in a file is what it would keep in memory."""

from __future__ import annotations

import hashlib
import os
import pickle
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt_trader.errors import GptTraderError
from gpt_trader.optimization import kept_blocks
from gpt_trader.optimization.kept_blocks import Blocks
from gpt_trader.optimization.kept_reasons import KeptReasons
from gpt_trader.optimization.result import OptimizeResult, choose
from gpt_trader.optimization.screening import COLUMNS, WIDTH
from gpt_trader.optimization.search import searched
from gpt_trader.optimization.study import Screened, Study
from gpt_trader.optimization.verdict import judged
from tests.unit.test_study import study


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def some(parts: int, each: int) -> list[Screened]:
    random = np.random.default_rng(parts)
    return [
        Screened.of_rows(
            np.arange(part * each, (part + 1) * each),
            random.integers(0, 3, each).astype(np.int8),
            np.where(random.random((each, 1)) < 0.1, np.nan, random.normal(size=(each, WIDTH))),
            {part * each: f"part {part}"},
        )
        for part in range(parts)
    ]


@pytest.mark.parametrize("in_memory", [0, 17, 30, 44, 45, 10_000])
def test_rows_are_the_same_wherever_they_are_kept(monkeypatch: pytest.MonkeyPatch, in_memory: int) -> None:
    monkeypatch.setattr(kept_blocks, "IN_MEMORY", in_memory)
    parts, before = some(9, 5), open_files()
    rows = np.concatenate([part.rows for part in parts])
    joined = Screened.of(iter(parts))
    assert open_files() - before == (1 if in_memory < 45 else 0)
    assert joined.rows.tobytes() == rows.tobytes()
    assert joined.number.tolist() == list(range(45))
    assert joined.state.tobytes() == b"".join(part.state.tobytes() for part in parts)
    assert list(joined.reasons) == [5 * part for part in range(9)]
    for places in ([0], [44], [], [3, 4, 5, 20], [44, 0, 7, 7, 8, 6], list(range(45))):
        assert joined.rows_at(np.array(places, np.intp)).tobytes() == rows[places].tobytes()
    again = pickle.loads(pickle.dumps(joined))
    assert again.rows.tobytes() == rows.tobytes()
    of_both = Screened.of([joined, again])
    assert of_both.rows.tobytes() == 2 * rows.tobytes()
    del joined, again, of_both
    assert open_files() == before, "a file goes with its trials"


def test_reasons_are_the_same_however_many_they_are() -> None:
    wanted, kept = {}, KeptReasons()
    for part in range(40):
        added = {number: f"{number} is wrong" for number in range(part * 77 + 76, part * 77, -2)}
        wanted.update(added)
        kept.add(added)
    assert list(kept) == list(wanted)
    assert list(kept.items()) == list(wanted.items())
    assert kept == wanted
    assert len(kept) == len(wanted) == 40 * 38
    assert [kept[number] for number in (76, 2, 3000)] == ["76 is wrong", "2 is wrong", "3000 is wrong"]
    assert 77 not in kept
    assert next(iter(kept.values())) == "76 is wrong"
    assert pickle.loads(pickle.dumps(kept)) == wanted


def concluded(found: Study, chunk: int) -> dict[str, Any]:
    """Search, choose, judge, hash, as the flow does."""
    screened = searched(
        found,
        lambda numbers: Screened.of(
            found.screen(numbers[first : first + chunk]) for first in range(0, len(numbers), chunk)
        ),
    ).screened
    objective, numbers, backtests, verified = choose(found, screened, snapshot_id="s")
    verdict = judged(found, screened, objective, numbers[0], backtests[0].equity)
    result = OptimizeResult(
        found, screened, objective, tuple(numbers), tuple(backtests), verified, "s", verdict
    )
    digest = hashlib.sha256(screened.number.tobytes() + screened.state.tobytes() + screened.rows.tobytes())
    return {"hash": result.result_hash, "verdict": verdict, "trials": digest.hexdigest(), "best": numbers}


@pytest.mark.parametrize("method", ["grid", "random", "tpe"])
def test_a_search_concludes_the_same_from_a_file(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    values: dict[str, Any] = {"method": method, "space": {"fast": [3, 5, 8, 30], "slow": [20, 30, 50]}}
    if method != "grid":
        values["trials"] = 11
    in_memory = concluded(study(**values), 100)
    monkeypatch.setattr(kept_blocks, "IN_MEMORY", 2)
    assert concluded(study(**values), 3) == in_memory


def test_a_full_folder_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on the size of files stands for a disk that is full."""
    monkeypatch.setattr(kept_blocks, "IN_MEMORY", 0)
    before, blocks = resource.getrlimit(resource.RLIMIT_FSIZE), Blocks()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, before[1]))
        with pytest.raises(GptTraderError, match=r"cannot be kept in .*: .*TMPDIR names another"):
            blocks.add(some(1, 5)[0].blocks)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_was_cut_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_blocks, "IN_MEMORY", 0)
    joined = Screened.of(some(2, 5))
    assert joined.blocks._file is not None
    os.truncate(joined.blocks._file, 1_000)
    with pytest.raises(GptTraderError, match="gone from their file"):
        _ = joined.rows
    assert len(COLUMNS) + kept_blocks.WIDTH == WIDTH
