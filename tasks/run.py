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
    """Return what the Prefect UI calls the current run: `momentum-AAPL`, or `equal-500-symbols` for a portfolio."""
    request = runtime.flow_run.parameters["request"]
    request = request if isinstance(request, dict) else request.model_dump()
    strategy = str(request.get("strategy") or request.get("weights") or "momentum")
    stored = user.parse_stored_id(strategy)
    about = request.get("symbol") or f"{len(request['symbols'])}-symbols"
    return f"{stored[1] if stored else strategy}-{about}"


def session_run_name() -> str:
    """Return what the Prefect UI calls a run of a paper session: its name, or its legs: `momentum-AAPL-and-2-more`."""
    request = runtime.flow_run.parameters["request"]
    request = request if isinstance(request, dict) else request.model_dump(mode="json")
    if request.get("session"):
        return f"session-{request['session']}"
    legs = request.get("legs") or [{}]
    first = legs[0] if isinstance(legs[0], dict) else {}
    strategy = str(first.get("strategy") or request.get("strategy") or "momentum")
    stored = user.parse_stored_id(strategy)
    symbol = first.get("symbol") or request.get("symbol")
    more = f"-and-{len(legs) - 1}-more" if len(legs) > 1 else ""
    return request.get("name") or f"{stored[1] if stored else strategy}-{symbol}{more}"


def begin_run(slice_name: str, request: Request) -> CurrentRun:
    """Return the current flow run, recorded with its request (the API has recorded those that it started)."""
    run = CurrentRun(UUID(str(runtime.flow_run.id)), slice_name, owner_of(list(runtime.flow_run.tags)))
    stores().runs.register(run.id, run.slice, run.owner, request.model_dump(mode="json"))
    return run
