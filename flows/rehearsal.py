"""What the template does to Prefect so that a forked child starts its run at once.

Imported and called in the template only (`--warm flows.rehearsal:rehearse`): the interpreters of a stock worker run
Prefect as it is, and runs must come out the same there. Each change is one of time, with its reason. Prefect's version
is pinned because of it, and a name that is gone stops the template with a message that says so.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import ssl
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Final
from uuid import UUID

import prefect._flow_run_suspension as suspension
from prefect import flow_engine, results
from prefect.client import orchestration
from prefect.settings import get_current_settings
from pydantic import BaseModel

#: A run that takes longer than this is watched for a suspension from outside.
WATCH_AFTER_SECONDS: Final = 2.0


def rehearse() -> None:
    """Build what is built on first use, and replace what makes every run wait."""
    for model in _subclasses(BaseModel):
        if (
            not model.__pydantic_complete__
        ):  # deferred by Prefect to its first use, ~10 ms each in every child
            model.model_rebuild(raise_errors=False)
    _replace(flow_engine, "observe_flow_run_suspension", observe_long_runs)
    _replace(results, "_read_server_default_result_storage_block_id", _default_storage)
    _replace(results, "_aread_server_default_result_storage_block_id", _default_storage_async)
    shared = SimpleNamespace(**{**vars(ssl), "create_default_context": _shared_context})
    _replace(orchestration, "ssl", shared)
    orchestration.SyncPrefectClient(
        get_current_settings().api.url or "http://127.0.0.1"
    )  # connects to nothing yet


def _replace(module: ModuleType, name: str, replacement: object) -> None:
    """Replace a module's name, which must be there: another version of Prefect may have moved it."""
    if not hasattr(module, name):
        raise RuntimeError(
            f"{module.__name__} has no {name}: flows.rehearsal is for another version of Prefect"
        )
    setattr(module, name, replacement)


def _subclasses(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for derived in model.__subclasses__():
        yield derived
        yield from _subclasses(derived)


_read_default_storage = results._read_server_default_result_storage_block_id


@functools.cache
def _default_storage() -> UUID | None:
    """Return the server's default result storage, asked for once a child; Prefect asks for each flow and task."""
    return _read_default_storage()


async def _default_storage_async() -> UUID | None:
    return await asyncio.to_thread(_default_storage)


@functools.cache
def _shared_context(cafile: str | None = None) -> ssl.SSLContext:
    """Return one TLS context for all clients: reading the certificates takes 20 ms, and each client would."""
    return ssl.create_default_context(cafile=cafile)


@contextmanager
def observe_long_runs(
    flow_run_id: UUID, suspension_request: suspension.FlowRunSuspensionRequest, polling_interval: float = 10
) -> Generator[None, None, None]:
    """Watch for a suspension as Prefect does, but only once the run has lasted a while.

    Prefect's observer connects a websocket before the flow may start and is joined in steps of 0.2 s when it ends:
    0.3 s of every run. It reads the run's state when it starts, so one that starts late has missed nothing.
    """
    ended = threading.Event()

    def watch() -> None:
        if not ended.wait(WATCH_AFTER_SECONDS):
            with suspension.observe_flow_run_suspension(flow_run_id, suspension_request, polling_interval):
                ended.wait()

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(watch,), name="suspension watch", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
