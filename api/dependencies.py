"""What routes may ask for: the engine's parts, the caller, and the caller with a scope."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Header, Path, Query, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from pydantic import AfterValidator

from api.accounts.tickets import authenticate_ticket
from api.context import Context
from api.errors import TooManyRequests, Unauthenticated
from api.limits import route_of
from api.principals import Principal, Scope, identify
from gpt_trader.instruments import valid_symbol

_bearer = HTTPBearer(
    auto_error=False,
    description="An access token (`POST /api/v1/auth/login`), an API key, or the local key from the file `key` in the "
    "engine's home.",
)
_api_key = APIKeyHeader(name="X-API-Key", auto_error=False, description="A key, as a header of its own.")


async def engine_context(request: Request) -> Context:
    """Return the parts this app was composed of."""
    found: Context = request.app.state.context
    return found


Parts = Annotated[Context, Depends(engine_context)]


@dataclass(frozen=True)
class Caller:
    """Who asks: whether there was a credential at all, and who holds it (None: nobody)."""

    credential: bool
    principal: Principal | None


async def caller(request: Request, context: Parts) -> Caller:
    """Return who asks; FastAPI asks once a request, however many depend on it.

    Open routes depend on it too (everybody is counted), so the OpenAPI document must not say that they want a key.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    credential = token.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key")
    found = await identify(context.authenticators, credential) if credential else None
    return Caller(bool(credential), found)


Asking = Annotated[Caller, Depends(caller)]


async def limited(request: Request, context: Parts, asking: Asking) -> None:
    """Count the request; raise TooManyRequests where there were too many. Every route depends on it (`api.app`)."""
    address = request.client.host if request.client else "nowhere"
    who = asking.principal.id if asking.principal else f"address:{address}"
    standing = await context.limits.hit(who, route_of(request.scope))
    request.scope["state"]["headers"] = standing.headers()
    if not standing.allowed:
        raise TooManyRequests(
            f"{standing.limit} requests in this window have been answered; go on in {standing.reset_seconds} s"
        )


async def authenticated(
    asking: Asking,
    _in_bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)] = None,
    _in_api_key: Annotated[str | None, Security(_api_key)] = None,
) -> Principal:
    """Return who holds the request's credential; raise Unauthenticated where nobody does."""
    if not asking.credential:
        raise Unauthenticated(
            "no credential: send `Authorization: Bearer TOKEN` (POST /api/v1/auth/login gives one) or "
            "`X-API-Key: KEY`; the local key is the file `key` in GPT_TRADER_HOME"
        )
    found = asking.principal
    if found is None:
        raise Unauthenticated(
            "nobody knows this credential, or it has expired or been revoked: log in again, or refresh the token; "
            "the local key is the file `key` in this engine's GPT_TRADER_HOME"
        )
    return found


def holder_of(scope: Scope) -> Callable[[Principal], Awaitable[Principal]]:
    """Return the dependency that lets only holders of `scope` pass."""

    async def holder(principal: Annotated[Principal, Depends(authenticated)]) -> Principal:
        principal.must(scope)
        return principal

    return holder


async def report_reader(
    context: Parts,
    run_id: UUID,
    asking: Asking,
    _in_bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
    _in_api_key: Annotated[str | None, Security(_api_key)],
    ticket: Annotated[
        str | None,
        Query(
            max_length=64, description="Instead of a key: opens this one report (links that the engine made)."
        ),
    ] = None,
) -> Principal:
    """Return who may read the report: the holder of a link's ticket, or of a credential with the scope `read`."""
    if ticket is None:
        reader = await authenticated(asking)
        reader.must("read")
        return reader
    holder = context.local_key.opens_report(str(run_id), ticket)
    if holder is None:
        raise Unauthenticated(
            "this link's ticket is not for this report, or the engine's key has been replaced"
        )
    return holder


async def stream_reader(
    context: Parts,
    asking: Asking,
    _in_bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
    _in_api_key: Annotated[str | None, Security(_api_key)],
    ticket: Annotated[
        str | None,
        Query(
            max_length=64, description="Instead of a credential: a ticket from `POST /auth/stream-tickets`."
        ),
    ] = None,
) -> Principal:
    """Return who may follow a stream: the holder of a stream ticket, or of a credential, with the scope `read`."""
    reader = await (authenticated(asking) if ticket is None else ticket_holder(context, ticket))
    reader.must("read")
    return reader


async def ticket_holder(context: Context, ticket: str) -> Principal:
    """Return who asked for a stream ticket, which is used up with that; raise Unauthenticated where it is none."""
    holder = await authenticate_ticket(context.accounts.tickets, ticket)
    if holder is None:
        raise Unauthenticated("this ticket is none, was used, or has expired: get another for each stream")
    return holder


#: Whoever it is: what they must be allowed to depends on what they ask for (`Slice.scope`), and is checked there.
Known = Annotated[Principal, Depends(authenticated)]
Reader = Annotated[Principal, Depends(holder_of("read"))]
StreamReader = Annotated[Principal, Depends(stream_reader)]
ReportReader = Annotated[Principal, Depends(report_reader)]
Researcher = Annotated[Principal, Depends(holder_of("research"))]
Trader = Annotated[Principal, Depends(holder_of("trade"))]
Administrator = Annotated[Principal, Depends(holder_of("admin"))]

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[\x21-\x7e]{1,200}$",
        description="The same key with the same body gives the same run; with another body 409.",
    ),
]

SymbolPath = Annotated[
    str, Path(description="An instrument id.", examples=["AAPL", "BTC-USDT"]), AfterValidator(valid_symbol)
]
