"""Two runs compared: what is named as different, in which order, and what alone makes them unequal."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from gpt_trader.reproduction import Difference, compared, original_of, reads_snapshot, tag_of
from gpt_trader.slices import SLICES

REQUEST = {"schema_version": 1, "symbol": "AAPL", "params": {"fast": 10}, "snapshot": None, "seed": 0}
SUMMARY = {
    "schema_version": 1,
    "bars_hash": "bars",
    "params": {"fast": 10, "slow": 30},
    "metrics": {"sharpe": 1.5, "win_rate": None},
    "benchmark": {"sharpe": 0.5},
    "provenance": {"platform": "Linux-6.1", "durations": {"total": 0.5}},
}


@dataclass(frozen=True)
class Kept:
    run_id: UUID = field(default_factory=uuid4)
    request: dict[str, Any] = field(default_factory=lambda: dict(REQUEST))
    schema_version: int = 1
    snapshot_id: str | None = "snapshot"
    result_hash: str | None = "same"
    summary: dict[str, Any] | None = field(default_factory=lambda: dict(SUMMARY))
    code_version: str | None = "0.1.0+gaaaa"
    libraries: dict[str, str] | None = field(default_factory=lambda: {"python": "3.11.9", "numpy": "2.4.0"})


def summary(**changed: Any) -> dict[str, Any]:
    return SUMMARY | changed


def test_equal_runs_differ_in_nothing() -> None:
    original, now = Kept(), Kept(request=REQUEST | {"snapshot": "snapshot"})
    found = compared(original, now)
    assert (found.run_id, found.original_run_id) == (now.run_id, original.run_id)
    assert (found.snapshot_id, found.result_hash, found.equal, found.differences) == (
        "snapshot",
        "same",
        True,
        (),
    )


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"code_version": "0.2.0"}, ("code version", "0.1.0+gaaaa", "0.2.0")),
        ({"code_version": None}, ("code version", "0.1.0+gaaaa", None)),
        ({"libraries": {"python": "3.11.9", "numpy": "2.5.0"}}, ("library numpy", "2.4.0", "2.5.0")),
        ({"libraries": {"python": "3.11.9"}}, ("library numpy", "2.4.0", None)),
        (
            {"libraries": {"python": "3.11.9", "numpy": "2.4.0", "polars": "1"}},
            ("library polars", None, "1"),
        ),
        ({"summary": summary(provenance={"platform": "macOS"})}, ("platform", "Linux-6.1", "macOS")),
        ({"summary": summary(bars_hash="others")}, ("data", "bars", "others")),
        ({"schema_version": 2}, ("request schema version", 1, 2)),
        ({"request": REQUEST | {"fill": "close"}}, ("request fill", None, "close")),
        ({"summary": summary(params={"fast": 10, "slow": 40})}, ("parameter slow", 30, 40)),
    ],
)
def test_a_cause_is_named_and_does_not_make_results_unequal(
    changed: dict[str, Any], named: tuple[str, object, object]
) -> None:
    found = compared(Kept(), Kept(**changed))
    assert found.equal
    assert found.differences == (Difference(*named),)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"metrics": {"sharpe": 1.25, "win_rate": None}}, ("metric sharpe", 1.5, 1.25)),
        ({"metrics": {"sharpe": 1.5, "win_rate": 0.5}}, ("metric win_rate", None, 0.5)),
        ({"metrics": {"sharpe": 1.5, "win_rate": None, "ulcer": 2.0}}, ("metric ulcer", None, 2.0)),
        ({"benchmark": {"sharpe": 0.75}}, ("benchmark sharpe", 0.5, 0.75)),
        ({"schema_version": 2}, ("result schema version", 1, 2)),
        ({}, ("trades and equity", "same", "other")),
    ],
)
def test_another_result_always_has_what_is_other_in_it(
    changed: dict[str, Any], named: tuple[str, object, object]
) -> None:
    found = compared(Kept(), Kept(result_hash="other", summary=summary(**changed)))
    assert not found.equal
    assert found.differences == (Difference(*named),)


def test_a_cause_alone_explains_no_other_result() -> None:
    found = compared(Kept(), Kept(result_hash="other", code_version="0.2.0"))
    assert [each.what for each in found.differences] == ["code version", "trades and equity"]


def test_causes_come_before_effects() -> None:
    now = Kept(
        result_hash="other",
        code_version="0.2.0",
        libraries={"python": "3.12.0", "numpy": "2.4.0"},
        summary=summary(bars_hash="others", metrics={"sharpe": 0.0, "win_rate": 0.5}),
    )
    assert [each.what for each in compared(Kept(), now).differences] == [
        "code version",
        "library python",
        "data",
        "metric sharpe",
        "metric win_rate",
    ]


def test_a_slice_that_keeps_less_is_compared_by_what_it_keeps() -> None:
    bare = Kept(summary={}, libraries=None, code_version=None)
    assert compared(bare, replace(bare, run_id=uuid4())).differences == ()
    assert not compared(bare, replace(bare, result_hash="other")).equal


@pytest.mark.parametrize("tags", [[], ["owner:me"], ["reproduces:"], ["reproduces:not-a-run"]])
def test_tags_that_name_no_run_name_none(tags: list[str]) -> None:
    assert original_of(tags) is None


def test_a_tag_names_its_run() -> None:
    run_id = uuid4()
    assert original_of(["owner:me", "reproduces:?", tag_of(run_id)]) == run_id


def test_only_slices_that_change_the_lake_or_look_at_a_session_read_no_snapshot() -> None:
    without = {name for name, row in SLICES.items() if not reads_snapshot(row)}
    assert without == {"data", "paper_certificate", "paper_daily"}
