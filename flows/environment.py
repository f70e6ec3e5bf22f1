"""Prefect's settings as we want them: environment variables, to be set before it is imported."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from gpt_trader.settings import Home, Settings


def common(settings: Settings, home: Home) -> dict[str, str]:
    """Return what holds for server, worker and runs: one home, nothing sent out, nothing asked."""
    return {
        "PREFECT_HOME": str(home.prefect),
        "DO_NOT_TRACK": "1",
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false",  # the server has it off; each client would ask first
        # Its server answers so while its database is away; it is asked five times within a minute then.
        "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",  # a forgotten address is an error, not a second server
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT_LOGGING_COLORS": "false",  # to log files; and finding what to color takes 15 ms a line
        "PREFECT_LOGGING_LEVEL": settings.log_level.upper(),
    }


def for_server(settings: Settings, home: Home) -> dict[str, str]:
    """Return what the server adds. The UI is served from the very origin it calls, so CORS names that one only."""
    host = settings.prefect_host
    named = socket.gethostname() if host in ("0.0.0.0", "::") else host  # noqa: S104 -- compared, not bound
    origin = (
        f"http://[{named}]:{settings.prefect_port}"
        if ":" in named
        else f"http://{named}:{settings.prefect_port}"
    )
    return {
        **common(settings, home),
        "PREFECT_API_URL": f"{origin}/api",
        "PREFECT_UI_API_URL": f"{origin}/api",
        "PREFECT_SERVER_API_HOST": host,
        "PREFECT_SERVER_API_PORT": str(settings.prefect_port),
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"{origin},http://localhost:{settings.prefect_port}",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING"
        if settings.log_level == "info"
        else settings.log_level.upper(),
        # A run that waits for a deployment's concurrency slot is asked again after a second, not after thirty.
        "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "1",
    }


def for_worker(settings: Settings, home: Home) -> dict[str, str]:
    """Return what the worker adds: how often it polls. It starts no web server of its own."""
    return {
        **common(settings, home),
        **({"PREFECT_API_URL": settings.prefect_api_url} if settings.prefect_api_url else {}),
        "PREFECT_WORKER_QUERY_SECONDS": str(settings.worker_poll_seconds),
        # Logs of a run are sent in batches; the default of 2 s is how late a reader of the UI would be.
        "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "0.5",
        "PREFECT_LOGGING_LOG_PRINTS": "true",
        # A logger used outside of a run logs to the worker's own output and nowhere else.
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    }


def adopt(variables: Mapping[str, str]) -> None:
    """Set the variables in this process, and make Prefect's home (it makes its own folder, but not the parents)."""
    os.environ.update(variables)
    if "PREFECT_HOME" in variables:
        Path(variables["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)
