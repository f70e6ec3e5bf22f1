"""The ASGI app behind `/ws/v1/`: takes a handshake and serves it."""

from __future__ import annotations

from typing import Final

from starlette.types import Receive, Scope, Send

from api.context import Context
from api.errors import problem_response
from api.streams.connection import Connection
from api.streams.encoding import SUBPROTOCOLS
from api.streams.identity import credential_of, ticket_of
from api.streams.socket import socket_of

PATH: Final = "/ws/v1/"

#: The rate limit of handshakes, by address: guessing keys is limited with them.
ROUTE: Final = f"GET {PATH}"


class StreamEndpoint:
    """Serves one WebSocket connection a call."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the handshake (429), or accept it and serve until the end."""
        context: Context = scope["app"].state.context
        client = scope.get("client")
        address = client[0] if client else "nowhere"
        standing = await context.limits.hit(f"address:{address}", ROUTE)
        if not standing.allowed:
            refused = problem_response(
                scope["state"]["request_id"],
                429,
                "too-many-requests",
                "Too many requests",
                f"{standing.limit} connections in this window were answered; go on in {standing.reset_seconds} s",
                headers=standing.headers(),
            )
            await refused(scope, receive, send)
            return
        await receive()  # websocket.connect
        chosen = next((name for name in scope["subprotocols"] if name in SUBPROTOCOLS), None)
        await send({"type": "websocket.accept", "subprotocol": chosen})
        codec = SUBPROTOCOLS[chosen] if chosen else "json"
        streams = context.streams
        connection = Connection(context, streams, socket_of(scope), codec, address)
        streams.connections.add(connection)
        try:
            if streams.closing:
                connection.shut_down()
            await connection.serve(receive, credential_of(scope), ticket_of(scope))
        finally:
            streams.connections.discard(connection)
            streams.tally.ended(connection)
