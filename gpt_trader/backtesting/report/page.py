"""Puts a backtest's result into the page's template. What is shown is prepared here, how it looks in `assets/`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache, partial
from typing import Any, Final

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup

from gpt_trader.backtesting.report import formats
from gpt_trader.backtesting.report.glossary import GLOSSARY
from gpt_trader.backtesting.report.monthly import monthly_returns
from gpt_trader.backtesting.report.reported import Reported
from gpt_trader.backtesting.report.series import chart_series, curves, require_finite, script_json
from gpt_trader.backtesting.report.sketch import sketch
from gpt_trader.backtesting.report.static_page import asset, digest
from gpt_trader.backtesting.report.thinning import display_indices
from gpt_trader.backtesting.result import SCHEMA_VERSION

_CHART_LIBRARY: Final = "lightweight-charts.standalone.production.js"
_SCRIPTS: Final = ("errors.js", _CHART_LIBRARY, "report.js")
#: Absolute returns from which the color of a month, or of a year, is one step stronger.
MONTH_STEPS: Final = (0.005, 0.02, 0.04, 0.07, 0.10)
YEAR_STEPS: Final = (0.02, 0.07, 0.15, 0.25, 0.40)
_WORST_DRAWDOWNS: Final = 10


def render(
    result: Reported,
    *,
    run_id: str,
    created_at: str,
    template: str = "report",
    more: Mapping[str, Any] | None = None,
) -> str:
    """Return the report's page (see `gpt_trader.backtesting.report.render_html`).

    `template` is one of `assets/` that extends the report's, with a style of its name beside it; it gets `more`.
    """
    require_finite(result)
    daily = formats.is_daily(result.time)
    shown = display_indices(curves(result))
    page = _template(template).render(
        **(more or {}),
        result=result,
        run_id=run_id,
        name=display_name(result.strategy),
        m=result.metrics,
        b=result.benchmark,
        first=formats.moment(result.time[0], daily=daily),
        last=formats.moment(result.time[-1], daily=daily),
        daily=daily,
        digits=2 if result.close is None else formats.price_digits(result.close),
        bars=len(result.time),
        points=len(shown),
        capital=result.request.get("capital", float(result.equity[0])),
        glossary=GLOSSARY,
        years=monthly_returns(result.time, result.equity),
        benchmark_years=monthly_returns(result.time, result.benchmark_equity),
        worst=sorted(result.drawdowns, key=lambda fall: fall.depth)[:_WORST_DRAWDOWNS],
        touched=[
            result.trades[number] for number in (result.data_quality or {}).get("affected_trades") or ()
        ],
        provenance=_provenance(result, run_id, created_at),
        request=json.dumps(dict(result.request), indent=2, sort_keys=True, default=str, ensure_ascii=False),
        sketch=sketch(result),
        payload=Markup(script_json(chart_series(result, shown))),  # noqa: S704  script_json escapes markup
    )
    # A lone surrogate (a "\ud800" in a request's JSON) has no UTF-8 form: the page must be writable to a file.
    return page.encode("utf-8", "replace").decode()


def display_name(strategy: str) -> str:
    """Return the name to show: of a user's own strategy (`user:SHA256:Class`) the class."""
    return strategy.rpartition(":")[2] if strategy.startswith("user:") else strategy


def heat(value: float | None, steps: tuple[float, ...] = MONTH_STEPS) -> str:
    """Return the CSS class of a return's color: `g1` … `g5` gains, `l1` … `l5` losses, `z` next to nothing."""
    if value is None:
        return ""
    strength = sum(abs(value) >= step for step in steps)
    return f"{'g' if value > 0 else 'l'}{strength}" if strength else "z"


def _provenance(result: Reported, run_id: str, created_at: str) -> list[tuple[str, str]]:
    return [
        ("run id", run_id),
        ("created at", created_at),
        ("snapshot id", result.snapshot_id),
        ("result hash", result.result_hash),
        ("bars hash", result.bars_hash),
        ("result schema", str(SCHEMA_VERSION)),
        *formats.flattened(result.provenance),
    ]


@cache
def _template(name: str) -> Template:
    """Return a compiled template with the page's constant parts: style, scripts and their policy."""
    environment = Environment(
        loader=FunctionLoader(asset),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters.update(
        number=formats.number,
        money=formats.money,
        percent=formats.percent,
        quantity=formats.quantity,
        price=formats.price,
        cost=formats.cost,
        moment=formats.moment,
        heat=heat,
        year_heat=partial(heat, steps=YEAR_STEPS),
    )
    style = asset("report.css") + ("" if name == "report" else asset(f"{name}.css"))
    scripts = [asset(name) for name in _SCRIPTS]
    environment.globals.update(
        # These are our own files, the same for every report: nothing of a result is in them.
        style=Markup(style),  # noqa: S704
        scripts=[Markup(script) for script in scripts],  # noqa: S704
        policy=_policy(style, scripts),
    )
    return environment.get_template(f"{name}.html.j2")


def _policy(style: str, scripts: list[str]) -> str:
    """Return a Content-Security-Policy under which only our own inline parts run and nothing is fetched."""
    allowed = " ".join(digest(script) for script in scripts)
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {allowed}",
            f"style-src {digest(style)}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
