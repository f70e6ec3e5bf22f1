"""Follows a run over the WebSocket, by the client that comes back; where a server has none, by server-sent events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cli.client.connect import present
from cli.client.sse import Event
from cli.client.stream import LiveStream
from cli.runs.follow import PATIENCE, Show, follow
from cli.terminal.options import detail
from gpt_trader.errors import Denied, EngineUnreachable, Refused
from gpt_trader.runs import FINAL_STATES, channel_of

if TYPE_CHECKING:
    from cli.client.api import Client, Json

#: Seconds of silence after which the run is asked for its state, should its end never be told.
_QUIET_SECONDS: Final = 30.0


def follow_live(client: Client, run_id: str, show: Show) -> Json:
    """Show a run's events until its final state and return that state; see `follow`.

    Raises:
        EngineUnreachable: the server stayed away; the run itself goes on.
        Denied: the key has ended, and there is no other.
    """
    with LiveStream(lambda: present(client), client.renewed, patience=PATIENCE) as stream:
        stream.subscribe(channel_of(run_id), whole=True)
        try:
            return _followed(client, stream, run_id, show)
        except (Refused, Denied) as error:
            if stream.connections:
                raise
            detail(f"no WebSocket ({error.detail}): server-sent events instead")
        except EngineUnreachable as error:
            raise EngineUnreachable(
                f"{error.detail}. The run {run_id} may go on: gpt-trader workflow show {run_id}"
            ) from error
    return follow(client, run_id, show)


def _followed(client: Client, stream: LiveStream, run_id: str, show: Show) -> Json:
    connections = 0
    while True:
        message = stream.receive(_QUIET_SECONDS)
        if stream.connections != connections:
            if connections:
                detail("the stream is back and goes on where it was cut")
            connections = stream.connections
        if message is None:
            run = client.run(run_id) if stream.connected else {}
            if run.get("state") in FINAL_STATES:
                return run
            continue
        if message["type"] == "error":
            client.run(run_id)  # no such run: says so
            raise Refused(f"the stream of run {run_id} ended: {message['detail']}")
        for event in _events(message):
            show(event)
            if event.type == "state" and event.data.get("state") in FINAL_STATES:
                return event.data


def _events(message: dict[str, Any]) -> list[Event]:
    """Return what a message tells of the run: a publication's event, or the state after a stream began anew."""
    if message["type"] == "publication":
        return [Event(message["event"], message["data"], f"{message['epoch']}:{message['offset']}")]
    if message["type"] == "snapshot":
        told = message["data"]
        return [Event(kind, told[kind]) for kind in ("progress", "result", "state") if kind in told]
    return []
