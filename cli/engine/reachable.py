"""Do the servers elsewhere, that parts here need, take connections? Asked before any part is started."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from cli.engine.plan import SETTINGS, Plan
from gpt_trader.errors import EngineUnreachable
from gpt_trader.settings import ENV_PREFIX

#: A server that is just starting is waited for; where machines start together, a service manager tries again.
PATIENCE_SECONDS: Final = 5.0
_CONNECT_SECONDS: Final = 2.0
_PAUSE_SECONDS: Final = 0.25
_PORTS: Final = {"database": 5432, "prefect": 4200}


def check_reachable(plan: Plan, announce: Callable[[str], None], patience: float = PATIENCE_SECONDS) -> Plan:
    """Return the plan once every server elsewhere takes connections.

    Raises:
        EngineUnreachable: One does not; the message names the setting and the address, and holds no credential.
    """
    deadline = time.monotonic() + patience
    for name, url in plan.external.items():
        address = _address(name, url)
        if address is None or not any(part.name != name for part in plan.parts):
            continue
        host, port = address
        told = False
        while (reason := _why_not(host, port)) is not None:
            if time.monotonic() >= deadline:
                field = SETTINGS[name]
                raise EngineUnreachable(
                    f"{field} ({ENV_PREFIX}{field.upper()}): {name} at {host}:{port} takes no connection: {reason}"
                )
            if not told:
                announce(f"waiting for {name} at {host}:{port}")
                told = True
            time.sleep(_PAUSE_SECONDS)
    return plan


def _address(name: str, url: str) -> tuple[str, int] | None:
    """Return where to connect; None for a unix socket, or several hosts, which are the driver's to try."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if not parts.hostname or "," in parts.netloc:
        return None
    if port is None and parts.scheme in ("http", "https"):
        port = 443 if parts.scheme == "https" else 80
    return parts.hostname, port or _PORTS[name]


def _why_not(host: str, port: int) -> str | None:
    try:
        socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
    except TimeoutError:
        return f"no answer within {_CONNECT_SECONDS:g} s"
    except OSError as error:
        return (error.strerror or type(error).__name__).lower()
    return None
