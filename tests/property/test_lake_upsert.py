"""However the same rows arrive, the lake ends with the same content."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_trader.raw_bars import inspect
from storage.lake import Lake
from storage.merge import merge
from tests.examples import examples
from tests.lake_samples import AAPL, equal, some_bars

ROWS = 60


@st.composite
def pieces(draw: st.DrawFn) -> list[list[int]]:
    """Cut shuffled row numbers, some of them repeated, into pieces."""
    order = draw(st.permutations(range(ROWS)))
    again = draw(st.lists(st.integers(0, ROWS - 1), max_size=10))
    rows = [*order, *again]
    cuts = sorted(draw(st.sets(st.integers(1, len(rows) - 1), max_size=4)))
    return [rows[a:b] for a, b in zip([0, *cuts], [*cuts, len(rows)], strict=True)]


@pytest.mark.parametrize("timeframe", ["1d", "4h", "1m"])
@settings(max_examples=examples(15), deadline=None)
@given(pieces=pieces())
def test_any_split_and_order_of_the_same_rows_gives_the_same_snapshot(
    timeframe: str, pieces: list[list[int]]
):
    # Minutes a day apart: over three months, and two years.
    every, start = ("1d", "2019-11-20") if timeframe == "1m" else (timeframe, "2019-12-28")
    raw = some_bars(ROWS, timeframe=every, start=start)
    with tempfile.TemporaryDirectory() as folder:
        whole, piecewise = Lake(Path(folder) / "whole"), Lake(Path(folder) / "pieces")
        expected = whole.upsert(AAPL, timeframe, raw, source="sample")
        for rows in pieces:
            ingest = piecewise.upsert(AAPL, timeframe, raw[np.array(rows)], source="sample")
        assert ingest.snapshot_id == expected.snapshot_id
        parts = [[file.part for file in lake.entry("AAPL", timeframe).files] for lake in (whole, piecewise)]
        assert parts[0] == parts[1]
        assert piecewise.entry("AAPL", timeframe).logical_hash == whole.entry("AAPL", timeframe).logical_hash
        assert equal(piecewise.raw_bars("AAPL", timeframe), raw)


@settings(max_examples=examples(100), deadline=None)
@given(
    stored=st.sets(st.integers(0, 40)), new=st.sets(st.integers(0, 40)), restated=st.sets(st.integers(0, 40))
)
def test_a_merge_is_the_union_where_new_rows_win(stored: set[int], new: set[int], restated: set[int]):
    base = some_bars(41)
    values = base.volume.copy()
    values[list(restated)] += 1
    newer = type(base)(base.time, base.open, base.high, base.low, base.close, values, base.factor)
    result = merge(base[_rows(stored)], newer[_rows(new)])
    expected = {n: base.volume[n] for n in stored} | {n: values[n] for n in new}
    assert result.rows.volume.tolist() == [expected[n] for n in sorted(expected)]
    assert result.rows.time.tolist() == base.time[sorted(expected)].tolist()
    assert result.added == len(new - stored)
    assert result.restated == len(new & stored & restated)
    assert result.unchanged == len((new & stored) - restated)
    assert len(inspect(result.rows, "1d").quarantined) == 0


def _rows(chosen: set[int]) -> np.ndarray:
    return np.array(sorted(chosen), dtype=np.intp)
