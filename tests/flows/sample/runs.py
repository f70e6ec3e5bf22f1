"""Flows that end in every way a run can end, each telling the event log as ours do."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow

from flows.hooks import HOOKS, progress


def _note_hook(flow: Flow[..., object], flow_run: FlowRun, state: State) -> None:
    folder = Path(flow_run.parameters["folder"])
    (folder / f"hook-{state.type.value}").write_text(str(os.getpid()))


@flow(**HOOKS)
def adds(a: int, b: int) -> int:
    """Add, saying so in each way there is."""
    progress("adding", 0, 1)
    print(f"printed {a} + {b}")  # noqa: T201 - that a print is logged is what is tested
    get_run_logger().info("logged %d", a + b)
    progress("adding", 1, 1)
    return a + b


@flow(**HOOKS)
def fails() -> None:
    """Raise."""
    raise ValueError("no such luck")


@flow(
    **{
        **HOOKS,
        "on_cancellation": [*HOOKS["on_cancellation"], _note_hook],
        "on_crashed": [*HOOKS["on_crashed"], _note_hook],
    }
)
def waits(folder: str) -> None:
    """Note the process in `folder`, then wait until something ends it; `finally` notes that it ran."""
    try:
        (Path(folder) / "started").write_text(str(os.getpid()))
        threading.Event().wait()
    finally:
        (Path(folder) / "finally").touch()


@flow(**HOOKS)
def meets(folder: str, me: str, other: str) -> None:
    """Return once the other run is there too: only runs side by side get there."""
    (Path(folder) / me).touch()
    pause = threading.Event()
    while not (Path(folder) / other).exists():
        pause.wait(0.02)
