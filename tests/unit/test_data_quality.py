"""What a backtest says of its bars: which trades missing bars touch, what is warned of, what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import pytest

from gpt_trader.backtesting.data_quality import (
    affected,
    data_quality,
    refuse_blocked,
    refuse_gaps,
    warnings,
)
from gpt_trader.backtesting.result import Trade
from gpt_trader.errors import Refused
from gpt_trader.quality import RULES, Finding, RuleName, Severity, Verdict, gap_spans
from tests.quality_samples import labels, verdict, walk, without

SEVERITIES = get_args(Severity)


def moment(text: str) -> np.datetime64:
    return np.datetime64(text, "us")


def finding(
    rule: RuleName, first: str, last: str, count: int = 1, severity: Severity = "warn", detail: str = "why"
) -> Finding:
    return Finding(rule, severity, "TEST", "1d", moment(first), moment(last), count, detail)


def judged(*findings: Finding, timeframe: str = "1d", **values: Any) -> Verdict:
    """Return a verdict on bars of January 2024."""
    facts = {"bars": 25, "expected": 31, "notes": (), "calendar": "24/7"} | values
    first, last = moment("2024-01-01"), moment("2024-01-31")
    return Verdict("TEST", timeframe, first=first, last=last, findings=findings, **facts)


def trade(entry: str, left: str | None) -> Trade:
    return Trade(
        entry_time=moment(entry),
        exit_time=None if left is None else moment(left),
        side=1,
        size=1.0,
        entry_price=100.0,
        exit_price=101.0,
        entry_costs=0.0,
        exit_costs=0.0,
        pnl=1.0,
        return_=0.01,
        bars=3,
        exit_reason="open" if left is None else "target",
    )


#: Bars of 10 to 12 January are missing, and the one of the 20th.
HOLED = judged(finding("gaps", "2024-01-10", "2024-01-12", 3), finding("gaps", "2024-01-20", "2024-01-20"))
MISSING = np.array(["2024-01-10", "2024-01-11", "2024-01-12", "2024-01-20"], "datetime64[us]")
#: The bars there are.
DAYS = np.setdiff1d(
    np.arange("2024-01-01", "2024-02-01", dtype="datetime64[D]").astype("datetime64[us]"), MISSING
)


@pytest.mark.parametrize(
    ("entry", "left", "touched"),
    [
        pytest.param("2024-01-02", "2024-01-08", False, id="before it"),
        pytest.param("2024-01-02", "2024-01-09", False, id="left on the last bar before it"),
        pytest.param("2024-01-02", "2024-01-13", True, id="left on the first bar behind it"),
        pytest.param("2024-01-09", "2024-01-13", True, id="from the last bar before to the first behind"),
        pytest.param("2024-01-02", "2024-01-18", True, id="held across it"),
        pytest.param("2024-01-02", "2024-01-28", True, id="held across both"),
        pytest.param(
            "2024-01-13", "2024-01-19", True, id="decided before it, filled on the first bar behind"
        ),
        pytest.param("2024-01-14", "2024-01-19", False, id="between them"),
        pytest.param("2024-01-19", "2024-01-21", True, id="across the one of a single bar"),
        pytest.param("2024-01-22", "2024-01-30", False, id="behind both"),
        pytest.param("2024-01-15", None, True, id="open at the end, across the second"),
        pytest.param("2024-01-22", None, False, id="open at the end, behind both"),
        pytest.param("2024-01-31", None, False, id="entered on the last bar"),
        pytest.param("2024-01-05", "2024-01-05", False, id="entered and stopped within a bar"),
    ],
)
def test_trades_that_missing_bars_touch(entry: str, left: str | None, touched: bool) -> None:
    assert affected(HOLED, [trade(entry, left)], DAYS) == ([0] if touched else [])


def test_affected_trades_are_places_in_the_list() -> None:
    trades = [
        trade("2024-01-02", "2024-01-05"),
        trade("2024-01-08", "2024-01-14"),
        trade("2024-01-15", "2024-01-17"),
        trade("2024-01-18", None),
    ]
    assert affected(HOLED, trades, DAYS) == [1, 3]
    assert affected(HOLED, [], DAYS) == []
    assert affected(judged(finding("outliers", "2024-01-10", "2024-01-10")), trades, DAYS) == []


def test_an_open_trade_of_a_verdict_without_a_last_bar_lasts_to_the_last_gap() -> None:
    nothing = Verdict("TEST", "1d", 0, None, None, None, HOLED.findings, (), "24/7")
    assert affected(nothing, [trade("2024-01-11", None)], DAYS) == [0]


def test_spans_are_gaps_alone_oldest_first_both_ends_missing() -> None:
    starts, ends = gap_spans(
        judged(
            finding("gaps", "2024-01-20", "2024-01-20"),
            finding("outliers", "2024-01-02", "2024-01-02"),
            finding("gaps", "2024-01-10", "2024-01-12", 3),
        )
    )
    assert starts.tolist() == [moment("2024-01-10").item(), moment("2024-01-20").item()]
    assert ends.tolist() == [moment("2024-01-12").item(), moment("2024-01-20").item()]
    assert [len(each) for each in gap_spans(judged())] == [0, 0]


@pytest.mark.parametrize(
    ("entry", "left", "touched"),
    [
        ("2024-07-02T14:30", "2024-07-02T15:00", False),
        ("2024-07-02T14:30", "2024-07-02T15:05", True),
        ("2024-07-02T14:59", "2024-07-02T15:05", True),
        ("2024-07-02T15:06", "2024-07-02T16:00", False),
        ("2024-07-01T19:59", "2024-07-02T13:30", False),  # a night is no gap
        ("2024-07-02T15:06", None, False),
        ("2024-07-01T13:30", None, True),
    ],
)
def test_trades_over_a_series_that_was_really_checked(entry: str, left: str | None, touched: bool) -> None:
    """Minutes of two sessions in New York, without those from 15:01 to 15:04 of the second."""
    bars = walk(labels("XNYS", "1m", "2024-07-01", "2024-07-02"))
    lost = slice(390 + 91, 390 + 95)
    kept = without(bars, lost)
    found = verdict(kept, timeframe="1m")
    assert [f.count for f in found.findings] == [4]
    assert affected(found, [trade(entry, left)], kept.time) == ([0] if touched else [])


def test_a_result_tells_what_was_found() -> None:
    found = judged(
        *HOLED.findings,
        finding("outliers", "2024-01-05", "2024-01-05", detail="return of 40 %"),
        notes=("a note",),
    )
    told = data_quality(found, [trade("2024-01-08", "2024-01-14")], DAYS, mark=True)
    assert told == {
        "status": "warn",
        "calendar": "24/7",
        "bars": 25,
        "expected_bars": 31,
        "missing_bars": 4,
        "gaps": 2,
        "affected_trades": [0],
        "findings": [each.document() for each in found.findings],
        "counts": {"gaps": 2, "outliers": 1},
        "notes": ["a note"],
    }
    assert json.loads(json.dumps(told)) == told


def test_without_a_calendar_nothing_is_said_of_missing_bars() -> None:
    told = data_quality(judged(expected=None, calendar=None), [trade("2024-01-08", None)], DAYS, mark=True)
    assert (told["missing_bars"], told["gaps"], told["affected_trades"]) == (None, 0, [])


def test_a_result_lists_some_findings_and_counts_them_all() -> None:
    many = [finding("gaps", "2024-01-10", "2024-01-10", 2) for _ in range(120)]
    told = data_quality(judged(*many), [], DAYS, mark=False)
    assert len(told["findings"]) == 50
    assert (told["gaps"], told["missing_bars"], told["counts"]) == (120, 240, {"gaps": 120})
    assert told["affected_trades"] is None


def warned(found: Verdict, trades: Sequence[Trade], *, mark: bool = True) -> tuple[str, ...]:
    return warnings(data_quality(found, trades, DAYS, mark=mark), found, trades)


TRADES = (trade("2024-01-08", "2024-01-14"), trade("2024-01-15", "2024-01-16"))


@pytest.mark.parametrize(
    ("found", "mark", "said"),
    [
        pytest.param(judged(), True, [], id="nothing"),
        pytest.param(judged(notes=("no calendar",)), True, [], id="a note is no warning"),
        pytest.param(
            HOLED, True, ["4 of 31 expected bars are missing in 2 places; 1 of 2 trades"], id="marked"
        ),
        pytest.param(HOLED, False, ["4 of 31 expected bars are missing in 2 places. Bring"], id="warned"),
        pytest.param(
            judged(finding("gaps", "2024-01-10", "2024-01-10")), False, ["missing in one place."], id="one"
        ),
        pytest.param(
            judged(finding("outliers", "2024-01-05", "2024-01-05"), finding("splits", "2024-01-06", "2024-01-06")),
            True,
            ["1 findings of rule outliers", "1 findings of rule splits"],
            id="other rules",
        ),
        pytest.param(judged(finding("incomplete", "2024-01-31", "2024-01-31")), True, [], id="still forming"),
    ],
)  # fmt: skip
def test_what_is_warned_of(found: Verdict, mark: bool, said: list[str]) -> None:
    told = warned(found, TRADES, mark=mark)
    assert len(told) == len(said)
    assert all(part in whole for part, whole in zip(said, told, strict=True))


def test_warnings_name_the_commands_that_help() -> None:
    found = judged(*HOLED.findings, finding("stale", "2024-01-05", "2024-01-05"), timeframe="1m")
    gaps, others = warned(found, TRADES)
    assert "gpt-trader data ingest --symbol TEST --timeframe 1m --source NAME --refetch" in gaps
    assert "gpt-trader data ingest --symbol TEST --timeframe 1m --file PATH" in gaps
    assert "gpt-trader data check --symbol TEST" in others
    assert "--timeframe" not in warned(HOLED, TRADES)[0]


def test_a_strategy_that_never_traded_is_told() -> None:
    (said,) = warned(judged(), [])
    assert "never traded" in said
    assert len(warned(HOLED, [])) == 2


def test_gaps_are_refused_by_name() -> None:
    with pytest.raises(Refused) as refused:
        refuse_gaps(HOLED)
    (problem,) = refused.value.problems
    assert (problem.field, problem.value) == ("on_gaps", "refuse")
    assert "4 bars are missing in 2 places" in problem.message
    assert "the first from 2024-01-10T00:00:00Z to 2024-01-12T00:00:00Z" in problem.message
    assert "warn or mark" in str(problem.allowed)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "gaps"])
def test_nothing_but_a_gap_is_refused_as_one(rule: RuleName) -> None:
    refuse_gaps(judged(finding(rule, "2024-01-10", "2024-01-10")))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_what_blocks_is_refused_and_nothing_else(severity: Severity) -> None:
    found = judged(
        finding("stale", "2024-01-02", "2024-01-03"),
        finding("outliers", "2024-01-10", "2024-01-11", severity=severity, detail="return of 40 %"),
    )
    if severity != "block":
        return refuse_blocked(found)
    with pytest.raises(
        Refused, match=r"TEST 1d: the quality policy blocks outliers \(return of 40 %"
    ) as refused:
        refuse_blocked(found)
    assert "2024-01-10T00:00:00Z to 2024-01-11T00:00:00Z" in refused.value.detail
    assert "quality.rules" in refused.value.detail
    return None
