"""A stored series (Parquet) in the representation the client prefers."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from starlette.responses import FileResponse, Response

from api.negotiation import chosen_media_type

PARQUET: Final = "application/vnd.apache.parquet"
CSV: Final = "text/csv"
MEDIA_TYPES: Final = (PARQUET, CSV)


async def series_response(path: Path, name: str, accept: str | None) -> Response:
    """Return the file as it is, or as CSV; raise NotAcceptable where the client wants neither."""
    chosen = chosen_media_type(accept, MEDIA_TYPES)
    headers = {"Vary": "Accept", "Cache-Control": "private, max-age=3600"}
    if chosen == PARQUET:
        return FileResponse(path, media_type=PARQUET, filename=f"{name}.parquet", headers=headers)
    content = await asyncio.to_thread(_csv, path)
    headers["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    return Response(content, media_type=CSV, headers=headers)


def _csv(path: Path) -> bytes:
    return csv_bytes(pq.read_table(path))


def csv_bytes(table: pa.Table) -> bytes:
    """Return the table as CSV (RFC 4180) with a header line."""
    buffer = io.BytesIO()
    pa_csv.write_csv(table, buffer)
    return buffer.getvalue()
