"""`monitor`: what the engine does, as it happens."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from cli.client.connect import connect, present
from cli.client.stream import LiveStream
from cli.runs.board import Board
from cli.terminal.monitored import line, tables
from cli.terminal.options import Output, current, say
from cli.terminal.render import emit, write
from gpt_trader.errors import EngineUnreachable, Problem, Refused

if TYPE_CHECKING:
    from cli.client.api import Client

#: Seconds between two looks for new runs.
_LOOK_SECONDS: Final = 2.0
#: How long `--once` waits for the state of what it has asked for.
_ONCE_SECONDS: Final = 5.0
_FRAME_SECONDS: Final = 0.25

Message = dict[str, Any]
Show = Callable[[Message | None], None]


def monitor(symbols: Sequence[str], *, limit: int, once: bool) -> None:
    """Show runs, symbols and system events; with `once`, as they are now.

    Raises Refused where the output format has no form for a stream, and what `LiveStream.receive` raises.
    """
    if not once and current().output in (Output.YAML, Output.CSV):
        raise Refused.of(
            Problem(
                "output", current().output.value, "is no format of a stream", allowed="table, json; or --once"
            )
        )
    board = Board(limit)
    with connect() as client:
        runs = client.runs(limit=limit)  # starts the engine where none runs
        client.settle()
        with LiveStream(lambda: present(client), client.renewed) as stream:
            _follow(stream, board, runs)
            stream.subscribe("system.events")
            for symbol in symbols:
                stream.subscribe("market.stream", {"symbol": symbol.upper()})
            if once:
                _once(stream, board)
            else:
                _live(client, stream, board)


def _once(stream: LiveStream, board: Board) -> None:
    """Wait for the state of everything that was asked for, and show it."""
    awaited, end = stream.wanted, time.monotonic() + _ONCE_SECONDS
    while awaited and time.monotonic() < end:
        message = stream.receive(end - time.monotonic())
        if message is None:
            break
        board.take(message)
        stands = message["type"] == "snapshot" or message.get("channel") == "system.events"
        if stands or message["type"] == "error":
            awaited.discard((str(message.get("channel")), message.get("key")))
        if message["type"] == "error":
            raise Refused(message["detail"])
    found = board.as_dict()
    emit(
        found,
        rows=lambda: found["runs"],
        table=lambda: tables(found["runs"], found["bars"], found["events"], ""),
    )


def _live(client: Client, stream: LiveStream, board: Board) -> None:
    with _showing(stream, board) as show:
        looked = time.monotonic()
        try:
            while True:
                message = stream.receive(_FRAME_SECONDS)
                if message is not None and message["type"] == "error":
                    say(f"{message.get('channel') or 'stream'}: {message['detail']}")
                if message is not None:
                    board.take(message)
                if time.monotonic() - looked > _LOOK_SECONDS:
                    looked = time.monotonic()
                    _look(client, stream, board)
                show(message)
        except KeyboardInterrupt:  # how it is meant to end
            return


def _look(client: Client, stream: LiveStream, board: Board) -> None:
    """Look for runs that began since."""
    try:
        _follow(stream, board, client.runs(limit=board.most_runs))
    except EngineUnreachable:
        client.close()  # the stream comes back by itself, and says so where it cannot


def _follow(stream: LiveStream, board: Board, runs: Sequence[Message]) -> None:
    whole = board.listed  # what began under our eyes is shown from its first event on
    begun, over = board.list_runs(runs)
    for channel in begun:
        stream.subscribe(channel, whole=whole)
    for channel in over:
        stream.unsubscribe(channel)


@contextmanager
def _showing(stream: LiveStream, board: Board) -> Iterator[Show]:
    """Yield what shows a message (None: nothing came): JSON lines, lines, or tables that are drawn anew."""
    if current().machine:
        yield _json_line
        return
    if not _can_redraw():
        yield _plain_line
        return
    from rich.console import Console, Group
    from rich.live import Live

    def drawn() -> Group:
        known = board.as_dict()
        status = "" if stream.connected else "not connected: coming back"
        return Group(*tables(known["runs"], known["bars"], known["events"], status))

    with Live(drawn(), console=Console(highlight=False, markup=False), auto_refresh=False) as live:
        yield lambda _: live.update(drawn(), refresh=True)


def _json_line(message: Message | None) -> None:
    if message is not None and message["type"] in ("snapshot", "publication", "reset"):
        write(json.dumps(message, ensure_ascii=False) + "\n")


def _plain_line(message: Message | None) -> None:
    if message is not None and message["type"] == "publication":
        write(line(message) + "\n")


def _can_redraw() -> bool:
    import os

    return sys.stdout.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")
