"""What `monitor` keeps of sessions, and the screen that it draws: whatever the size, whatever is pressed."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console, Group

from cli.runs.board import Board
from cli.runs.trading_board import TradingBoard
from cli.terminal.keyboard import keys_in
from cli.terminal.trading_view import help_screen, screen, shares, sparkline


def item(number: int, **more: Any) -> dict[str, Any]:
    legs = [{"symbol": "ACME", "strategy": "momentum"}]
    base = {
        "session_id": f"{number:08d}-aa",
        "name": f"session {number}",
        "state": "active",
        "feed": "replay",
    }
    money = {"capital": "10000", "equity": "10000", "cash": "10000"}
    return {**base, **money, "bar": None, "bars": 0, "request": {"legs": legs}, **more}


def standing(number: int, steps: int, equity: str, status: str = "active") -> dict[str, Any]:
    place = {"session_id": f"{number:08d}-aa", "status": status, "time": f"2026-01-{steps:02d}T00:00:00Z"}
    return {**place, "cash": "1", "equity": equity, "positions": {}, "steps": steps}


def told(channel: str, event: str, data: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "publication",
        "channel": channel,
        "event": event,
        "data": data,
        "ts": "2026-01-01T00:00:00Z",
    }


def fill(number: int, execution: str) -> dict[str, Any]:
    amounts = {"units": "2.5", "price": "40.5", "commission": "0.1"}
    place = {"session_id": f"{number:08d}-aa", "execution_id": execution, "time": "2026-01-02T00:00:00Z"}
    return {**place, **amounts, "symbol": "ACME", "purpose": "entry", "leg": 0}


def watched() -> TradingBoard:
    board = TradingBoard()
    (session,) = board.list_sessions([item(1, bars=2, equity="11000")])
    board.take_curve(session, ["9000", "11000"])
    return board


def test_a_standing_moves_a_session_once_however_often_it_is_told() -> None:
    board = watched()
    (session,) = board.sessions.values()
    snapshot = {
        "type": "snapshot",
        "channel": "portfolio.updates",
        "data": {"sessions": [standing(1, 2, "11000")]},
    }
    for message in (snapshot, *[told("portfolio.updates", "standing", standing(1, 3, "9900"))] * 2, snapshot):
        board.take(message)
    assert list(session.points) == [9000.0, 11000.0, 9900.0]
    board.take(told("portfolio.updates", "standing", standing(1, 3, "9900")))
    assert (session.gain, session.drawdown) == (pytest.approx(-0.01), pytest.approx(-0.1))
    assert session.bars == 3


def test_a_fill_that_a_list_and_the_stream_both_tell_is_one() -> None:
    board = watched()
    board.take_fills("00000001-aa", [fill(1, "x")])
    for execution in ("x", "y"):
        board.take(told("trades.live", "fill", fill(1, execution)))
    assert [each["execution_id"] for each in board.fills] == ["y", "x"]


def test_what_is_not_listed_is_asked_for_and_a_status_is_taken() -> None:
    board = watched()
    board.take(told("trades.live", "status", {"session_id": "00000001-aa", "status": "paused"}))
    assert [each.state for each in board.sessions.values()] == ["paused"]
    assert not board.unlisted
    board.take(told("portfolio.updates", "standing", standing(2, 1, "1")))
    assert board.unlisted
    assert [each.session_id for each in board.list_sessions([item(2), item(1, state="stopped")])] == [
        "00000002-aa"
    ]
    assert not board.unlisted
    assert [each.name for each in board.sessions.values()] == ["session 2", "session 1"]


@pytest.mark.parametrize(
    ("points", "width", "line"),
    [
        ([], 8, ""),
        ([5.0], 8, "▁"),
        ([1.0, 8.0], 8, "▁█"),
        ([3.0] * 9, 4, "▁▁▁▁"),
        (list(map(float, range(64))), 8, "▁▂▃▄▅▆▇█"),
    ],
)
def test_a_sparkline_goes_from_the_lowest_to_the_highest(points: list[float], width: int, line: str) -> None:
    assert sparkline(points, width) == line


def test_lines_are_shared_out_and_never_exceeded() -> None:
    assert shares(100, [3, 0, 2]) == [3, 0, 2]
    assert shares(12, [9, 9]) == [2, 2]
    assert shares(6, [9, 9]) == [2, 0]
    assert shares(2, [9]) == [0]


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        (b"jq?", ["j", "q", "?"]),
        (b"\x1b[A\x1bOB\t", ["up", "down", "down"]),
        (b"\x1b", ["escape"]),
        (b"\x1b[5~j\x1b[1;5Cq", ["j", "q"]),
        ("ü\x00".encode(), []),
    ],
)
def test_keys_are_told_from_what_a_terminal_sends(content: bytes, keys: list[str]) -> None:
    assert keys_in(content) == keys


def known(sessions: int, alerts: int = 3) -> dict[str, Any]:
    board = TradingBoard()
    for session in board.list_sessions(
        [item(n, name="a name that is long " * n) for n in range(1, sessions + 1)]
    ):
        board.take_curve(session, [str(10_000 + 10 * n) for n in range(300)])
    for number in range(1, sessions + 1):
        board.take_fills(f"{number:08d}-aa", [fill(number, str(number))])
    severities = ("critical", "warning", "info")
    board.alerts = [
        {
            "id": n,
            "severity": severities[n % 3],
            "count": n,
            "last_at": "2026-01-01T00:00:00Z",
            "message": "oh " * 90,
        }
        for n in range(alerts)
    ]
    runs = Board(10)
    runs.list_runs(
        {"run_id": f"r{n}", "flow": "optimize", "state": "RUNNING", "message": "said " * 30}
        for n in range(10)
    )
    return {**board.as_dict(), **runs.as_dict()}


@pytest.mark.parametrize(("width", "height"), [(200, 60), (130, 40), (80, 24), (60, 12), (40, 8)])
@pytest.mark.parametrize("sessions", [0, 1, 12])
def test_a_screen_fits_its_terminal(width: int, height: int, sessions: int) -> None:
    found = known(sessions)
    chosen = found["sessions"][-1]["session_id"] if sessions > 1 else None
    for status in ("", "not connected: coming back"):
        parts = screen(found, selected=chosen, status=status, prompt="", width=width, height=height)
        out = Console(
            file=io.StringIO(),
            width=width,
            height=height,
            force_terminal=False,
            highlight=False,
            markup=False,
        )
        out.print(Group(*parts))
        lines = out.file.getvalue().splitlines()  # type: ignore[attr-defined] # a StringIO
        assert len(lines) <= height
        assert max(map(len, lines)) <= width
        assert ("● live" in lines[0]) == (not status)
        assert sessions < 2 or any("▶" in line for line in lines)


def test_the_help_names_every_key() -> None:
    out = Console(file=io.StringIO(), width=80)
    out.print(Group(*help_screen()))
    for key in ("q, Ctrl-C", "pause", "acknowledge"):
        assert key in out.file.getvalue()  # type: ignore[attr-defined] # a StringIO
