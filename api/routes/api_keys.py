"""API keys of one's own account."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.accounts.callers import Account, Anybody, From, SignedIn
from api.accounts.roles import chosen, ordered
from api.accounts.tokens import KEY_PREFIX, digest_of, fresh_secret
from api.dependencies import Parts
from api.errors import declared
from api.models import Listing
from api.principals import Scope
from gpt_trader.errors import Conflict, NotFound
from storage.api_keys import ApiKey

router = APIRouter(prefix="/api/v1/auth/api-keys", tags=["auth"])

#: Keys of one account, the expired ones too.
MOST = 50


class NewKey(BaseModel):
    """A key to make."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,80}$")] = Field(
        description="What it is for; it tells one's keys apart.", examples=["nightly ingest"]
    )
    scopes: list[str] = Field(
        default=[], max_length=10, description="A part of one's own; default: all of these."
    )
    expires_in_days: float | None = Field(default=90, gt=0, le=3650, description="null: it does not expire.")


class KeyView(BaseModel):
    """A key as it can be seen again."""

    id: UUID
    name: str
    starts_with: str = Field(description="Its first characters.")
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")


class MadeKey(KeyView):
    """A new key; this is the only time that it is shown."""

    key: str


@router.post(
    "",
    status_code=201,
    summary="Make an API key",
    responses=declared(400, 401, 403, 409, 413, 422, 500),
)
async def make_key(body: NewKey, context: Parts, principal: Anybody, user: SignedIn, origin: From) -> MadeKey:
    """The key acts for the account, with a part of what the caller may do."""
    scopes = ordered(chosen(body.scopes, principal.scopes))
    store = context.accounts.api_keys
    if await asyncio.to_thread(store.count, user.id) >= MOST:
        raise Conflict(f"an account may have {MOST} keys: delete one that is not used any more")
    days = body.expires_in_days
    expires_at = datetime.now(UTC) + timedelta(days=days) if days is not None else None
    secret = fresh_secret(KEY_PREFIX)
    told = origin.tells("key.created", user.principal, name=body.name, scopes=list(scopes))

    def create() -> ApiKey:
        return store.create(
            user.id,
            name=body.name,
            digest=digest_of(secret),
            starts_with=secret[:10],
            scopes=scopes,
            expires_at=expires_at,
            told=told,
        )

    made = await asyncio.to_thread(create)
    return MadeKey.model_validate({**_shown(made), "key": secret})


@router.get("", summary="List one's API keys", responses=declared(401, 403, 500))
async def list_keys(context: Parts, user: Account) -> Listing[KeyView]:
    """Return them oldest first, never the keys themselves."""
    found = await asyncio.to_thread(context.accounts.api_keys.list, user.id)
    return Listing(items=[KeyView.model_validate(_shown(key)) for key in found])


@router.delete(
    "/{key_id}",
    status_code=204,
    summary="Delete an API key",
    responses=declared(401, 403, 404, 422, 500),
)
async def delete_key(key_id: UUID, context: Parts, user: SignedIn, origin: From) -> None:
    """It opens nothing any more, at once."""
    accounts = context.accounts
    told = origin.tells("key.deleted", user.principal, key=str(key_id))
    digest = await asyncio.to_thread(accounts.api_keys.delete, user.id, key_id, told)
    if digest is None:
        raise NotFound(f"you have no key {key_id}: GET /api/v1/auth/api-keys lists yours")
    accounts.key_standings.forget(digest)


def _shown(key: ApiKey) -> dict[str, object]:
    return {name: getattr(key, name) for name in KeyView.model_fields}
