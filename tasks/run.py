"""The run that this process is: its id, owner and record."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from prefect import runtime

from gpt_trader.requests import Request
from gpt_trader.runs import owner_of
from gpt_trader.strategies import user
from tasks.stores import stores


@dataclass(frozen=True)
class CurrentRun:
    """One flow run; its id is the run id on every face."""

    id: UUID
    slice: str
    owner: str


def run_name() -> str:
    """Return what the Prefect UI calls the current run: `momentum-AAPL`."""
    request = runtime.flow_run.parameters["request"]
    request = request if isinstance(request, dict) else request.model_dump()
    strategy = str(request.get("strategy", "momentum"))
    stored = user.parse_stored_id(strategy)
    return f"{stored[1] if stored else strategy}-{request['symbol']}"


def begin_run(slice_name: str, request: Request) -> CurrentRun:
    """Return the current flow run, recorded with its request (the API has recorded those that it started)."""
    run = CurrentRun(UUID(str(runtime.flow_run.id)), slice_name, owner_of(list(runtime.flow_run.tags)))
    stores().runs.register(run.id, run.slice, run.owner, request.model_dump(mode="json"))
    return run
