"""The audit log, for administrators."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from api.dependencies import Administrator, Parts
from api.errors import declared
from api.models import Listing

router = APIRouter(prefix="/api/v1/system", tags=["system"])


class AuditView(BaseModel):
    """One thing that happened to an account, a key or the keys that sign."""

    id: int
    at: datetime
    event: str = Field(examples=["login.failed", "refresh.reused", "key.created"])
    actor: str | None = Field(description="The principal who did it; null: nobody known.")
    subject: str | None = Field(description="The principal it was done to.")
    address: str | None
    request_id: str | None
    details: dict[str, Any]


@router.get("/audit", summary="Read the audit log", responses=declared(401, 403, 422, 500))
async def read_audit(
    context: Parts,
    _: Administrator,
    event: Annotated[str | None, Query(pattern=r"^[a-z_.]{1,40}$", description="Only of this kind.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(pattern=r"^\d{1,18}$", description="A page's next_cursor.")] = None,
) -> Listing[AuditView]:
    """Return entries, newest first. No entry holds a password, a code, a token or a key."""
    before = int(cursor) if cursor else None
    page = await asyncio.to_thread(context.accounts.audit.page, limit, before, event)
    items = [AuditView.model_validate(entry, from_attributes=True) for entry in page.items]
    return Listing(items=items, next_cursor=str(page.next_before) if page.next_before else None)
