"""SQL over the lake: one SELECT, run in a process of its own."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Annotated, Any, Final

import orjson
import pyarrow as pa
from fastapi import APIRouter, Header, Response
from pydantic import BaseModel, ConfigDict, Field

from api.bars_document import ARROW, JSON, MEDIA_TYPES
from api.dependencies import Parts, Reader
from api.errors import MEDIA_TYPE as PROBLEM
from api.errors import declared
from api.json_columns import is_plain, json_columns, json_values
from api.negotiation import chosen_media_type
from api.series import csv_bytes
from storage.lens import MAX_SQL
from storage.query import DEFAULT_LIMIT, DEFAULT_TIMEOUT_SECONDS, shown
from storage.query_process import MAX_LIMIT, MAX_TIMEOUT, QueryProcesses, Question

_BUSY: Final[dict[int | str, dict[str, Any]]] = {
    429: {
        "description": "Too many queries at once",
        "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
    }
}


class QueryRequest(BaseModel):
    """One SELECT over a snapshot's views: `bars_1d`, `bars_1m`, …, `series`, `instruments`, `actions`."""

    model_config = ConfigDict(extra="forbid")

    sql: str = Field(
        min_length=1,
        max_length=MAX_SQL,
        examples=["SELECT symbol, avg(close) AS mean FROM bars_1d GROUP BY symbol"],
    )
    as_of: str | None = Field(
        default=None, max_length=64, description="A snapshot's id, or a time: the newest then."
    )
    limit: int = Field(default=DEFAULT_LIMIT, ge=1, le=MAX_LIMIT, description="Rows of the answer.")
    timeout: float = Field(default=DEFAULT_TIMEOUT_SECONDS, gt=0, le=MAX_TIMEOUT, description="Seconds.")


class QueryAnswer(BaseModel):
    """The answer, a list a column; `api/json_columns.py` says how each type is written.

    `types` are Arrow's; `truncated` says that `limit` left rows out.
    """

    snapshot_id: str
    rows: int
    truncated: bool
    types: dict[str, str]
    columns: dict[str, list[Any]]


def router() -> APIRouter:
    """Return the route with its own places for queries."""
    made = APIRouter(prefix="/api/v1/market", tags=["market"])
    processes = QueryProcesses()

    @made.post(
        "/query",
        summary="Ask the lake in SQL",
        response_model=QueryAnswer,
        responses={
            200: {"content": {media_type: {} for media_type in MEDIA_TYPES[1:]}},
            **declared(400, 401, 403, 404, 406, 413, 422, 500),
            **_BUSY,
        },
    )
    async def query_lake(
        asked: QueryRequest, context: Parts, _: Reader, accept: Annotated[str | None, Header()] = None
    ) -> Response:
        """Return JSON, CSV or an Arrow stream by `Accept`; a query that breaks its bounds is refused.

        The headers `X-Snapshot-Id` and `X-Truncated` say in every representation what the JSON says.
        """
        media_type = chosen_media_type(accept, MEDIA_TYPES)
        question = Question(asked.sql, asked.limit, asked.timeout)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(processes.place())
            lens = await asyncio.to_thread(stack.enter_context, shown(context.lake, asked.as_of, asked.sql))
            table = await processes.answer(lens, question)
        truncated = table.schema.metadata[b"truncated"] == b"true"
        content = await asyncio.to_thread(_encoded, table, lens.snapshot_id, media_type, truncated=truncated)
        headers = {
            "Vary": "Accept",
            "X-Snapshot-Id": lens.snapshot_id,
            "X-Truncated": "true" if truncated else "false",
        }
        return Response(content, media_type=media_type, headers=headers)

    return made


def _encoded(table: pa.Table, snapshot_id: str, media_type: str, *, truncated: bool) -> bytes:
    if media_type == JSON:
        document = {
            "snapshot_id": snapshot_id,
            "rows": table.num_rows,
            "truncated": truncated,
            "types": {field.name: str(field.type) for field in table.schema},
            "columns": json_columns(table),
        }
        return orjson.dumps(document)
    if media_type == ARROW:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        content: bytes = sink.getvalue().to_pybytes()
        return content
    return csv_bytes(_as_text(table))


def _as_text(table: pa.Table) -> pa.Table:
    """Return the table with every column that CSV cannot hold as the text that JSON has for it."""
    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        columns[name] = column
        if not is_plain(column.type):
            values = [v if v is None or isinstance(v, str) else json.dumps(v) for v in json_values(column)]
            columns[name] = pa.array(values, pa.string())
    return pa.table(columns)
