"""What a process does once before it forks the processes of runs: everything that a first backtest builds."""

from __future__ import annotations

from gpt_trader.backtesting import engine
from gpt_trader.backtesting.report import render_html, render_png


def report() -> None:
    """Draw a small report: Jinja compiles its template, matplotlib reads its fonts (about 0.5 s together)."""
    result = engine.warm_up()
    render_html(result, run_id="", created_at="")
    render_png(result, run_id="")
