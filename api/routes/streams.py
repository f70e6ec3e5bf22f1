"""The streams as they are now, and publishing into one's own channels."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from api.dependencies import Parts, Reader, Trader
from api.errors import declared
from api.streams.channels import custom
from api.streams.publishing import publish

router = APIRouter(prefix="/api/v1/system", tags=["system"])


class SubscribedView(BaseModel):
    """One subscription of a connection."""

    channel: str
    key: str | None = Field(default=None, description="The symbol, of `market.stream`.")


class ConnectionView(BaseModel):
    """One client of the WebSocket."""

    number: int
    principal: str | None = Field(description="Null while it has not said who it is.")
    address: str
    codec: str
    since: str
    subscriptions: list[SubscribedView]
    queued_messages: int = Field(description="What waits for a client that does not keep up.")
    queued_bytes: int
    sent: int
    conflated: int = Field(description="Publications that a later one stood for.")


class ChannelView(BaseModel):
    """One stream that this process follows."""

    channel: str
    key: str | None = None
    epoch: str | None = Field(description="Null while nothing was ever published.")
    offset: int
    subscribers: int


class StreamsView(BaseModel):
    """The WebSocket's side of the process that answers."""

    connections: list[ConnectionView]
    channels: list[ChannelView]


class NewPublication(BaseModel):
    """What is to be published."""

    model_config = ConfigDict(extra="forbid")

    channel: Annotated[str, Field(max_length=120, examples=["custom.note"])]
    data: dict[str, Any]
    event: str = Field(default="message", pattern=r"^[a-z][a-z0-9_.-]{0,63}$")


class Published(BaseModel):
    """Where it stands in its channel."""

    channel: str
    epoch: str
    offset: int


@router.get(
    "/streams", summary="Connections, channels and queue depths", responses=declared(401, 403, 429, 500)
)
async def show_streams(context: Parts, caller: Reader) -> StreamsView:
    """Return one's own of the process that answers; with the scope `admin` all of it."""
    return StreamsView.model_validate(context.streams.overview(caller))


@router.post(
    "/events",
    status_code=201,
    summary="Publish an event into a channel custom.*",
    responses=declared(400, 401, 403, 413, 422, 429, 500, 503),
)
async def publish_event(context: Parts, caller: Trader, event: NewPublication) -> Published:
    """Append it durably; whoever of the same owner has subscribed to the channel gets it."""
    position = await publish(context, custom(caller, event.channel), event.event, event.data)
    return Published(channel=event.channel, epoch=position.epoch, offset=position.offset)
