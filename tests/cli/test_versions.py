"""`data snapshots` and `data collect`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cli.conftest import Command
from tests.cli.contract_server import Contract

NOTHING: dict[str, list[Any]] = {
    name: [] for name in ("added", "changed", "removed", "instruments", "actions")
}


def series(symbol: str, rows: int | None, rows_before: int | None) -> dict[str, Any]:
    return {"symbol": symbol, "timeframe": "1d", "rows": rows, "rows_before": rows_before}


def snapshot(identity: str, **changed: Any) -> dict[str, Any]:
    return {
        "id": identity * 32,
        "created_at": "2026-01-31T12:00:00.123456Z",
        "parent": None,
        "series": 5,
        "symbols": ["AAPL"],
        "bytes": 1000,
        "changes": NOTHING | changed,
    }


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"added": [series("AAPL", 3270, None)]}, "added AAPL 1d (3,270 bars)"),
        ({"changed": [series("AAPL", 3271, 3270)]}, "changed AAPL 1d (3,270 → 3,271 bars)"),
        ({"changed": [series("AAPL", 3270, 3270)]}, "changed AAPL 1d (3,270 bars, as many as before)"),
        ({"removed": [series("IBM", None, 20)]}, "removed IBM 1d (20 bars)"),
        ({"added": [series(f"S{n}", 100, None) for n in range(12)]}, "added 12 series (1,200 bars)"),
        (
            {"instruments": ["AAPL", "IBM"], "actions": list("ABCD")},
            "facts of AAPL, IBM; corporate actions of 4",
        ),
        ({}, "nothing"),
    ],
)
def test_a_snapshot_says_what_it_changed(
    server: Contract, cli: Command, changed: dict[str, Any], said: str
) -> None:
    server.snapshots = [snapshot("a", **changed)]
    shown = cli("data snapshots")
    assert shown.code == 0, shown.err
    assert said in shown.out
    assert "a" * 32 in shown.out
    assert "2026-01-31 12:00:00" in shown.out


def test_snapshots_come_newest_first_and_whole_for_scripts(server: Contract, cli: Command) -> None:
    server.snapshots = [snapshot("c"), snapshot("b") | {"collected": True}, snapshot("a")]
    assert json.loads(cli("--output json data snapshots").out) == [snapshot("c"), snapshot("a")]
    assert json.loads(cli("--output json data snapshots --limit 1").out) == [snapshot("c")]
    assert cli("--output csv data snapshots --limit 1").out.splitlines() == [
        "id,created,changes,series,bytes",
        f"{'c' * 32},2026-01-31 12:00:00,nothing,5,1000",
    ]


def test_an_empty_lake_says_how_to_fill_it(server: Contract, cli: Command) -> None:
    assert cli("data snapshots").out == "the lake is empty: gpt-trader data ingest --symbol AAPL\n"


@pytest.mark.parametrize(
    ("words", "asked", "said"),
    [
        (
            "",
            {"older_than_days": None, "dry_run": False},
            "removed 2 snapshots and 3 files, 1.2 MB; 5 snapshots stay",
        ),
        ("--older-than 30", {"older_than_days": 30.0, "dry_run": False}, "removed 2 snapshots"),
        ("--older-than 0 --dry-run", {"older_than_days": 0.0, "dry_run": True}, "would remove 2 snapshots"),
    ],
)
def test_a_collection_says_what_went(
    server: Contract, cli: Command, words: str, asked: dict[str, Any], said: str
) -> None:
    done = cli(f"data collect {words}")
    assert done.code == 0, done.err
    assert server.bodies == [asked]
    assert said in done.out
    assert "a" * 32 in done.out


def test_a_collection_for_scripts_is_what_the_api_said(server: Contract, cli: Command) -> None:
    done = json.loads(cli("--output json data collect --dry-run").out)
    assert (done["dry_run"], done["older_than_days"], done["kept"]) == (True, 90, 5)


def test_an_age_is_never_negative(server: Contract, cli: Command) -> None:
    assert cli("data collect --older-than -1").code == 2
    assert server.asked == []
