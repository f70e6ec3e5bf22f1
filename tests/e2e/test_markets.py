"""Own bars of three markets, from the file to the result: each with its own year, its own sessions, its own holes."""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt_trader.bars import Times
from gpt_trader.calendars import calendar, expected_labels
from tests.e2e.house import House

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(sys.platform != "linux", reason="finds the engine's processes in /proc"),
]

#: Two hours and a minute without bars; in hours, the one from 11:00 is missing and two are made of less.
HOLE = ("2024-01-10T10:30", "2024-01-10T12:30")

#: Always in: every missing bar lies within its one trade.
HOLDING = '''
from gpt_trader.strategies.base import Strategy


class Holding(Strategy):
    """In from the first bar on."""

    def targets(self, bars, first=0):
        import numpy as np

        wanted = np.ones(len(bars))
        wanted[:first] = 0
        return wanted
'''


def file_of(folder: Path, symbol: str, time: Times, changed: dict[int, float] | None = None) -> Path:
    """Write bars at these times, with another close in some rows."""
    number = np.arange(len(time))
    close = 100 + np.sin(number / 7) + (number % 5) * 0.1
    for row, value in (changed or {}).items():
        close[row] = value
    shown = np.datetime_as_string(time, unit="s")
    rows = [f"{at}Z,{c:.4f},{c + 3:.4f},{c - 3:.4f},{c:.4f},1000" for at, c in zip(shown, close, strict=True)]
    file = folder / f"{symbol}.csv"
    file.write_text("timestamp,open,high,low,close,volume\n" + "\n".join(rows) + "\n")
    return file


def labels(name: str, timeframe: str, last: date) -> Times:
    return expected_labels(calendar(name), timeframe, date(2024, 1, 2), last)


def ingest(house: House, symbol: str, *options: str) -> dict[str, Any]:
    """Bring in bars; return the row of the one series."""
    result = house.json("data", "ingest", "--symbol", symbol, *options)
    (row,) = result["series"]
    assert (row["error"], row["quarantined"], result["failed"]) == (None, 0, 0)
    return {**row, "snapshot_id": result["snapshot_id"]}


def backtest(house: House, symbol: str, *options: str) -> dict[str, Any]:
    found: dict[str, Any] = house.json(
        "backtest", "--symbol", symbol, "--strategy", "./holding.py:Holding", "--no-report", *options
    )
    return found


def verdicts(house: House, symbol: str) -> dict[str, dict[str, Any]]:
    answer = house.api("GET", f"/market/quality/{symbol}").raise_for_status()
    return {each["timeframe"]: each for each in answer.json()["items"]}


def gaps(verdict: dict[str, Any]) -> list[tuple[str, str, int]]:
    return [(f["first"], f["last"], f["count"]) for f in verdict["findings"] if f["rule"] == "gaps"]


@pytest.fixture
def folder(house: House) -> Path:
    (house.cwd / "holding.py").write_text(HOLDING)
    return house.cwd


def test_own_days_without_a_calendar_have_no_gaps(house: House, folder: Path) -> None:
    days = labels("XNYS", "1d", date(2024, 6, 28))
    days = days[(days < np.datetime64("2024-03-01")) | (days >= np.datetime64("2024-03-20"))]
    assert ingest(house, "OWND", "--file", str(file_of(folder, "OWND", days)))["added"] == len(days)
    found = verdicts(house, "OWND")["1d"]
    assert (found["expected"], found["calendar"], gaps(found)) == (None, None, [])
    result = backtest(house, "OWND", "--on-gaps", "refuse")
    assert (result["periods_a_year"], result["bars"]) == (252, len(days))
    quality = result["data_quality"]
    assert (quality["missing_bars"], quality["gaps"], quality["affected_trades"]) == (None, 0, [])
    assert not any("missing" in said for said in result["warnings"])


def test_a_market_that_never_closes_with_a_hole(house: House, folder: Path) -> None:
    every = labels("24/7", "1m", date(2024, 1, 31))
    start, end = (np.datetime64(edge) for edge in HOLE)
    minutes = every[(every < start) | (every > end)]
    source = ("--file", str(file_of(folder, "COIN", minutes)), "--timeframe", "1m", "--calendar", "24/7")
    assert ingest(house, "COIN", *source)["added"] == 30 * 1440 - 121

    missing = [("2024-01-10T10:30:00Z", "2024-01-10T12:30:00Z", 121)]
    found = verdicts(house, "COIN")["1m"]
    assert (found["status"], found["expected"], gaps(found)) == ("warn", 30 * 1440, missing)

    old = backtest(house, "COIN", "--timeframe", "1m")
    assert (old["periods_a_year"], old["bars"]) == (525_600, len(minutes))
    quality = old["data_quality"]
    assert (quality["missing_bars"], quality["gaps"], quality["affected_trades"]) == (121, 1, [0])
    (said,) = (each for each in old["warnings"] if "missing" in each)
    assert said.startswith("121 of 43200 expected bars are missing in one place; 1 of 1 trades")

    refused = house.run(
        "--output", "json", "backtest", "--symbol", "COIN", "--timeframe", "1m", "--strategy",
        "./holding.py:Holding", "--on-gaps", "refuse",
    )  # fmt: skip
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert "121 bars are missing in one place" in refused.stderr
    assert "2024-01-10T10:30:00Z to 2024-01-10T12:30:00Z" in refused.stderr
    before = backtest(house, "COIN", "--timeframe", "1m", "--on-gaps", "refuse", "--end", "2024-01-09")
    assert before["data_quality"]["gaps"] == 0

    made = ingest(house, "COIN", "--source", "resample", "--timeframe", "1h")
    assert (made["added"], made["source"]) == (30 * 24 - 1, "resample")
    assert gaps(verdicts(house, "COIN")["1h"]) == [("2024-01-10T11:00:00Z", "2024-01-10T11:00:00Z", 1)]

    file_of(folder, "COIN", minutes, {1000: 101.5})
    restated = ingest(house, "COIN", *source)
    assert (restated["added"], restated["restated"], restated["unchanged"]) == (0, 1, len(minutes) - 1)
    new = backtest(house, "COIN", "--timeframe", "1m")
    assert new["snapshot_id"] == restated["snapshot_id"]
    assert new["result_hash"] != old["result_hash"]
    again = house.json("workflow", "reproduce", old["run_id"])
    assert (again["equal"], again["snapshot_id"]) == (True, old["snapshot_id"])
    assert again["result_hash"] == old["result_hash"]


def test_futures_have_their_own_sessions_and_year(house: House, folder: Path) -> None:
    """Two weeks of the CME with a holiday in between, on which the market closes at noon."""
    minutes = labels("CMES", "1m", date(2024, 1, 16))
    source = ("--file", str(file_of(folder, "FUT", minutes)), "--timeframe", "1m", "--calendar", "CMES")
    assert ingest(house, "FUT", *source)["added"] == 10 * 1380 + 19 * 60
    found = verdicts(house, "FUT")["1m"]
    assert (found["status"], found["findings"], found["expected"]) == ("ok", [], len(minutes))

    result = backtest(house, "FUT", "--timeframe", "1m", "--on-gaps", "refuse")
    assert result["periods_a_year"] == 258 * 1380
    assert (result["data_quality"]["missing_bars"], result["data_quality"]["calendar"]) == (0, "CMES")

    made = ingest(house, "FUT", "--source", "resample", "--timeframe", "1h", "--timeframe", "1h")
    assert made["added"] == 10 * 23 + 19
    assert verdicts(house, "FUT")["1h"]["findings"] == []
    hours = backtest(house, "FUT", "--timeframe", "1h")
    assert hours["periods_a_year"] == 258 * 23
