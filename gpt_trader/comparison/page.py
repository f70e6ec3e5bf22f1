"""A comparison as one HTML page that needs no other file, runs no script and makes no request, in the report's look."""

from __future__ import annotations

from functools import cache
from string import ascii_uppercase
from typing import Any, Final

from jinja2 import Template

from gpt_trader.backtesting.report import formats
from gpt_trader.backtesting.report.glossary import GLOSSARY
from gpt_trader.backtesting.report.monthly import monthly_returns
from gpt_trader.backtesting.report.page import YEAR_STEPS, display_name, heat
from gpt_trader.backtesting.report.static_page import static_template
from gpt_trader.comparison.comparing import Comparison
from gpt_trader.comparison.contenders import TERMS, Contender
from gpt_trader.comparison.picture import look, overlaid

#: Correlations from which the color of a cell is one step stronger.
_STEPS: Final = (0.1, 0.3, 0.5, 0.7, 0.9)


def render_html(comparison: Comparison, *, created_at: str) -> str:
    """Return the page. Texts are escaped; it can be encoded as UTF-8. `created_at` is shown as given (ISO 8601)."""
    keys = {each.run_id: ascii_uppercase[place] for place, each in enumerate(comparison.contenders)}
    common = comparison.common
    page = _template().render(
        comparison=comparison,
        runs=comparison.contenders,
        keys=keys,
        created_at=created_at,
        title=_title(comparison.contenders),
        glossary=GLOSSARY,
        terms=TERMS,
        common=common,
        daily=common is not None and formats.is_daily(common.time),
        picture=None if common is None else overlaid(common, keys),
        years=_years(comparison),
    )
    return page.encode("utf-8", "replace").decode()  # a lone surrogate has no UTF-8 form


def _title(contenders: tuple[Contender, ...]) -> str:
    symbols = {each.symbol for each in contenders}
    about = f" on {symbols.pop()}" if len(symbols) == 1 else ""
    return f"{len(contenders)} runs{about}"


def _years(comparison: Comparison) -> list[tuple[int, list[float | None]]]:
    """Return each year with the returns of the runs in `common` on the common dates."""
    if comparison.common is None:
        return []
    by_run = [
        {row.year: row.total for row in monthly_returns(comparison.common.time, curve)}
        for curve in comparison.common.growth
    ]
    return [(year, [returns[year] for returns in by_run]) for year in by_run[0]]


def written_value(value: Any) -> str:  # noqa: ANN401  a parameter's or a term's
    """Return a parameter or a term as text; a model of costs as its parts."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {written_value(part)}" for name, part in value.items() if part)
    if value is None:
        return formats.UNDEFINED
    return f"{value:.10g}" if isinstance(value, float) else str(value)


@cache
def _template() -> Template:
    return static_template(
        "compare",
        {
            "number": formats.number,
            "percent": formats.percent,
            "moment": formats.moment,
            "value": written_value,
            "name": display_name,
            "look": look,
            "heat": lambda value: heat(value, _STEPS),
            "year_heat": lambda value: heat(value, YEAR_STEPS),
        },
    )
