"""An optimization that walks forward, by a route of its own: the way of choosing is what is asked about."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Response

from api.dependencies import IdempotencyKey, Parts, Researcher
from api.models import RunAccepted
from api.routes.slices import REFUSALS, RequestBody
from api.runs import submit
from gpt_trader.slices import SLICES

router = APIRouter(prefix="/api/v1/strategies", tags=["strategies"])

_OPTIMIZE: Final = SLICES["optimize"]
#: OpenAPI's description of the body: that of an optimization, with a walk in any case.
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "allOf": [
                        {"$ref": f"#/components/schemas/{_OPTIMIZE.request_type().__name__}"},
                        {
                            "type": "object",
                            "properties": {
                                "walk_forward": {
                                    "$ref": "#/components/schemas/WalkForward",
                                    "description": "What is left out, or all of it, has its defaults.",
                                }
                            },
                        },
                    ]
                }
            }
        },
    }
}


@router.post(
    "/walk-forward",
    status_code=202,
    summary="Walk forward: choose on the past, trade what follows",
    operation_id="start_walk_forward",
    responses=REFUSALS,
    openapi_extra=_BODY,
)
async def walk_forward(
    body: RequestBody,
    context: Parts,
    caller: Researcher,
    response: Response,
    *,
    key: IdempotencyKey = None,
) -> RunAccepted:
    """Answer 202 with a run of `optimize` that walks forward; `Location` is the run itself."""
    given = body.get("walk_forward")
    walking = {**body, "walk_forward": {} if given is None else given}
    accepted = await submit(context, _OPTIMIZE, walking, caller, key)
    response.headers["Location"] = accepted.links.self
    return accepted
