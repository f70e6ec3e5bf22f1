"""Flow runs in processes of their own, forked from one that has imported everything, as the warm worker's are.

Reads a run's id a line, answers with the pid of the process that runs it, and ends with its input.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from importlib import import_module
from uuid import UUID


def main() -> None:
    from gpt_trader.slices import SLICES

    for name in ("prefect.engine", "prefect.flow_engine", "prefect.client.orchestration"):
        import_module(name)
    for row in SLICES.values():
        import_module(row.flow.rpartition(".")[0])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how they ended
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _live(UUID(line.strip()))
        print(pid, flush=True)  # noqa: T201 - the answer


def _live(run_id: UUID) -> None:
    code = 1
    try:
        _run(run_id)
        code = 0
    except BaseException:  # noqa: BLE001 - the last frame of a forked process
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _run(run_id: UUID) -> None:
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
    main()
