"""Runs a flow function in this process, for debugging: breakpoints and tracebacks are here, the run is recorded there.

The one module of the CLI that imports flows, and only when asked. The engine's Prefect and database are used, so
the run is visible and its result is the same as the worker's.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from cli.runs.follow import demand_completed
from cli.terminal.options import current, say
from gpt_trader.errors import EngineUnreachable
from gpt_trader.runs import LOCAL, tags_of
from gpt_trader.settings import ENV_PREFIX, home, load_settings
from gpt_trader.slices import SLICES

if TYPE_CHECKING:
    from cli.client.api import Client, Json
    from cli.runs.prepare import Prepared


def run_in_process(name: str, prepared: Prepared, client: Client) -> Json:
    """Run the slice's flow here and return its result as the API gives it.

    Raises:
        RunFailed: the flow ended without a result; with `--verbose` its own exception follows as the cause.
    """
    prepared.register(client)
    _use_engine()
    say("loading the flow: this takes some seconds, the warm worker has done it before")
    module, _, function = SLICES[name].flow.rpartition(".")
    flow: Any = getattr(import_module(module), function)
    # Not by its name: in the CLI nothing but this function may load Prefect.
    tags = import_module("prefect").tags
    with tags(*tags_of(LOCAL, name, prepared.request)):
        state = flow(prepared.request, return_state=True)
    run_id = str(state.state_details.flow_run_id)
    if current().verbose and not state.is_completed():
        state.result(raise_on_failure=True)
    demand_completed(run_id, {"state": str(state.type.value), "message": state.message})
    return client.result(run_id)


def _use_engine() -> None:
    """Point this process at the engine's Prefect, before Prefect is imported."""
    from cli.engine.plan import another_prefects
    from cli.engine.running import find_engine
    from cli.engine.start import ensure_engine

    address = find_engine(home()) or ensure_engine(load_settings(), home(), say=say)
    if not address.prefect_url:
        raise EngineUnreachable("this engine has no Prefect server: gpt-trader status")
    for name in another_prefects(os.environ):
        del os.environ[name]
    os.environ["PREFECT_API_URL"] = f"{address.prefect_url}/api"
    os.environ["PREFECT_HOME"] = str(home().prefect)
    os.environ[f"{ENV_PREFIX}HOME"] = str(home().root)
    # The CLI's own (see cli.main); a flow runs as in the worker.
    os.environ.pop("PYDANTIC_DISABLE_PLUGINS", None)
    # Prefect writes its log on stderr, and says more than a result needs.
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "DEBUG" if current().verbose else "WARNING")
