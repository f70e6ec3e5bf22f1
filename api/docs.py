"""The documentation page and the OpenAPI document: open to everyone, and working without the internet.

FastAPI's own page loads Swagger UI from a CDN; here its files come from the package `fastapi-offline`
(its files alone: none of its code runs).
"""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from api.errors import ProblemDocument
from api.streams import sse
from gpt_trader.slices import SLICES

OPENAPI_URL: Final = "/api/v1/openapi.json"
DOCS_URL: Final = "/api/v1/docs"
ASSETS_URL: Final = "/api/v1/docs-assets"

#: The page is static and shows nothing of a user's, so its inline start-up script may run.
_POLICY: Final = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'"
)

#: One of the events that a stream sends.
_EVENT: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"type": "string"},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "id": {"type": "string", "description": "To go on behind: `Last-Event-ID`."},
    },
}

router = APIRouter(include_in_schema=False)


@router.get(DOCS_URL)
async def documentation() -> HTMLResponse:
    """Show the interactive documentation."""
    page = get_swagger_ui_html(
        openapi_url=OPENAPI_URL,
        title="gpt-trader API",
        swagger_js_url=f"{ASSETS_URL}/swagger-ui-bundle.js",
        swagger_css_url=f"{ASSETS_URL}/swagger-ui.css",
        swagger_favicon_url=f"{ASSETS_URL}/favicon.png",
        oauth2_redirect_url=None,
    )
    page.headers["Content-Security-Policy"] = _POLICY
    return page


def install(app: FastAPI) -> None:
    """Add the page, its files, and an OpenAPI document that knows our problem document and requests."""
    app.include_router(router)
    app.mount(ASSETS_URL, StaticFiles(packages=[("fastapi_offline", "static")]))
    document: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not document:
            document.update(
                get_openapi(
                    title=app.title, version=app.version, description=app.description, routes=app.routes
                )
            )
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            models: list[type[BaseModel]] = [
                ProblemDocument,
                *(row.request_type() for row in SLICES.values()),
            ]
            for model in models:
                schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
                schemas.update(schema.pop("$defs", {}))
                schemas[model.__name__] = schema
            for operations in document["paths"].values():
                for operation in operations.values():
                    _complete(operation)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document


def _complete(operation: dict[str, Any]) -> None:
    """Say of what is no JSON whether it is text or bytes: a generated client has to know."""
    for response in operation["responses"].values():
        for media_type, content in response.get("content", {}).items():
            if media_type == sse.MEDIA_TYPE:
                content["schema"] = _EVENT
            elif not content.get("schema"):
                text = media_type.startswith("text/")
                content["schema"] = {"type": "string"} if text else {"type": "string", "format": "binary"}
