"""One flow run in a process of its own, as a worker starts it: `python -m tests.api.flow_process RUN_ID`."""

from __future__ import annotations

import sys
from importlib import import_module
from uuid import UUID


def main(run_id: UUID) -> None:
    from prefect.client.orchestration import get_client
    from prefect.engine import handle_engine_signals
    from prefect.flow_engine import run_flow

    from gpt_trader.slices import SLICES

    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_run(run_id)
    name = next(tag.removeprefix("slice:") for tag in flow_run.tags if tag.startswith("slice:"))
    module, _, function = SLICES[name].flow.rpartition(".")
    with handle_engine_signals(run_id):
        run_flow(getattr(import_module(module), function), flow_run=flow_run)


if __name__ == "__main__":
    main(UUID(sys.argv[1]))
