"""The API's process: `python -P -m api.main`. Binds, serves, and ends within a bound on SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Generator
from typing import Final

import structlog
import uvicorn

from api import logs
from api.app import create_app
from api.patience import PatientHttp
from api.streams.socket import StreamSocket
from gpt_trader.errors import GptTraderError, Problem, Refused
from gpt_trader.settings import Home, Settings, home, load_settings
from storage import database

#: Seconds that open requests get after SIGTERM; event streams are told at once and end by themselves.
GRACE_SECONDS: Final = 4

#: Seconds to wait for a database that is starting beside us.
DATABASE_SECONDS: Final = 60.0

_log = structlog.get_logger("api")


class ApiServer(uvicorn.Server):
    """Uvicorn's server, which tells the streams that it is closing before it waits for them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Take SIGTERM and SIGINT as a wish to end in order; the process then exits with 0.

        Uvicorn's own handlers raise the signal once more at the end. A server in another thread gets no signals.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and take what is there by then out of the garbage collector's rounds: it lives as long as we do.

        A full round over it took tenths of a second at a time, in which no stream got anything.
        """
        await super().startup(sockets=sockets)
        if threading.current_thread() is threading.main_thread():
            gc.collect()
            gc.freeze()

    async def on_tick(self, counter: int) -> bool:
        """Return whether to end: also where a part of the app that nobody calls has died."""
        return await super().on_tick(counter) or self.died

    @property
    def died(self) -> bool:
        """Whether a part of the app has died."""
        died: bool = self.config.app.state.died  # type: ignore[union-attr]  # our app, given as an object
        return died

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Set the app's `closing` event and tell the WebSocket's clients, then shut down as usual."""
        state = self.config.app.state  # type: ignore[union-attr]  # our app, given as an object
        state.closing.set()
        state.context.streams.shut_down()
        await super().shutdown(sockets=sockets)


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; raise Refused where the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        reason = f"{host}:{port} cannot be bound: {error.strerror}"
        raise Refused.of(Problem("api_port", port, reason, allowed="a free port, or 0 for any")) from None
    listening.set_inheritable(False)
    return listening


def server_for(settings: Settings, where: Home, *, prefect_url: str, prefect_auth: str | None) -> ApiServer:
    """Return the configured server of one engine's API."""
    app = create_app(settings, where, prefect_url=prefect_url, prefect_auth=prefect_auth)
    return ApiServer(
        uvicorn.Config(
            app,
            loop="uvloop",
            http=PatientHttp,
            ws=StreamSocket,
            ws_max_size=64 * 1024,
            ws_per_message_deflate=False,
            ws_ping_interval=30.0,
            access_log=False,
            log_config=None,
            lifespan="on",
            server_header=False,
            # An address that anybody may claim would be no limit's key.
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=list(settings.trusted_proxies),
            ssl_certfile=settings.tls_certificate,
            ssl_keyfile=settings.tls_key,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )


def serve(settings: Settings, where: Home) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code."""
    prefect_url = settings.prefect_api_url or os.environ.get("PREFECT_API_URL")
    if not prefect_url:
        prefect_url = f"http://127.0.0.1:{settings.prefect_port}/api"
    auth = os.environ.get("PREFECT_API_AUTH_STRING") or None
    # Until it serves, a signal simply ends the process: the database may take its time on a first start.
    database.wait_ready(settings, where, DATABASE_SECONDS)
    listening = bind(settings.api_host, settings.api_port)
    host, port = listening.getsockname()[:2]
    server = server_for(settings, where, prefect_url=prefect_url, prefect_auth=auth)
    _log.info("serving", address=f"http://{host}:{port}", pid=os.getpid())
    with listening, asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(server.serve(sockets=[listening]))
    gc.unfreeze()  # or extension modules complain of what they find at the interpreter's end
    return 0 if server.started and not server.died else 1


def main() -> int:
    """Run with the settings of this home and environment; return the exit code."""
    logs.configure("info")
    try:
        settings = load_settings()
        logs.configure(settings.log_level)
        return serve(settings, home())
    except GptTraderError as error:
        _log.error("the API cannot start", reason=error.detail)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
