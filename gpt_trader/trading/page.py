"""A session as one HTML page that needs no other file, runs no script and makes no request, in the report's look."""

from __future__ import annotations

import json
from functools import cache
from typing import Any, Final

from jinja2 import Template

from gpt_trader.backtesting.report import formats
from gpt_trader.backtesting.report.glossary import GLOSSARY
from gpt_trader.backtesting.report.page import display_name
from gpt_trader.backtesting.report.static_page import static_template
from gpt_trader.trading.certificate import shown_time
from gpt_trader.trading.outcome import Outcome, changes, explained, positions, refusals
from gpt_trader.trading.pictures import curve
from gpt_trader.trading.record import SessionTrade

#: Rows of a table: trades that made or lost most, and of everything else the newest.
LISTED: Final = 1_000

_STATES: Final = {"completed": "ahead", "active": "ahead", "stopped": "level", "halted": "behind"}


def render_html(outcome: Outcome, *, run_id: str, created_at: str) -> str:
    """Return the page. Texts are escaped; it can be encoded as UTF-8. `created_at` is shown as given (ISO 8601)."""
    record, request, state = outcome.record, outcome.request, outcome.state
    daily = formats.is_daily(record.time)
    happened = changes(outcome.events)
    fills = [event.data for event in outcome.events if event.type == "fill"]
    refused = refusals(outcome.events, state.symbols)
    page = _template().render(
        outcome=outcome,
        request=request,
        state=state,
        badge=_STATES.get(state.status, "level"),
        certificate=outcome.certificate,
        explained=explained(outcome.certificate),
        m=outcome.metrics,
        glossary=GLOSSARY,
        daily=daily,
        first=formats.moment(record.time[0], daily=daily) if len(record.time) else None,
        last=formats.moment(record.time[-1], daily=daily) if len(record.time) else None,
        bars=len(record.time),
        picture=curve(record, request.capital, happened) if len(record.time) else None,
        positions={each.leg: each for each in positions(state)},
        trades=_listed(record.trades),
        fills=fills[-LISTED:],
        filled=len(fills),
        refused=refused[-LISTED:],
        refused_in_all=len(refused),
        changes=happened[-LISTED:],
        divergence=_sides(outcome),
        provenance=[
            ("run id", run_id),
            ("created at", created_at),
            ("session id", state.session_id),
            ("ledger hash", outcome.certificate.ledger_hash),
            *formats.flattened(outcome.provenance),
        ],
        asked=json.dumps(request.model_dump(mode="json"), indent=2, sort_keys=True, ensure_ascii=False),
    )
    return page.encode("utf-8", "replace").decode()  # a lone surrogate has no UTF-8 form


def _listed(trades: tuple[SessionTrade, ...]) -> list[SessionTrade]:
    """Return the trades to list, in order: all, or those that made or lost most."""
    if len(trades) <= LISTED:
        return list(trades)
    by_size = sorted(range(len(trades)), key=lambda place: -abs(trades[place].pnl))
    return [trades[place] for place in sorted(by_size[:LISTED])]


def _sides(outcome: Outcome) -> list[tuple[str, str]]:
    """Return what the session has where it first differs, and what the other has."""
    found = outcome.certificate.first_divergence
    if found is None:
        return []
    return [("this session", _written(found.session)), (f"its {found.of}", _written(found.other))]


def _written(side: Any) -> str:  # noqa: ANN401  an event, a fill, an amount or nothing
    if side is None:
        return "nothing"
    if isinstance(side, dict):
        return ", ".join(f"{name} {_value(name, value)}" for name, value in side.items())
    return repr(side)


def _value(name: str, value: Any) -> Any:  # noqa: ANN401 - an event's
    """Return a value as the page's tables have it: legs from 1, a midnight as its day; numbers with all digits."""
    if name == "leg" and isinstance(value, int):
        return value + 1
    return shown_time(value) if name == "time" and isinstance(value, str) else value


def _at(text: str | None, *, daily: bool) -> str:
    """Return a time of the ledger as a table shows it."""
    if text is None:
        return "before the first bar"
    return text[:10] if daily else text[:16].replace("T", " ")


@cache
def _template() -> Template:
    return static_template(
        "session",
        {
            "number": formats.number,
            "money": formats.money,
            "percent": formats.percent,
            "quantity": formats.quantity,
            "price": formats.price,
            "cost": formats.cost,
            "moment": formats.moment,
            "name": display_name,
            "at": _at,
        },
    )
