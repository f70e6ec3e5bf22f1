"""A run holds the snapshot that it reads: one and the same from its first read to its saved result."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gpt_trader.errors import NotFound, Refused
from gpt_trader.requests import BacktestRequest
from storage.catalog import Snapshot
from storage.lake import Lake
from tasks.pins import pinned_snapshot
from tests.lake_samples import AAPL, changed, equal, some_bars

BARS = some_bars(30)


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """The lake of this test's home, with two versions of a series: the older one, then one with a restated bar."""
    monkeypatch.setenv("GPT_TRADER_HOME", str(tmp_path))
    lake = Lake(tmp_path / "lake")
    for bars in (BARS, changed(BARS, 3, volume=7.0)):
        lake.upsert(AAPL, "1d", bars, source="csv")
    return lake


def collected(lake: Lake) -> tuple[str, ...]:
    return lake.collect(datetime.now(UTC) + timedelta(days=1), set).snapshots


@pytest.mark.parametrize(
    "spelling",
    [
        lambda old: old.id,
        lambda old: old.id[:6],
        lambda old: old.created_at.isoformat(),
        lambda old: f" {old.created_at.isoformat()} ",
    ],
)
def test_a_time_or_a_prefix_becomes_the_id_that_is_recorded(
    lake: Lake, spelling: Callable[[Snapshot], str]
) -> None:
    old, _ = lake.snapshots()
    request = BacktestRequest(symbol="AAPL", snapshot=spelling(old))
    with pinned_snapshot(request) as pinned:
        assert pinned.snapshot == old.id
    assert pinned.canonical() == request.canonical(), "what is hashed must not say how the data was named"


def test_what_a_run_reads_does_not_move_and_is_not_collected(lake: Lake) -> None:
    with pinned_snapshot(BacktestRequest(symbol="AAPL")) as pinned:
        assert pinned.snapshot == lake.snapshots()[-1].id
        lake.upsert(AAPL, "1d", changed(BARS, 3, volume=8.0), source="csv")
        (older,) = collected(lake)
        assert older != pinned.snapshot
        found = lake.raw_bars("AAPL", snapshot=pinned.snapshot)
        assert equal(found, changed(BARS, 3, volume=7.0))
    assert collected(lake) == (pinned.snapshot,)


def test_a_run_that_fails_lets_its_snapshot_go(lake: Lake) -> None:
    old, _ = lake.snapshots()
    with pytest.raises(RuntimeError), pinned_snapshot(BacktestRequest(symbol="AAPL", snapshot=old.id)):
        raise RuntimeError
    assert collected(lake) == (old.id,)


@pytest.mark.parametrize(
    ("given", "kind"), [("f" * 32, NotFound), ("2001-01-01", NotFound), ("abc", Refused)]
)
def test_a_snapshot_that_is_none_is_refused(lake: Lake, given: str, kind: type[NotFound | Refused]) -> None:
    with (
        pytest.raises(kind),
        pinned_snapshot(BacktestRequest(symbol="AAPL", snapshot=given)),
    ):
        pytest.fail("there is no such snapshot")


def test_of_an_empty_lake_nothing_is_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPT_TRADER_HOME", str(tmp_path / "empty"))
    with pinned_snapshot(BacktestRequest(symbol="AAPL")) as pinned:
        assert pinned.snapshot is None
