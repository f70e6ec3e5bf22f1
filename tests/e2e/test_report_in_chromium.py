"""The report as a real browser shows it. Chromium is driven by its command line alone."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpt_trader.backtesting.report import render_html
from gpt_trader.backtesting.result import BacktestResult
from gpt_trader.portfolio.engine import simulate as simulate_portfolio
from gpt_trader.portfolio.page import render_html as portfolio_page
from gpt_trader.portfolio.request import PortfolioRequest
from tests.backtest_samples import aapl, sma_cross, walk
from tests.portfolio_samples import walking_panel

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome on this machine")

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--virtual-time-budget=10000",
)  # fmt: skip

#: Colors of `assets/report.css`, light and dark: strategy, buy and hold, drawdown, won trades.
LIGHT = ("2456c9", "9aa3b2", "c2362f", "0c7a5b")
DARK = ("6f9bff", "6f7988", "f0776d", "3fbf92")

Browse = Callable[..., str]


@pytest.fixture
def browse(tmp_path: Path) -> Browse:
    """Open a page from a file with a profile of its own; return the document after its scripts have run."""

    def run(html: str, *flags: str) -> str:
        page = tmp_path / "report.html"
        page.write_text(html, encoding="utf-8")
        command = [
            str(CHROMIUM),
            *FLAGS,
            f"--user-data-dir={tmp_path / 'profile'}",
            *flags,
            page.as_uri(),
        ]
        done = subprocess.run(command, capture_output=True, check=True, timeout=90)
        return done.stdout.decode()

    return run


def page(result: BacktestResult) -> str:
    return render_html(result, run_id="0d2c8f6e", created_at="2026-11-23T09:00:00Z")


def root(document: str) -> str:
    return re.search(r"<html[^>]*>", document)[0]


def driven(html: str, script: str) -> str:
    """Return the page with a script that acts once the charts stand; only the policy would keep it from running."""
    html = re.sub(r'<meta http-equiv="Content-Security-Policy".*?>', "", html)
    waiting = (
        "const acted = new MutationObserver(() => { acted.disconnect();"
        f"{script} }}); acted.observe(document.documentElement, {{attributeFilter: ['data-ready']}});"
    )
    return html.replace("</body>", f"<script>{waiting}</script></body>")


@pytest.mark.parametrize(
    ("width", "scheme", "colors"), [(1280, 1, LIGHT), (520, 0, DARK)], ids=["wide", "narrow, dark"]
)
def test_the_charts_are_drawn(
    browse: Browse, tmp_path: Path, width: int, scheme: int, colors: tuple[str, ...]
) -> None:
    shot = tmp_path / "shot.png"
    alone = re.sub(r'<svg class="sketch".*?</svg>', "", page(sma_cross(aapl())), flags=re.S)
    browse(
        alone,
        f"--screenshot={shot}",
        f"--window-size={width},1500",
        f"--blink-settings=preferredColorScheme={scheme}",
    )
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    assert pixels.shape[1] == width
    for color in colors:
        wanted = np.array([int(color[i : i + 2], 16) for i in (0, 2, 4)])
        rows, columns = np.nonzero((np.abs(pixels - wanted) < 12).all(axis=2))
        assert np.ptp(columns) > width / 2, f"{color} is not drawn across the page"
        assert len(rows) > 60, color


def test_no_error_and_all_of_it_ready(browse: Browse) -> None:
    document = browse(page(sma_cross(aapl())), "--dump-dom")
    assert 'data-ready="true"' in root(document)
    assert "data-errors" not in root(document)
    assert document.count("<canvas") >= 3
    assert re.search(r'aria-pressed="true"[^>]*>All<', document)
    assert re.search(r'id="log"[^>]*aria-pressed="true"', document)
    assert re.search(r"Strategy <b>98,690</b>", document)


def test_a_portfolios_page_has_two_charts_and_no_error(browse: Browse) -> None:
    panel = walking_panel(400, 12)
    result = simulate_portfolio(panel, PortfolioRequest(symbols=panel.symbols))
    html = portfolio_page(result, run_id="0d2c8f6e", created_at="2026-11-23T09:00:00Z")
    script = "document.querySelector('#trades tbody tr').click(); document.querySelector('#log').click();"
    document = browse(driven(html, script), "--dump-dom")
    assert 'data-ready="true"' in root(document)
    assert "data-errors" not in root(document)
    assert re.search(r"Strategy <b>[0-9,]+</b>", document)
    assert document.count('class="legend"') == 2


@pytest.mark.parametrize(
    "simulate",
    [
        lambda: sma_cross(walk(1)),
        lambda: sma_cross(walk(300), fast=298, slow=299),
        lambda: sma_cross(walk(60_000, step="m"), timeframe="1m"),
    ],
    ids=["one bar", "no trades", "thinned minutes"],
)
def test_unusual_results_are_drawn_without_an_error(
    browse: Browse, simulate: Callable[[], BacktestResult]
) -> None:
    document = browse(page(simulate()), "--dump-dom")
    assert 'data-ready="true"' in root(document)
    assert "data-errors" not in root(document)


def test_names_with_markup_do_not_run(browse: Browse) -> None:
    hostile = "</script><script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\">"
    result = sma_cross(walk(300), strategy=hostile, symbol=hostile, params={hostile: hostile})
    document = browse(page(result), "--dump-dom")
    assert 'data-ready="true"' in root(document)
    assert "data-errors" not in root(document)
    assert "<img" not in document
    assert (
        "pwned" in re.search(r"<title>(.*?)</title>", document, re.S)[1]
    )  # as text: the title is not just that
    assert "<title>pwned" not in document


def test_the_policy_blocks_what_is_not_ours_and_it_shows(browse: Browse) -> None:
    html = page(sma_cross(walk(100))).replace("</main>", "<script>document.title='pwned'</script></main>")
    document = browse(html, "--dump-dom")
    assert "blocked: script-src" in root(document)
    assert "<title>pwned" not in document


def test_headings_sort_and_marks_and_buttons_and_rows_answer(browse: Browse) -> None:
    script = """
      const seen = document.body.dataset, rows = () => document.querySelectorAll('#trades tbody tr');
      const button = (text) => [...document.querySelectorAll('button')].find((each) => each.textContent === text);
      const sort = button('Return');
      sort.click(); seen.lowest = rows()[0].cells[8].textContent;
      sort.click(); seen.highest = rows()[0].cells[8].textContent;
      seen.sorted = sort.closest('th').getAttribute('aria-sort');
      // The upper canvas of each pane takes the pointer; the price axes' are narrow.
      const upper = (each) => each.style.zIndex === '2' && each.width > 200;
      const pane = [...document.querySelectorAll('#chart canvas')].filter(upper)[2];
      const box = pane.getBoundingClientRect(), tip = document.querySelector('.tip');
      const move = (kind, x, y) => pane.dispatchEvent(
        new MouseEvent(kind, {bubbles: true, clientX: box.left + x, clientY: box.top + y}));
      // A mark can be met once it has been painted, which is some frames after the charts stand.
      setTimeout(() => {
        move('mouseenter', box.width / 2, 5);
        for (let x = box.width / 3; x < box.width && tip.hidden; x += 6)
          for (let y = 0; y < box.height && tip.hidden; y += 6) move('mousemove', x, y);
        seen.tip = tip.hidden ? '' : tip.textContent;
        button('Linear').click();
        button('5Y').click();
        // What a click on a row does to the charts comes with later frames, which virtual time does not promise.
        seen.range = button('5Y').getAttribute('aria-pressed');
        rows()[2].click();
      }, 500);
    """
    document = browse(driven(page(sma_cross(aapl())), script), "--dump-dom")
    seen = dict(re.findall(r'data-(\w+)="([^"]*)"', re.search(r"<body[^>]*>", document)[0]))
    assert re.fullmatch(
        r"#\d+ (bought [\d-]{10}[\d,.]+ at [\d.]+|closed [\d-]{10}at [\d.]+ \(signal\).*%\))", seen.pop("tip")
    )
    assert seen == {
        "lowest": "−63.69%",
        "highest": "+159.10%",
        "sorted": "descending",
        "range": "true",
    }
    assert re.search(r'id="linear"[^>]*aria-pressed="true"', document)
    assert "data-errors" not in root(document)


def test_without_scripts_there_are_still_charts(browse: Browse, tmp_path: Path) -> None:
    shot = tmp_path / "shot.png"
    html = re.sub(r"<script>.*?</script>", "", page(sma_cross(aapl())), flags=re.S)
    browse(html, f"--screenshot={shot}", "--window-size=1280,1300", "--blink-settings=preferredColorScheme=1")
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    for color in LIGHT:
        wanted = np.array([int(color[i : i + 2], 16) for i in (0, 2, 4)])
        assert (np.abs(pixels - wanted) < 24).all(axis=2).sum() > 100, color
