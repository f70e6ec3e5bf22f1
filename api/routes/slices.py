"""Each slice's own route (`POST /strategies/backtest`, `POST /market/ingest`, …): one for every row of the table.

They and `POST /workflows/{name}/runs` are two names of the same thing. A body is checked by `api.admission`, with
the models of CLI and flows, so that a wrong field is refused in the same words everywhere.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Depends, Response
from starlette.requests import Request as HttpRequest

from api.dependencies import IdempotencyKey, Known, Parts
from api.errors import MalformedBody, declared
from api.models import RunAccepted
from api.runs import submit
from gpt_trader.errors import Problem, Refused
from gpt_trader.slices import SLICES, Slice

#: What every route that starts work may answer instead.
REFUSALS: Final = declared(400, 401, 403, 404, 409, 413, 422, 500, 503)


#: Fields of a body; no request has as many, and naming what is wrong with each takes its time.
_MOST_FIELDS: Final = 1000


async def json_object(request: HttpRequest) -> dict[str, Any]:
    """Return the body, which must be one JSON object; its fields are the admission's business.

    Declared as a dependency and not as a body, so that the OpenAPI document shows the slice's own model.
    """
    content = await request.body()
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise MalformedBody('the body must be one JSON object, e.g. {"symbol": "AAPL"}') from None
    if not isinstance(found, dict):
        raise Refused.of(Problem("body", None, f"is a {type(found).__name__}", allowed="a JSON object"))
    if len(found) > _MOST_FIELDS:
        message = f"has {len(found):,} fields"
        raise Refused.of(Problem("body", None, message, allowed=f"at most {_MOST_FIELDS}"))
    return found


RequestBody = Annotated[dict[str, Any], Depends(json_object)]
Starter = Callable[..., Awaitable[RunAccepted]]


def body_of(*rows: Slice) -> dict[str, Any]:
    """Return OpenAPI's description of a body that is one of these slices' requests."""
    schemas = [{"$ref": f"#/components/schemas/{row.request_type().__name__}"} for row in rows]
    schema = schemas[0] if len(schemas) == 1 else {"oneOf": schemas}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def router() -> APIRouter:
    """Return a router with one route a slice."""
    found = APIRouter(tags=["slices"])
    for row in SLICES.values():
        found.add_api_route(
            row.route,
            _starter(row),
            methods=["POST"],
            status_code=202,
            summary=row.summary,
            operation_id=f"start_{row.name}",
            responses=REFUSALS,
            openapi_extra=body_of(row),
        )
    return found


def _starter(row: Slice) -> Starter:
    async def start(
        body: RequestBody,
        context: Parts,
        caller: Known,
        response: Response,
        *,
        key: IdempotencyKey = None,
    ) -> RunAccepted:
        """Answer 202 with the run; `Location` is the run itself. The scope that it needs is the slice's."""
        accepted = await submit(context, row, body, caller, key)
        response.headers["Location"] = accepted.links.self
        return accepted

    return start
