"""`python -P -m flows.server`: Prefect's own server under uvicorn, in this very process.

The same app that `prefect server start` serves (REST, UI, scheduler, late runs, events, automations), without the CLI's
imports, with its telemetry off and bound to loopback unless `prefect_host` says otherwise. The port is
`GPT_TRADER_PREFECT_PORT`, which the supervisor sets to an actual one. The database is made ready in a thread while
Prefect is being imported: they take seconds each.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from flows import environment
from gpt_trader.errors import GptTraderError, Refused
from gpt_trader.settings import Home, Settings, home, load_settings
from storage.database import ensure_databases, prefect_url, wait_ready

if TYPE_CHECKING:
    from uvicorn import Server

#: The database starts beside us; the first start initializes it.
DATABASE_SECONDS: Final = 120.0

#: Open event streams and websockets get this long when we are told to stop.
_SHUTDOWN_SECONDS: Final = 3


def main() -> int:
    """Serve until SIGTERM; return the exit code."""
    settings, engine = load_settings(), home()
    try:
        if settings.prefect_port == 0:
            raise Refused(
                "GPT_TRADER_PREFECT_PORT must be an actual port here, not 0: the supervisor picks one"
            )
        settings.check_prefect_guarded(os.environ)
        environment.adopt(environment.for_server(settings, engine))
        database = _Beside(lambda: _prepare_database(settings, engine))
        _import_prefect()
        environment.adopt({"PREFECT_API_DATABASE_CONNECTION_URL": database.result()})
        server = _server(settings)
    except GptTraderError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    server.run()
    return 0


def _prepare_database(settings: Settings, engine: Home) -> str:
    wait_ready(settings, engine, DATABASE_SECONDS)
    ensure_databases(settings, engine)
    return prefect_url(settings, engine)


class _Beside:
    """Runs a function in a thread; `result` waits for it and raises what it raised."""

    def __init__(self, function: Callable[[], str]) -> None:
        self._function = function
        self._result: str | None = None
        self._error: GptTraderError | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._function()
        except GptTraderError as error:
            self._error = error

    def result(self) -> str:
        self._thread.join()
        if self._error is not None:
            raise self._error
        if self._result is None:
            raise RuntimeError("the database could not be prepared; the traceback is above")
        return self._result


def _import_prefect() -> None:
    """Import the server's modules; nothing of them dies, so the collector need not look meanwhile."""
    gc.disable()
    import uvicorn

    # The settings are read anew afterwards: they must not be cached before the database's URL is known.
    from prefect.server.api import server

    assert uvicorn
    assert server
    gc.enable()
    gc.freeze()


def _server(settings: Settings) -> Server:
    import uvicorn
    from prefect.context import refresh_global_settings_context
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    refresh_global_settings_context()
    api = get_current_settings().server.api
    return uvicorn.Server(
        uvicorn.Config(
            # A page of the web that points its own name at 127.0.0.1 must not reach Prefect, which has no login here.
            # Bound beyond this machine it has one, and is called by whatever name the network gives it.
            TrustedHostMiddleware(create_app(final=True), allowed_hosts=_hosts(settings.prefect_host)),
            host=settings.prefect_host,
            port=settings.prefect_port,
            log_level="warning" if settings.log_level == "info" else settings.log_level,
            timeout_keep_alive=api.keepalive_timeout,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )
    )


def _hosts(bound: str) -> list[str]:
    return ["127.0.0.1", "localhost"] if bound in ("127.0.0.1", "localhost") else ["*"]


if __name__ == "__main__":
    sys.exit(main())
