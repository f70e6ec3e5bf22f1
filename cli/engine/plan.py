"""From settings to what one supervisor runs: which parts, on which ports, in which environment."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cli.engine.parts import HEALTH, FileProbe, HttpProbe, Part, PostmasterProbe
from cli.engine.ports import Port, choose_port
from cli.engine.record import PARTS
from gpt_trader.errors import Problem, Refused, UnknownName
from gpt_trader.settings import ENV_PREFIX, Home, Settings

#: What of the caller's Prefect environment reaches our parts: credentials and logging. Addresses, profiles and
#: databases of another Prefect would lead them astray.
_PREFECT_KEPT: Final = (
    "PREFECT_API_KEY",
    "PREFECT_API_AUTH_STRING",
    "PREFECT_SERVER_API_AUTH_STRING",
    "PREFECT_LOGGING_",
)
#: A client's own, and none of a part's business.
_CLIENT_ONLY: Final = frozenset({f"{ENV_PREFIX}{name}" for name in ("API_KEY", "SERVER", "OUTPUT")})
#: What names the address of a part that runs elsewhere.
SETTINGS: Final = {"database": "database_url", "prefect": "prefect_api_url"}
_LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True)
class Plan:
    """What a supervisor runs.

    Attributes:
        parts: In starting order; stopped in reverse.
        external: Address of each part that runs elsewhere.
        environment: The whole environment of every part.
        api_url: Bare origin of the API, if one is known.
        prefect_url: Bare origin of the Prefect server, if one is known.
        notes: What the user should be told before the start (another port than usual, …).
        ports: Held until the supervisor ends.
    """

    parts: tuple[Part, ...]
    external: dict[str, str]
    environment: dict[str, str]
    api_url: str | None
    prefect_url: str | None
    notes: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()


def make_plan(settings: Settings, home: Home, only: Collection[str] = ()) -> Plan:
    """Decide what to run.

    Args:
        settings: The merged settings.
        home: The engine's home.
        only: Names of the parts to run here; empty means all that do not run elsewhere.

    Raises:
        Refused: An unknown part, a part whose server is neither here nor given by a setting, or a taken port.
    """
    external = _external(settings)
    here = _parts_here(only, external)
    _check_given(here, settings)
    if "prefect" in here:
        settings.check_prefect_guarded(os.environ)
    ports = _choose_ports(settings, here)
    urls = {name: _origin(_reached_at(settings, name), port.number) for name, port in ports.items()}
    prefect_url = urls.get("prefect", external.get("prefect"))
    prefect_api = settings.prefect_api_url or (f"{prefect_url}/api" if prefect_url else None)
    environment = part_environment(settings, home, os.environ)
    environment |= {f"{ENV_PREFIX}{name.upper()}_PORT": str(port.number) for name, port in ports.items()}
    if prefect_api:
        environment["PREFECT_API_URL"] = prefect_api
    guard = environment.get("PREFECT_SERVER_API_AUTH_STRING")
    if guard and "prefect" in here:
        environment.setdefault("PREFECT_API_AUTH_STRING", guard)  # our own parts call it too
    return Plan(
        parts=tuple(_part(name, home, urls) for name in here),
        external=external,
        environment=environment,
        api_url=urls.get("api"),
        prefect_url=prefect_url,
        notes=_notes(ports),
        ports=tuple(ports.values()),
    )


def settings_environment(settings: Settings) -> dict[str, str]:
    """Return the settings that were given (not the defaults) as environment names and values."""
    given = {name: settings.plain(name) for name in settings.model_fields_set}
    return {f"{ENV_PREFIX}{name.upper()}": _text(value) for name, value in given.items() if value is not None}


def part_environment(settings: Settings, home: Home, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a part: the caller's, without what would lead it astray, plus ours."""
    astray = {*another_prefects(environ), *_CLIENT_ONLY}
    kept = {name: value for name, value in environ.items() if name not in astray}
    return (
        kept
        | settings_environment(settings)
        | python_environment(environ)
        | {
            f"{ENV_PREFIX}HOME": str(home.root),
            "PREFECT_HOME": str(home.prefect),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }
    )


def another_prefects(environ: Mapping[str, str]) -> list[str]:
    """Return the names by which the caller's environment would lead our flows to another Prefect."""
    return [name for name in environ if name.startswith("PREFECT_") and not name.startswith(_PREFECT_KEPT)]


def python_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what makes `python -P -m <our module>` find our packages before anyone else's `api` or `tasks`."""
    ours = str(Path(__file__).resolve().parents[2])
    others = [entry for entry in environ.get("PYTHONPATH", "").split(os.pathsep) if entry and entry != ours]
    return {
        "PYTHONPATH": os.pathsep.join([ours, *others]),
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",  # a killed part's last words are in its log
    }


def _external(settings: Settings) -> dict[str, str]:
    found = {}
    if settings.database_url is not None:
        found["database"] = _without_credentials(settings.database_url.get_secret_value())
    if settings.prefect_api_url is not None:
        found["prefect"] = _without_credentials(settings.prefect_api_url).removesuffix("/api")
    return found


def _parts_here(only: Collection[str], external: Mapping[str, str]) -> tuple[str, ...]:
    for name in only:
        if name not in PARTS:
            raise UnknownName.among("only", name, PARTS)
        if name in external:
            given = SETTINGS[name]
            raise Refused.of(
                Problem("only", name, f"runs elsewhere: {given} is set", "unset it to run it here")
            )
    return tuple(name for name in PARTS if name not in external and (not only or name in only))


def _check_given(here: Collection[str], settings: Settings) -> None:
    """Raise Refused when a part would look for a server that is neither run here nor given by a setting."""
    needed = {"database": {"worker", "api"}, "prefect": {"worker", "api"}}
    if settings.prefect_database_url is None:
        needed["database"].add("prefect")
    given = {"database": settings.database_url, "prefect": settings.prefect_api_url}
    for server, users in needed.items():
        waiting = [name for name in here if name in users]
        if waiting and server not in here and given[server] is None:
            field = SETTINGS[server]
            raise Refused.of(
                Problem(
                    field,
                    None,
                    f"{' and '.join(waiting)} cannot run without {server}",
                    f"set {ENV_PREFIX}{field.upper()}, or add {server} to --only",
                )
            )


def _choose_ports(settings: Settings, here: Collection[str]) -> dict[str, Port]:
    hosts = {"api": settings.api_host, "prefect": settings.prefect_host}
    return {
        name: choose_port(
            f"{name}_port",
            getattr(settings, f"{name}_port"),
            host=host,
            chosen=settings.chosen(f"{name}_port"),
        )
        for name, host in hosts.items()
        if name in here
    }


def _notes(ports: Mapping[str, Port]) -> tuple[str, ...]:
    moved = [
        f"port {port.wanted} is taken: {name} uses {port.number}"
        for name, port in ports.items()
        if port.moved
    ]
    root = [] if os.geteuid() else ["warning: running as root; an ordinary user's account would be safer"]
    return (*root, *moved)


def _part(name: str, home: Home, urls: Mapping[str, str]) -> Part:
    python = (sys.executable, "-P", "-m")
    match name:
        case "database":
            return Part(
                name,
                (*python, "storage.postgres"),
                PostmasterProbe(home.database / "cluster" / "data" / "postmaster.pid"),
                orphan_seconds=20.0,  # a server whose front was killed shuts down; the next waits for it
            )
        case "prefect":
            probe = HttpProbe(urls[name], HEALTH[name])
            return Part(name, (*python, "flows.server"), probe, urls[name])
        case "worker":
            return Part(
                name,
                (*python, "flows.worker"),
                FileProbe(home.state / "worker.json"),
                stop_seconds=21.0,  # flows.worker.DRAIN_SECONDS, and a little more
                orphan_seconds=11.0,  # flows.template.GRACE_SECONDS, and a little more
            )
        case "api":
            probe = HttpProbe(urls[name], HEALTH[name])
            return Part(name, (*python, "api.main"), probe, urls[name])
    raise AssertionError(name)


def _reached_at(settings: Settings, name: str) -> str:
    wildcards = {"0.0.0.0": _LOOPBACK, "::": "::1"}  # noqa: S104 -- compared, not bound
    host: str = getattr(settings, f"{name}_host")
    return wildcards.get(host, host)


def _origin(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _text(value: object) -> str:
    reveal = getattr(value, "get_secret_value", None)
    if reveal is not None:
        return str(reveal())
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return json.dumps(value) if isinstance(value, bool | dict) else str(value)
