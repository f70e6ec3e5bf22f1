"""One client of `/ws/v1/`, from its handshake to its close."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from typing import TYPE_CHECKING, Any, Final

import structlog
from starlette.types import Receive

from api.context import Context
from api.streams import protocol as words
from api.streams.bounds import Allowance, Bounds
from api.streams.channels import Stream, custom, stream_of
from api.streams.encoding import Codec, Frame, Message, Unreadable, decoded
from api.streams.identity import AWAY, CHANGED, Identity
from api.streams.outbox import Outbox
from api.streams.protocol import Close, Code
from api.streams.publishing import publish
from api.streams.socket import StreamSocket
from api.streams.subscription import Subscription
from gpt_trader.errors import GptTraderError
from storage.events import UnrecoverablePosition

if TYPE_CHECKING:
    from api.streams.streams import Streams

_log = structlog.get_logger("api")
_numbers = itertools.count(1)

_REASON_BYTES: Final = 120  # of a close frame: RFC 6455 allows 123

Name = tuple[str, str | None]


class Connection:
    """What one client has: an identity, subscriptions, a way out, and bounds."""

    def __init__(
        self, context: Context, streams: Streams, socket: StreamSocket, codec: Codec, address: str
    ) -> None:
        self.number = next(_numbers)
        self.address = address
        self.began = time.time()
        self._context = context
        self._streams = streams
        self._bounds: Bounds = streams.bounds
        self._socket = socket
        self.outbox = Outbox(
            socket,
            codec,
            most_messages=self._bounds.queue_messages,
            most_bytes=self._bounds.queue_bytes,
            overflow=self._overflowed,
        )
        self.identity = Identity(context, self._no_longer)
        self.subscriptions: dict[Name, tuple[Subscription, asyncio.Task[None]]] = {}
        self._allowance = Allowance(self._bounds.messages_a_second, self._bounds.burst)
        self._unanswered = 0
        self._beat: asyncio.TimerHandle | None = None
        self.closed_with: int | None = None

    @property
    def streams(self) -> list[Stream]:
        """What is subscribed."""
        return [subscription.stream for subscription, _ in self.subscriptions.values()]

    async def serve(self, receive: Receive, credential: str | None, ticket: str | None) -> None:
        """Serve an accepted connection until it is closed by either side."""
        loop = asyncio.get_running_loop()
        deadline = loop.call_later(self._bounds.auth_seconds, self._demand_identity)
        self._beat = loop.call_later(self._bounds.ping_seconds, self._ping)
        try:
            if ticket is not None:
                await self._introduced(None, self.identity.by_ticket(ticket))
            elif credential is not None:
                await self._introduced(None, self.identity.take(credential))
            while (message := await receive())["type"] != "websocket.disconnect":
                await self._hear(message)
        finally:
            deadline.cancel()
            self._beat.cancel()
            self.identity.end()
            await self._end_tasks()

    def close(self, code: Close, reason: str) -> None:
        """Close now; what waited is not sent any more."""
        if not self._socket.open:
            return
        self.closed_with = int(code)
        self.outbox.clear()
        self._socket.end(int(code), reason.encode()[:_REASON_BYTES].decode(errors="ignore"))
        if code not in (Close.RESTARTING,):
            _log.info("stream closed", connection=self.number, code=int(code), reason=reason)

    def shut_down(self) -> None:
        """Tell the client that the server ends and when to come back, and close."""
        wait = random.randint(*self._bounds.reconnect_ms)  # noqa: S311 - spreads clients, hides nothing
        self.outbox.clear()
        self._socket.write(Frame({"type": "shutdown", "reconnect_in_ms": wait}).wire(self.outbox.codec))
        self.close(Close.RESTARTING, "the server restarts")

    # What the client says

    async def _hear(self, message: Any) -> None:  # noqa: ANN401 - an ASGI event
        if not self._allowance.take():
            self.close(Close.NOT_ALLOWED, f"more than {self._bounds.messages_a_second:g} messages a second")
            return
        self._unanswered = 0  # whoever speaks is alive
        text, binary = message.get("text"), message.get("bytes")
        content = text if self.outbox.codec == "json" else binary
        if content is None:
            wanted = "text" if self.outbox.codec == "json" else "binary"
            self.close(Close.NOT_THIS_KIND, f"this subprotocol has {wanted} frames")
            return
        try:
            given = decoded(content, self.outbox.codec)
        except Unreadable as error:
            self.close(Close.NOT_ALLOWED, str(error))
            return
        answered = words.id_of(given)
        try:
            await self._do(words.understood(given))
        except GptTraderError as error:
            self._say(words.refusal_of(answered, error))
        except AWAY as error:
            self._say(_unavailable(answered, error))

    async def _do(self, message: words.ClientMessage) -> None:
        """Do what the client asks for; raise what refuses it."""
        if isinstance(message, words.Authenticate):
            await self._introduced(message.id, self.identity.take(message.token))
        elif isinstance(message, words.Ping):
            self._say({"type": "pong", "id": message.id})
        elif isinstance(message, words.Pong):
            pass
        elif self.identity.principal is None:
            detail = 'say who you are first: {"type": "auth", "token": …}'
            self._say(words.refusal(message.id, Code.UNAUTHENTICATED, detail))
        elif isinstance(message, words.Subscribe):
            await self._subscribe(message)
        elif isinstance(message, words.Unsubscribe):
            await self._unsubscribe(message)
        else:
            await self._publish(message)

    async def _introduced(self, answered: int | str | None, identifying: Any) -> None:  # noqa: ANN401
        """Take a credential; close where nobody holds it."""
        try:
            known = await identifying
        except AWAY:
            self.close(Close.LATER, "the database does not answer: come back later")
            return
        principal = self.identity.principal
        if not known or principal is None:
            wrong = "nobody holds this credential, or it is another principal's, or can do less"
            self.close(Close.UNAUTHENTICATED, wrong)
            return
        self._say(
            {
                "type": "authenticated",
                "id": answered,
                "principal": principal.id,
                "scopes": sorted(principal.scopes),
                "expires_at": principal.expires_at,
            }
        )

    async def _subscribe(self, asked: words.Subscribe) -> None:
        principal = self.identity.principal
        assert principal is not None
        stream = await stream_of(self._context, principal, asked.channel, asked.data)
        name = (stream.channel, stream.key)
        if name in self.subscriptions:
            detail = f"{asked.channel} is subscribed already"
            self._say(words.refusal(asked.id, Code.ALREADY_SUBSCRIBED, detail, channel=asked.channel))
            return
        if len(self.subscriptions) >= self._bounds.subscriptions:
            detail = f"a connection has at most {self._bounds.subscriptions} subscriptions: open another"
            self._say(words.refusal(asked.id, Code.LIMIT_EXCEEDED, detail, channel=asked.channel))
            return
        subscription = Subscription(stream, self.outbox, self._lost)
        task = asyncio.create_task(self._run(subscription, name, asked))
        self.subscriptions[name] = subscription, task

    async def _run(self, subscription: Subscription, name: Name, asked: words.Subscribe) -> None:
        """Run a subscription; what ends it is told, and it can be asked for again."""
        where = {"channel": name[0], **words.keyed(name[1])}
        try:
            await subscription.run(
                self._streams.topics, self._context.reader, self._streams.reading, asked.id, asked.recover
            )
        except GptTraderError as error:
            self._refuse(asked.id, error, where)
        except AWAY as error:
            self._say(_unavailable(asked.id, error, **where))
        except Exception:  # noqa: BLE001 - logged, and the client is closed and comes back
            _log.exception("a subscription failed", connection=self.number, channel=name[0])
            self.close(Close.FAILED, "something went wrong inside: come back")
        finally:
            self._forget(name, subscription)

    async def _unsubscribe(self, asked: words.Unsubscribe) -> None:
        key = asked.data.get("symbol")
        name = (asked.channel, str(key).upper() if key is not None else None)
        found = self.subscriptions.get(name)
        if found is None:
            detail = f"{asked.channel} is not subscribed" + (f" for {name[1]}" if name[1] else "")
            self._say(words.refusal(asked.id, Code.NOT_SUBSCRIBED, detail, channel=asked.channel))
            return
        found[1].cancel()
        await asyncio.gather(found[1], return_exceptions=True)
        self._forget(name, found[0])
        self._say({"type": "unsubscribed", "id": asked.id, "channel": name[0], **words.keyed(name[1])})

    async def _publish(self, asked: words.Publish) -> None:
        principal = self.identity.principal
        assert principal is not None
        principal.must("trade")
        stream = custom(principal, asked.channel)
        position = await publish(self._context, stream, asked.event, asked.data)
        self._say({"type": "published", "id": asked.id, "channel": asked.channel, **words.placed(position)})

    # What happens by itself

    def _say(self, message: Message) -> None:
        self.outbox.put(Frame(message))

    def _lost(self, subscription: Subscription, error: GptTraderError | None) -> None:
        """Tell that a subscription has ended: its channel began anew, or we failed and the client comes back."""
        if error is None:
            self.close(Close.FAILED, "a stream cannot be followed any more: come back")
            return
        stream = subscription.stream
        # At once: the client may ask for the channel again before the task has come to its end.
        self._forget((stream.channel, stream.key), subscription)
        where = {"channel": stream.channel, **words.keyed(stream.key)}
        self._refuse(None, error, where)

    def _forget(self, name: Name, subscription: Subscription) -> None:
        found = self.subscriptions.get(name)
        if found is not None and found[0] is subscription:
            del self.subscriptions[name]

    def _refuse(self, answered: int | str | None, error: GptTraderError, where: dict[str, str]) -> None:
        self._streams.tally.unrecoverable += isinstance(error, UnrecoverablePosition)
        self._say(words.refusal_of(answered, error, **where))

    def _overflowed(self) -> None:
        self.close(Close.TOO_SLOW, "too slow: come back and recover by offset")

    def _demand_identity(self) -> None:
        if self.identity.principal is None:
            seconds = f"{self._bounds.auth_seconds:g}"
            self.close(Close.UNAUTHENTICATED, f"no credential within {seconds} s")

    def _ping(self) -> None:
        if self._unanswered >= self._bounds.unanswered_pings:
            self.close(Close.FAILED, f"{self._unanswered} pings without an answer")
            return
        self._unanswered += 1
        self._say({"type": "ping"})
        self._beat = asyncio.get_running_loop().call_later(self._bounds.ping_seconds, self._ping)

    def _no_longer(self, reason: str) -> None:
        # Where it can do less or more now: subscriptions were granted to what it could do, and are asked for anew.
        self.close(Close.LATER if reason == CHANGED else Close.UNAUTHENTICATED, reason)

    async def _end_tasks(self) -> None:
        tasks = [task for _, task in self.subscriptions.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.outbox.clear()


def _unavailable(answered: int | str | None, error: Exception, **more: Any) -> Message:  # noqa: ANN401 - JSON
    detail = f"a part of the engine does not answer ({type(error).__name__}): try again in a moment"
    return words.refusal(answered, Code.UNAVAILABLE, detail, **more)
