"""`monitor`: sessions, runs and what the engine does, as it happens."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from cli.client.connect import present, wire
from cli.client.stream import LiveStream
from cli.runs.board import Board
from cli.runs.monitor_screen import Screen
from cli.runs.trading_board import TradingBoard
from cli.runs.watching import MonitorClient, Watching
from cli.terminal.held import held
from cli.terminal.keyboard import keyboard
from cli.terminal.monitored import alert_line, line
from cli.terminal.options import Output, current, say
from cli.terminal.render import console, emit, write
from cli.terminal.trading_view import screen
from gpt_trader.errors import Problem, Refused

#: How long `--once` waits for the state of what it has asked for.
_ONCE_SECONDS: Final = 5.0
#: Seconds that one look at the stream waits where lines are written, and where keys are waited for too.
_LINE_SECONDS: Final = 0.25
_FRAME_SECONDS: Final = 0.1
#: Rows that `--once` shows, as there is no screen to fit.
_ROWS: Final = 200

Message = dict[str, Any]


def monitor(symbols: Sequence[str], *, limit: int, once: bool) -> None:
    """Show sessions, runs, symbols, alerts and system events; with `once`, as they are now.

    Raises Refused where the output format has no form for a stream, and what `LiveStream.receive` raises.
    """
    if not once and current().output in (Output.YAML, Output.CSV):
        raise Refused.of(
            Problem(
                "output", current().output.value, "is no format of a stream", allowed="table, json; or --once"
            )
        )
    with MonitorClient(wire()) as client:
        client.runs(limit=1)  # starts the engine where none runs
        client.settle()
        with LiveStream(lambda: present(client), client.renewed) as stream:
            watching = Watching(client, stream, Board(limit), TradingBoard())
            watching.begin()
            for symbol in symbols:
                stream.subscribe("market.stream", {"symbol": symbol.upper()})
            if once:
                _once(watching)
            elif current().machine or not _can_redraw():
                _lines(watching)
            else:
                _live(watching)


def _once(watching: Watching) -> None:
    """Wait for the state of everything that was asked for, and show it."""
    awaited, end = watching.stream.wanted, time.monotonic() + _ONCE_SECONDS
    while awaited and time.monotonic() < end:
        message = watching.stream.receive(end - time.monotonic())
        if message is None:
            break
        watching.take(message)
        stands = message["type"] == "snapshot" or message.get("channel") == "system.events"
        if stands or message["type"] == "error":
            awaited.discard((str(message.get("channel")), message.get("key")))
        if message["type"] == "error":
            raise Refused(message["detail"])
    found = watching.as_dict()
    emit(
        found,
        rows=lambda: found["runs"],
        table=lambda: screen(
            found, selected=None, status=None, prompt=None, width=console().width, height=_ROWS
        ),
    )


def _lines(watching: Watching) -> None:
    """Write a line for each thing that happens, for a program the message itself."""
    with held(signal.SIGINT) as asked:  # how it is meant to end
        while not asked:
            message = _received(watching, _LINE_SECONDS)
            if message is not None and current().machine:
                if message["type"] in ("snapshot", "publication", "reset"):
                    write(json.dumps(message, ensure_ascii=False) + "\n")
            elif message is not None and message["type"] == "publication":
                write(line(message, watching.trading.named) + "\n")
            for alert in watching.look():
                told = json.dumps({"type": "alert", "data": alert}, ensure_ascii=False)
                write((told if current().machine else alert_line(alert)) + "\n")


def _live(watching: Watching) -> None:
    """Draw one screen anew as things happen and keys are pressed; the terminal is as it was afterwards."""
    from rich.console import Console, Group
    from rich.live import Live

    shown = Screen(watching)
    out = Console(highlight=False, markup=False)

    def drawn() -> Group:
        return Group(*shown.drawn(out.width, out.height))

    with (
        held(
            signal.SIGINT, signal.SIGTERM
        ) as asked,  # raised in the middle of it, no screen might be given back
        keyboard() as keys,
        Live(drawn(), console=out, screen=True, auto_refresh=False, vertical_overflow="crop") as live,
    ):
        while not (shown.leaving or asked):
            end = time.monotonic() + _FRAME_SECONDS
            while (left := end - time.monotonic()) > 0:  # however much comes in, a frame is drawn in time
                _received(watching, left)
            for key in keys() if keys is not None else ():
                shown.press(key)
            watching.look()
            live.update(drawn(), refresh=True)
    if signal.SIGTERM in asked:
        raise SystemExit(128 + signal.SIGTERM)


def _received(watching: Watching, seconds: float) -> Message | None:
    """Return the next message, which everything that is watched has taken in."""
    message = watching.stream.receive(seconds)
    if message is not None and message["type"] == "error":
        say(f"{message.get('channel') or 'stream'}: {message['detail']}")
    if message is not None:
        watching.take(message)
    return message


def _can_redraw() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")
