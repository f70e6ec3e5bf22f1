"""What routes may ask for: the engine's parts, the caller, and the caller with a scope."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Header, Path, Query, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from pydantic import AfterValidator

from api.accounts.tickets import authenticate_ticket
from api.context import Context
from api.errors import Unauthenticated
from api.front import Caller
from api.principals import Principal, Scope
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


async def caller(request: Request) -> Caller:
    """Return who asks, as `api.front` found it before any route was asked.

    Open routes may depend on it too, so the OpenAPI document must not say that they want a key.
    """
    found: Caller = request.scope["state"]["caller"]
    return found


Asking = Annotated[Caller, Depends(caller)]


def known(asking: Caller) -> Principal:
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


# The two schemes are told to OpenAPI alone: the front has read the credential already.
async def authenticated(
    request: Request,
    _in_bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)] = None,
    _in_api_key: Annotated[str | None, Security(_api_key)] = None,
) -> Principal:
    """Return who holds the request's credential; raise Unauthenticated where nobody does."""
    return known(request.scope["state"]["caller"])


def holder_of(scope: Scope) -> Callable[..., Awaitable[Principal]]:
    """Return the dependency that lets only holders of `scope` pass."""

    async def holder(
        request: Request,
        _in_bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)] = None,
        _in_api_key: Annotated[str | None, Security(_api_key)] = None,
    ) -> Principal:
        principal = known(request.scope["state"]["caller"])
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
        reader = known(asking)
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
    reader = known(asking) if ticket is None else await ticket_holder(context, ticket)
    reader.must("read")
    return reader


async def ticket_holder(context: Context, ticket: str) -> Principal:
    """Return who asked for a stream ticket, which is used up with that; raise Unauthenticated where it is none."""
    holder = await authenticate_ticket(context.accounts, ticket)
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
