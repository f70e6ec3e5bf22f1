from __future__ import annotations

import io
import json
import math
import re
import time as clock
from dataclasses import fields, replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from gpt_trader.backtesting.report import formats, render_html, render_png
from gpt_trader.backtesting.report.glossary import GLOSSARY
from gpt_trader.backtesting.report.monthly import YearOfReturns, monthly_returns
from gpt_trader.backtesting.report.page import heat
from gpt_trader.backtesting.report.series import script_json
from gpt_trader.backtesting.report.thinning import DISPLAY_LIMIT, display_indices
from gpt_trader.backtesting.result import BacktestResult, Metrics
from tests.backtest_samples import aapl, sma_cross, walk

RUN_ID, CREATED_AT = "0d2c8f6e-3f8a-4c6e-9a64-6f7f5f1f2a10", "2026-11-23T09:00:00Z"
HOSTILE = (
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "\"><img src=x onerror=alert(1)>'",
    "]]>&lt;{{ 7*7 }}{% raw %}\u2028\u202e\x00",
    r"$\frac{1$ 🙂 漢字",
)


def page(result: BacktestResult) -> str:
    return render_html(result, run_id=RUN_ID, created_at=CREATED_AT)


def payload(html: str) -> dict:
    return json.loads(re.search(r'id="payload">(.*?)</script>', html, re.S)[1], parse_constant=pytest.fail)


class Document(HTMLParser):
    """Collects what a browser would see: elements with their attributes, the text, and each table's rows."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.tables: dict[str, list[list[str]]] = {}
        self._rows: list[list[str]] = []
        self._cell = False
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag == "table":
            self._rows = self.tables.setdefault(str(dict(attributes)["class"]), [])
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("th", "td"):
            self._rows[-1].append("")
        self._cell = (self._cell or tag in ("th", "td")) and tag not in ("table", "tr")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("table", "tr", "th", "td"):
            self._cell = False

    def handle_data(self, text: str) -> None:
        self.text += text
        if self._cell:
            self._rows[-1][-1] += text.strip("\n")


@pytest.fixture(scope="module")
def result() -> BacktestResult:
    return sma_cross(aapl())


@pytest.fixture(scope="module")
def document(result: BacktestResult) -> Document:
    return Document(page(result))


def test_shows_the_metrics_of_strategy_and_benchmark(result: BacktestResult, document: Document) -> None:
    rows = {row[0]: row[1:] for row in document.tables["metrics"] if len(row) == 3}
    assert rows["Total return"] == ["+886.90%", "+1,241%"]
    assert rows["Max drawdown"] == ["−74.09%", "−81.80%"]
    assert rows["Sharpe ratio"] == [f"{result.metrics.sharpe:.2f}", f"{result.benchmark.sharpe:.2f}"]
    assert rows["Trades"] == ["26", "0"]
    assert rows["Final equity"][0] == f"{result.metrics.final_equity:,.2f}"
    assert rows["Win rate"][1] == "–"


@pytest.mark.parametrize(
    ("total_return", "verdict"), [(0.5, "Ahead of"), (0.3, "Level with"), (-0.1, "Behind")]
)
def test_the_verdict_compares_with_buy_and_hold(total_return: float, verdict: str) -> None:
    result = sma_cross(walk(100))
    mine, held = (replace(result.metrics, total_return=value) for value in (total_return, 0.3))
    assert f"{verdict} buy & hold" in Document(page(replace(result, metrics=mine, benchmark=held))).text


def test_every_metric_is_shown_once_and_explained(document: Document) -> None:
    entries = [entry for group in GLOSSARY.values() for entry in group]
    assert sorted(entry.field for entry in entries) == sorted(field.name for field in fields(Metrics))
    titles = {attributes.get("title") for tag, attributes in document.elements if tag == "tr"}
    assert {entry.meaning for entry in entries} <= titles


def test_lists_all_trades(result: BacktestResult, document: Document) -> None:
    head, *rows = document.tables["trades"]
    assert len(rows) == len(result.trades) == 26
    first = dict(zip(head, rows[0], strict=True))
    trade = result.trades[0]
    assert first["Entry"] == str(trade.entry_time.astype("M8[D]")) == "2000-07-13"
    assert first["Exit"] == "2000-08-16"
    assert first["P&L"] == "−2,010.33"
    assert first["Return"] == "−20.12%"
    assert first["Bars"] == "24"
    assert first["Closed by"] == "signal"


def test_an_open_trade_has_no_exit_and_is_named_in_the_notes() -> None:
    result = sma_cross(tuple(part[:2900] for part in aapl()))
    assert result.trades[-1].exit_time is None
    shown = Document(page(result))
    assert shown.tables["trades"][-1][3] == "–"
    assert shown.tables["trades"][-1][-1] == "open"
    assert "An open position." in shown.text
    assert payload(page(result))["trades"][-1][1] is None


def test_names_what_it_came_from(result: BacktestResult, document: Document) -> None:
    pairs = dict(document.tables["pairs hashes"])
    assert pairs["run id"] == RUN_ID
    assert pairs["created at"] == CREATED_AT
    assert pairs["snapshot id"] == result.snapshot_id
    assert pairs["result hash"] == result.result_hash
    assert pairs["bars hash"] == result.bars_hash
    assert pairs["libraries · numpy"] == np.__version__
    assert '"commission": 0.001' in document.text


def test_makes_no_request_and_declares_it(document: Document) -> None:
    for tag, attributes in document.elements:
        assert "src" not in attributes
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("href", "action", "data", "poster", "srcset") and not str(value).startswith("#"):
                assert (tag, str(value)[:5]) == ("link", "data:") or (tag, value) in {
                    ("a", "https://www.tradingview.com/"),
                    ("a", "https://www.apache.org/licenses/LICENSE-2.0"),
                }
    assert "Copyright (c) 2026 TradingView, Inc." in document.text
    policy = next(
        a["content"] for tag, a in document.elements if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


def test_hostile_names_stay_text() -> None:
    plain = page(sma_cross(walk(300)))
    for text in HOSTILE:
        result = sma_cross(
            walk(300),
            symbol=text,
            strategy=text,
            params={text: text},
            request={text: text, "direction": text},
            snapshot_id=text,
            timeframe=text,
            provenance={text: {text: text}},
        )
        html = render_html(result, run_id=text, created_at=text)
        assert [
            tag for tag, _ in Document(html).elements if tag in ("script", "img", "svg", "style", "link")
        ] == [tag for tag, _ in Document(plain).elements if tag in ("script", "img", "svg", "style", "link")]
        assert payload(html)["strategy"] == text
        assert "49" not in html.split('class="verdict"')[0].split("<h1>")[1]


def test_a_lone_surrogate_does_not_keep_the_page_from_being_written() -> None:
    html = page(sma_cross(walk(50), params={"note": "\ud800"}))
    assert html.encode("utf-8").count(b"note") >= 1


def test_script_json_leaves_no_markup_and_refuses_nan() -> None:
    text = script_json({"a": "</script><!--&\u2028é"})
    assert not set("<>&") & set(text)
    assert text.isascii()
    assert json.loads(text) == {"a": "</script><!--&\u2028é"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        script_json([math.nan])


def test_undefined_metrics_are_dashes() -> None:
    result = sma_cross(walk(300))
    undefined = {field.name: None for field in fields(Metrics) if "None" in str(field.type)}
    assert len(undefined) > 10
    html = page(replace(result, metrics=replace(result.metrics, **undefined)))
    rows = {row[0]: row[1] for row in Document(html).tables["metrics"] if len(row) == 3}
    entries = [entry for group in GLOSSARY.values() for entry in group]
    assert {entry.field for entry in entries if rows[entry.label] == "–"} == set(undefined)
    tiles = re.findall(r"<dd>(.*?)<small>(.*?)</small>", html)
    assert [value for value, _ in tiles].count("–") == 3
    assert not re.search(r">\s*(nan|inf|None)\b", html)


@pytest.mark.parametrize("name", ["equity", "benchmark_equity", "drawdown", "close"])
def test_a_series_that_is_not_finite_is_refused_by_name(name: str) -> None:
    result = sma_cross(walk(100))
    values = getattr(result, name).copy()
    values[5] = np.nan
    for render in (page, lambda bad: render_png(bad, run_id=RUN_ID)):
        with pytest.raises(ValueError, match=f"{name} is not a finite number at bar 5"):
            render(replace(result, **{name: values}))


def test_no_trades() -> None:
    result = sma_cross(walk(300), slow=299, fast=298)
    assert not result.trades
    html = page(result)
    assert "No trade: the strategy never asked" in html
    assert "No trades." in Document(html).text
    assert "trades" not in Document(html).tables
    assert Image.open(io.BytesIO(render_png(result, run_id=RUN_ID))).size == (1440, 960)


@pytest.mark.parametrize("bars", [1, 2, 3])
def test_a_handful_of_bars(bars: int) -> None:
    result = sma_cross(tuple(part[:bars] for part in aapl()))
    html = page(result)
    assert len(payload(html)["close"]) == bars
    assert len(payload(html)["steps"]) == bars - 1
    assert "Equity never fell" in html or "Worst drawdowns" in html
    assert Image.open(io.BytesIO(render_png(result, run_id=RUN_ID))).size == (1440, 960)


def test_equity_that_is_lost_has_no_log_scale() -> None:
    result = sma_cross(walk(300))
    equity = np.linspace(10_000, -500, 300)
    lost = replace(result, equity=equity, drawdown=equity / 10_000 - 1)
    assert payload(page(lost))["logAllowed"] is False
    assert payload(page(lost))["log"] is False
    assert render_png(lost, run_id=RUN_ID)[:4] == b"\x89PNG"


def test_twenty_years_of_days_stay_small() -> None:
    html = page(sma_cross(walk(5040)))
    assert len(html.encode()) < 600_000
    assert len(payload(html)["equity"]) == 5040
    assert "Drawn from" not in html


def test_half_a_million_bars_are_thinned_for_display_and_say_so() -> None:
    result = sma_cross(walk(500_000, step="m"), fast=2000, slow=6000, timeframe="1m")
    page(sma_cross(walk(10)))  # imports and the template's compilation are not what is bounded here
    started = clock.perf_counter()
    html = page(result)
    assert clock.perf_counter() - started < 5
    shown = payload(html)
    assert 15_000 < len(shown["equity"]) <= DISPLAY_LIMIT
    assert "of 500,000 bars" in html
    assert len(html.encode()) < 2_000_000
    assert max(shown["equity"]) == pytest.approx(result.equity.max(), rel=1e-6)
    assert min(shown["drawdown"]) == pytest.approx(result.drawdown.min(), rel=1e-6)
    times = shown["start"] + np.cumsum([0, *shown["steps"]]) * shown["unit"]
    assert np.datetime64(int(times[-1]), "s") == result.time[-1]
    bars = np.searchsorted(result.time, times.astype("M8[s]"))
    assert np.allclose(result.close[bars], shown["close"], rtol=1e-6)
    for trade, (entry, *_) in zip(result.trades, shown["trades"], strict=True):
        assert times[entry] <= trade.entry_time.astype("M8[s]").astype(int) < times[entry + 1]


def test_thinning_keeps_the_extremes_of_every_stretch() -> None:
    generator = np.random.default_rng(3)
    for length in (1001, 5000, 99_991):
        series = [generator.normal(size=length).cumsum() for _ in range(3)]
        shown = display_indices(series, 1000)
        assert len(shown) <= 1000
        assert np.all(np.diff(shown) > 0)
        assert (shown[0], shown[-1]) == (0, length - 1)
        width = -(-length // (1000 // 7))
        for values in series:
            for start in range(0, length, width):
                stretch, kept = (
                    values[start : start + width],
                    shown[(shown >= start) & (shown < start + width)],
                )
                assert values[kept].max() == stretch.max()
                assert values[kept].min() == stretch.min()
                assert len(kept) == min(7, len(stretch))


def test_thinning_leaves_short_series_alone_and_refuses_a_limit_too_small() -> None:
    assert display_indices([np.zeros(5)], 5).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="limit 8 is less than 9"):
        display_indices([np.zeros(50)] * 4, 8)


def test_monthly_returns_by_hand() -> None:
    time = np.array(
        ["2019-11-29", "2019-12-02", "2019-12-31", "2020-02-03", "2020-02-28", "2020-03-02"], dtype="M8[us]"
    )
    equity = np.array([100.0, 110.0, 120.0, 90.0, 150.0, 75.0])
    none = (None,)
    assert monthly_returns(time, equity) == (
        YearOfReturns(2019, none * 10 + (0.0, pytest.approx(0.2)), pytest.approx(0.2)),
        YearOfReturns(
            2020, (None, pytest.approx(0.25), pytest.approx(-0.5), *none * 9), pytest.approx(-0.375)
        ),
    )


def test_monthly_returns_start_from_the_first_equity_and_compound_to_the_total(
    result: BacktestResult,
) -> None:
    years = monthly_returns(result.time, result.equity)
    assert [year.year for year in years] == list(range(2000, 2014))
    by_month = np.prod([1 + month for year in years for month in year.months if month is not None])
    by_year = np.prod([1 + year.total for year in years])
    assert by_month == pytest.approx(1 + result.metrics.total_return)
    assert by_year == pytest.approx(1 + result.metrics.total_return)


def test_a_month_that_starts_from_nothing_is_undefined() -> None:
    time = np.array(["2020-01-31", "2020-02-28", "2020-03-31"], dtype="M8[us]")
    (year,) = monthly_returns(time, np.array([100.0, 0.0, 10.0]))
    assert year.months[:3] == (0.0, -1.0, None)


def test_heat_follows_sign_and_size() -> None:
    assert [heat(value) for value in (None, 0.0, 0.004, 0.005, -0.05, 0.5, -0.5)] == [
        "", "z", "z", "g1", "l3", "g5", "l5",
    ]  # fmt: skip


def test_numbers_are_written_plainly() -> None:
    assert formats.number(-1234.5) == "−1,234.50"
    assert formats.number(0.001, signed=True) == formats.number(-0.001) == "0.00"
    assert formats.number(5, 0, signed=True) == "+5"
    assert formats.number(None) == formats.number(math.nan) == formats.percent(math.inf) == "–"
    assert formats.number(-3.4e33) == "−3.40e+33"
    assert formats.percent(0.1234, signed=True) == "+12.3%"
    assert formats.percent(12.3456) == "1,235%"
    assert formats.quantity(2401.6420) == "2,401.642"
    assert formats.quantity(1200.0) == "1,200"
    assert formats.money(12.3) == "12.30"
    assert formats.money(123.4) == "123"
    assert formats.price_digits(np.array([0.00012, 0.00013])) == 7
    assert formats.price_digits(np.array([50_000.0])) == 2


@pytest.mark.parametrize(
    ("low", "high", "log", "ticks"),
    [
        (0, 100, False, [0, 20, 40, 60, 80, 100]),
        (2000, 200_000, True, [2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000]),
        (2000, 18_000, True, [5000, 10_000, 15_000]),
        (7.0, 7.0, False, [7.0]),
    ],
)
def test_axis_ticks_are_round(low: float, high: float, *, log: bool, ticks: list[float]) -> None:
    assert formats.round_ticks(low, high, log=log) == pytest.approx(ticks)


def test_costs_are_written_as_a_fraction_or_by_their_parts() -> None:
    assert formats.cost(0.001) == "0.100%"
    model = {"rate": 0.0, "per_unit": 0.005, "per_order": 0.0, "minimum": 1.0, "maximum": 0.01}
    assert formats.cost(model) == "0.005 a unit, at least 1, at most 1.000%"
    assert formats.cost({"rate": 0.0002, "per_unit": 0.01}) == "0.020%, 0.01 a unit"
    assert formats.cost({"rate": 0.0, "maximum": None}) == "0.000%"


def test_a_request_with_cost_models_can_be_shown(result: BacktestResult) -> None:
    request = {**result.request, "commission": {"per_unit": 0.005, "minimum": 1.0}}
    assert "0.005 a unit, at least 1" in page(replace(result, request=request))


def test_the_picture_shows_all_three_charts(result: BacktestResult) -> None:
    picture = Image.open(io.BytesIO(render_png(result, run_id=RUN_ID))).convert("RGB")
    assert picture.size == (1440, 960)
    pixels = np.asarray(picture).reshape(-1, 3)
    for color in ("2456c9", "9aa3b2", "c2362f", "0c7a5b"):  # strategy, buy and hold, drawdown, won trades
        wanted = np.array([int(color[i : i + 2], 16) for i in (0, 2, 4)])
        assert (pixels == wanted).all(axis=1).sum() > 100, color


def test_the_picture_survives_hostile_names() -> None:
    for text in HOSTILE:
        result = sma_cross(walk(200), symbol=text, strategy=text, params={text: text})
        assert render_png(result, run_id=text)[:4] == b"\x89PNG"


def test_both_are_the_same_every_time(result: BacktestResult) -> None:
    assert page(result) == page(result)
    assert render_png(result, run_id=RUN_ID) == render_png(result, run_id=RUN_ID)
