"""The report of a portfolio: the backtest's page with weights and symbols, safe whatever is in it."""

from __future__ import annotations

import re
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from gpt_trader.portfolio.engine import simulate
from gpt_trader.portfolio.page import LISTED, render_html, render_png
from gpt_trader.portfolio.pictures import SHOWN, bands
from gpt_trader.portfolio.quality import data_quality, warnings
from gpt_trader.portfolio.request import PortfolioRequest
from gpt_trader.portfolio.result import PortfolioResult
from gpt_trader.quality import Finding, Verdict
from tests.portfolio_samples import panel_of, walking_panel


def found(bars: int = 300, symbols: int = 4, **request: object) -> PortfolioResult:
    panel = walking_panel(bars, symbols)
    return simulate(panel, PortfolioRequest(symbols=panel.symbols, **request))


def page_of(result: PortfolioResult) -> str:
    return render_html(result, run_id="0d2c8f6e", created_at="2026-11-23T09:00:00Z")


def rows(page: str, table: str) -> list[str]:
    body = re.search(rf"<table class=\"{table}\".*?<tbody>(.*?)</tbody>", page, re.DOTALL)
    assert body is not None
    return re.findall(r"<tr>", body[1])


def test_it_has_what_a_backtests_has_and_the_weights_and_a_row_a_symbol() -> None:
    result = found(drift=0.05)
    page = page_of(result)
    for title in (
        "Equity and drawdown",
        "Weights over time",
        "Symbols",
        "Monthly returns",
        "Metrics",
        "Worst drawdowns",
    ):
        assert title in page
    assert "equal weights <span>on</span> S0000, S0001, S0002 and 1 more" in page
    assert "rebalanced every month and at a drift of 5.00%" in page
    assert "0d2c8f6e" in page
    assert result.result_hash in page
    assert len(rows(page, "holdings")) == 4
    assert len(rows(page, "trades")) == len(result.trades)
    assert page.count('class="band w') == 4
    assert 'src="' not in page


def test_nothing_of_a_request_is_markup() -> None:
    result = found()
    evil = "</script><script>alert(1)</script>"
    page = page_of(replace(result, request={**result.request, "strategy": evil}, warnings=(evil,)))
    assert evil not in page
    assert "&lt;script&gt;alert(1)" in page


def test_of_very_many_trades_those_that_mattered_most_are_listed() -> None:
    result = found(bars=600, symbols=12, rebalance="day")
    assert len(result.trades) > LISTED
    page = page_of(result)
    assert len(rows(page, "trades")) == LISTED
    assert f"The {LISTED:,} that made or lost most" in page


def test_without_a_trade_it_says_so() -> None:
    panel = panel_of({"A": [10, 10], "B": [10, 10]})
    result = simulate(panel, PortfolioRequest(symbols=panel.symbols, capital=1, commission={"minimum": 5}))
    page = page_of(result)
    assert "No trade" in page
    assert "at least 5<" in page
    assert render_png(result, run_id="x")[:4] == b"\x89PNG"


def test_beyond_the_highest_weights_the_others_share_a_band() -> None:
    result = found(symbols=14)
    shown = np.arange(0, 300, 7)
    names, weights = bands(result, shown)
    assert (len(names), names[-1]) == (SHOWN + 1, "5 others")
    np.testing.assert_allclose(weights.sum(axis=0), result.weights[shown].sum(axis=1))
    assert "5 others" in page_of(result)


def test_the_picture_has_the_size_of_a_backtests() -> None:
    with Image.open(BytesIO(render_png(found(), run_id="0d2c8f6e"))) as picture:
        assert picture.size == (1440, 960)


def verdict(symbol: str, *gaps: tuple[str, int], rule: str = "gaps") -> Verdict:
    findings = tuple(
        Finding(
            rule, "warn", symbol, "1d", np.datetime64(day, "us"), np.datetime64(day, "us"), count, "missing"
        )
        for day, count in gaps
    )
    return Verdict(symbol, "1d", 300, 301, np.datetime64("2000-01-03"), None, findings, (), "XNYS")


def test_missing_bars_are_told_and_the_trades_they_touch_are_marked() -> None:
    panel = walking_panel(300, 3)
    result = simulate(panel, PortfolioRequest(symbols=panel.symbols))
    verdicts = [
        verdict("S0000"),
        verdict("S0001", ("2000-01-20", 2)),
        verdict("S0002", ("2000-05-05", 1), rule="outliers"),
    ]
    quality = data_quality(verdicts, result, mark=True)
    assert (quality["status"], quality["missing_bars"], quality["gaps"]) == ("warn", 2, 1)
    touched = [result.trades[place] for place in quality["affected_trades"]]
    assert touched
    assert {trade.symbol for trade in touched} == {"S0001"}
    assert [each["symbol"] for each in quality["series"]] == ["S0001", "S0002"]
    said = warnings(quality, panel, result)
    assert "2 of 903 expected bars are missing" in said[0]
    assert "S0001" in said[0]
    assert "S0002 have other findings" in said[1]
    assert data_quality(verdicts, result, mark=False)["affected_trades"] is None


def test_currencies_that_are_added_up_and_symbols_that_ended_are_told() -> None:
    panel = panel_of({"A": [10] * 50, "B": [10] * 10 + [None] * 40})
    euros = replace(
        panel, instruments=(panel.instruments[0].model_copy(update={"currency": "EUR"}), panel.instruments[1])
    )
    result = simulate(euros, PortfolioRequest(symbols=panel.symbols))
    said = warnings(data_quality([verdict("A"), verdict("B")], result, mark=True), euros, result)
    assert said[0].startswith("prices in EUR, USD are added up as they are")
    assert said[1].startswith("B had no more bars at the end")


@pytest.mark.parametrize("bars", [1, 2, 3])
def test_the_shortest_ranges_can_be_drawn(bars: int) -> None:
    result = found(bars=bars, symbols=2)
    assert "Weights over time" in page_of(result)
    assert render_png(result, run_id="x")
