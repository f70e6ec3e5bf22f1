"""The report of a paper session: complete, escaped, self-contained, at every stage of a session's life."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from typing import Any

import pytest

from gpt_trader.errors import Refused
from gpt_trader.trading.outcome import changes, explained, positions, refusals
from gpt_trader.trading.page import render_html
from gpt_trader.trading.trader import Trader
from tests.html_document import Document
from tests.session_outcomes import outcome

RUN_ID, CREATED_AT = "0d2c8f6e-3f8a-4c6e-9a64-6f7f5f1f2a10", "2026-11-23T09:00:00Z"
HOSTILE = "</style><script>alert(1)</script>\"'&<img src=x onerror=alert(1)>"


def page(**asked: Any) -> Document:
    return Document(render_html(outcome(**asked), run_id=RUN_ID, created_at=CREATED_AT))


def ask(command: str, **options: Any) -> Any:
    def done(trader: Trader) -> None:
        trader.command(command, "local", **options)

    return done


def test_a_replay_that_equals_its_backtest() -> None:
    found = outcome(stop_loss=0.05)
    shown = Document(render_html(found, run_id=RUN_ID, created_at=CREATED_AT))
    assert found.certificate.verdict == "equal"
    assert found.certificate.ledger_hash in shown.text
    assert "certificate: equal" in shown.text
    assert "the same fills" in " ".join(shown.text.split())
    fills = [event for event in found.events if event.type == "fill"]
    assert len(shown.tables["listed fills"]) == 1 + len(fills)
    assert len(shown.tables["listed round"]) == 1 + len(found.record.trades)
    assert {row[-1] for row in shown.tables["listed round"][1:]} == {
        trade.exit_reason.replace("_", " ") for trade in found.record.trades
    }
    assert shown.tables["listed changes"][1:] == [
        [str(found.record.time[-1])[:10], "completed", "its range has ended"]
    ]
    assert "divergence" not in " ".join(shown.tables)


@pytest.mark.parametrize(
    ("feed", "said"),
    [("replay", "a replay of stored bars"), ("schedule", "each new bar"), ("stream", "a live stream")],
)
def test_every_feed_has_its_words(feed: str, said: str) -> None:
    assert f"fed by {said}" in page(feed=feed).text


def test_the_open_position_is_valued_at_the_last_close() -> None:
    found = outcome(stop_loss=0.05)
    (held,) = positions(found.state)
    assert held.units * held.close == pytest.approx(
        found.record.equity[-1] - found.record.cash[-1], rel=1e-12
    )
    assert held.pnl == pytest.approx(held.units * (held.close - held.entry_price))


def test_what_happened_to_the_session_and_where_it_left_its_backtest() -> None:
    between = {
        40: ask("pause"),
        60: ask("resume"),
        90: lambda trader: trader.rebase("AAA", 0.5),
        150: ask("stop", flatten=True),
    }
    legs = [{"symbol": "AAA"}, {"symbol": "BBB", "strategy": "ma_crossover", "params": {"fast": 5}}]
    found = outcome(legs=legs, between=between)
    assert found.certificate.replay_equal, found.certificate.first_divergence
    assert [(change.what, change.place) for change in changes(found.events)] == [
        ("asked to pause", 40),
        ("paused", 40),
        ("asked to resume", 60),
        ("active", 60),
        ("AAA rescaled", 90),
        ("asked to stop and close everything", 150),
        ("closing", 150),
        ("stopped", 150),
    ]
    shown = Document(render_html(found, run_id=RUN_ID, created_at=CREATED_AT))
    assert "certificate: diverged" in shown.text
    assert "paused by local" in shown.text
    assert [row[0] for row in shown.tables["pairs hashes divergence"]] == ["this session", "its backtest"]
    marks = [a for tag, a in shown.elements if tag == "path" and a.get("class") == "change"]
    assert len(marks) == len([c for c in changes(found.events) if c.place < len(found.record.time)])


def test_orders_that_were_not_traded_are_told_with_their_reason() -> None:
    found = outcome(commission={"minimum": 20_000.0})
    refused = refusals(found.events, found.state.symbols)
    assert refused, "an order that is worth less than its commission is rejected"
    assert {row.what for row in refused} == {"rejected"}
    shown = Document(render_html(found, run_id=RUN_ID, created_at=CREATED_AT))
    assert shown.tables["listed refused"][1][-1] == refused[0].reason
    assert shown.tables["listed refused"][1][-1] == "it is worth less than its commission"


def test_before_the_first_bar_there_is_a_page_too() -> None:
    found = outcome(bars=0, feed="schedule")
    assert found.metrics is None
    shown = Document(render_html(found, run_id=RUN_ID, created_at=CREATED_AT))
    assert "nothing to compare" in shown.text
    assert not [tag for tag, _ in shown.elements if tag == "svg"]
    assert "10,000" in shown.text


def test_a_ledger_that_its_inputs_do_not_lead_to_is_said() -> None:
    found = outcome(bars=80)
    broken = replace(found.certificate, verdict="diverged", replay_equal=False)
    assert "does not make the events" in explained(broken)[0]


def test_every_text_is_escaped_and_nothing_is_fetched() -> None:
    html = render_html(outcome(bars=80, name=HOSTILE), run_id=RUN_ID, created_at=CREATED_AT)
    shown = Document(html)
    tags = {tag for tag, _ in shown.elements}
    assert tags.isdisjoint({"script", "img", "link", "iframe", "object"})
    assert not re.findall(r"(?:src|href)\s*=\s*[\"']?http", html)
    policy = next(a["content"] for t, a in shown.elements if t == "meta" and "http-equiv" in a)
    style = html.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert HOSTILE in shown.text


def test_a_lone_surrogate_can_be_written() -> None:
    assert render_html(
        outcome(bars=0, feed="schedule", name="\ud800"), run_id=RUN_ID, created_at=CREATED_AT
    ).encode()


def test_a_session_wants_a_leg() -> None:
    with pytest.raises(Refused, match="name a symbol"):
        outcome(legs=[])
