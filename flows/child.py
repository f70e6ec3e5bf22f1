"""What a forked child does: become the run's own process, then do what `python -m prefect.engine` does.

The differences to a fresh interpreter are two: the flow of a deployment that the template holds is taken from memory,
and the flow run as the worker read it is not read again. Everything else (control channel, signals, exit codes, log
flushing) is Prefect's own.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import signal
import sys
import threading
import time
import traceback
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.schemas.objects import FlowRun

#: Seconds between SIGTERM and SIGKILL for a child that loses the worker.
GRACE_SECONDS: Final = 10.0


def live(order: dict[str, Any], lifeline: int) -> NoReturn:
    """Run the order in this forked process and leave it with the exit code a fresh interpreter would have."""
    code = 1
    try:
        _become(order, lifeline)
        code = _exit_code(order)
    except BaseException:  # noqa: BLE001 - the last frame of the process: what escapes is its exit code
        traceback.print_exc()
    finally:
        _leave(code)


def _exit_code(order: dict[str, Any]) -> int:
    try:
        _hooks(order) if order["hooks"] else _engine(order)
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    return 0


def _become(order: dict[str, Any], lifeline: int) -> None:
    """Take on the run's session, signals, environment, folder, and randomness."""
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    if not order["stream_output"]:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
    _settle_environment(order["env"])
    os.chdir(order["cwd"])
    random.seed()
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()  # every child would otherwise draw the template's numbers
    threading.Thread(target=_hang_on, args=(lifeline,), name="lifeline", daemon=True).start()


def _settle_environment(environment: dict[str, str]) -> None:
    """Replace the environment; read Prefect's settings anew only if it changes one (a job variable may)."""
    from prefect.context import refresh_global_settings_context
    from prefect.settings import get_current_settings

    before = _prefect_settings() | get_current_settings().to_environment_variables(exclude_unset=True)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    if any(before.get(name) != value for name, value in _prefect_settings().items()):
        refresh_global_settings_context()


def _prefect_settings() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith("PREFECT_") and not name.startswith("PREFECT__")
    }


def _hang_on(lifeline: int) -> None:
    """Wait until the template is gone; then terminate this process, and its group if it does not go."""
    os.read(lifeline, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.killpg(os.getpgid(0), signal.SIGKILL)


def _engine(order: dict[str, Any]) -> None:
    """Mirror `prefect.engine.__main__` for a flow run that is known already."""
    from prefect._internal.control_listener import configure_from_env
    from prefect._internal.metrics import RunMetrics
    from prefect.client.schemas.objects import FlowRun
    from prefect.engine import _drive_run_flow_result, handle_engine_signals
    from prefect.flow_engine import run_flow
    from prefect.logging.loggers import flow_run_logger

    configure_from_env()
    flow_run = FlowRun.model_validate(order["flow_run"])
    with handle_engine_signals(flow_run.id):
        logger = flow_run_logger(flow_run=flow_run)
        try:
            flow = _flow(order, flow_run)
        except Exception:
            logger.exception("Unexpected exception encountered when trying to load flow")
            raise
        with RunMetrics(flow_run, flow), _heartbeats():
            _drive_run_flow_result(flow, run_flow(flow, flow_run=flow_run, error_logger=logger))  # type: ignore[arg-type]  # as Prefect does


def _heartbeats() -> AbstractContextManager[object]:
    """Turn flow heartbeats off unless the run's environment asks for them.

    Their thread sleeps in whole seconds and a flow's exit joins it, which holds a finished run's slot for up to one;
    the worker sees a dead child at once without them. Prefect's setting takes no value for "off" from the environment.
    """
    from prefect.context import SettingsContext, get_settings_context

    if "PREFECT_FLOWS_HEARTBEAT_FREQUENCY" in os.environ:
        return contextlib.nullcontext()
    context = get_settings_context()
    flows = context.settings.flows.model_copy(update={"heartbeat_frequency": None})
    return SettingsContext(
        profile=context.profile, settings=context.settings.model_copy(update={"flows": flows})
    )


def _hooks(order: dict[str, Any]) -> None:
    """Run the flow's hooks of a state that the run's own process could not run any more."""
    from prefect.client.schemas.objects import FlowRun, State
    from prefect.runner._hook_runner import _run_hooks
    from prefect.utilities.asyncutils import run_coro_as_sync

    flow_run = FlowRun.model_validate(order["flow_run"])
    state: State[Any] = State.model_validate(order["state"])
    flow = _flow(order, flow_run)
    hooks = flow.on_crashed_hooks if state.is_crashed() else flow.on_cancellation_hooks
    run_coro_as_sync(_run_hooks(hooks or [], flow_run, flow, state))


def _flow(order: dict[str, Any], flow_run: FlowRun) -> Flow[..., Any]:
    """Return the deployment's flow: from memory if the template holds it, else as Prefect loads it."""
    entrypoint, folder = order["entrypoint"], order["folder"]
    if entrypoint and folder and "PREFECT__FLOW_ENTRYPOINT" not in os.environ:
        path, _, name = entrypoint.partition(":")
        file = str((Path(folder) / path).resolve())
        for module in list(sys.modules.values()):
            if (
                getattr(module, "__file__", None) == file
                and (flow := getattr(module, name, None)) is not None
            ):
                os.chdir(folder)
                return flow  # type: ignore[no-any-return]  # an attribute of a module has no static type
    from prefect.flow_engine import load_flow

    return load_flow(flow_run)


def _leave(code: int) -> NoReturn:
    """End as an interpreter does: join threads, run exit functions (they flush logs and events), flush, exit."""
    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]  # what Py_Finalize calls first
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
