"""`python -P -m flows.worker`: the engine's worker.

The template's imports and warm-up take longest, so it is started first and everything else happens beside it: Prefect
is imported, the server awaited, the pool and the deployments registered, the sweep done, and polling begins. A run
that arrives meanwhile waits in this process for the template.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flows import environment
from flows.claims import Claims
from flows.forkserver import ForkServer, TemplateFailed
from flows.wake import Pace
from gpt_trader.errors import EngineUnreachable, GptTraderError
from gpt_trader.settings import Home, Settings, home, load_settings
from gpt_trader.strategies.registry import BUILT_IN
from storage.database import app_url, ensure_databases, migrate, wait_ready
from storage.database import engine as database_engine

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

    from flows.warm import WarmWorker

logger = logging.getLogger("gpt_trader.worker")

#: What every child needs, imported once: Prefect's engine and client, and what they import late. Then our flows.
PREFECT: Final = (
    "prefect.flow_engine",
    "prefect.task_engine",
    "prefect.client.orchestration",
    "prefect.events.clients",
    "prefect.runner._hook_runner",
    "flows.rehearsal",
    "anyio._backends._asyncio",
    "encodings.idna",
    "rich._emoji_codes",
    "prefect.utilities.visualization",
)

PRELOAD: Final = (
    *PREFECT,
    "flows.backtest",
    "flows.data",
    "flows.optimize",
    "flows.portfolio",
    "gpt_trader.backtesting.report.page",
    "gpt_trader.backtesting.report.picture",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    *(path.partition(":")[0] for path in BUILT_IN.values()),
)

#: Called after the imports. `warm_up` compiles and runs the simulation once, so that no run pays for it.
WARM: Final = ("flows.rehearsal:rehearse", "gpt_trader.backtesting.engine:warm_up")

#: Called when the template has been idle for a second: what a run would build for itself, in half a second more.
LATER: Final = (
    "tasks.provenance:remember",
    "gpt_trader.backtesting.warm:report",
    "gpt_trader.calendars:read_common",
)

#: How often the claims of a life before are looked at, while there are any.
_SWEEP_SECONDS: Final = 1.0

_CLEAN_SECONDS: Final = 24 * 3600.0

#: A poll that is not answered within this long is given up and made again.
_POLL_SECONDS: Final = 15.0

#: The database starts beside us; the first start initializes it.
_DATABASE_SECONDS: Final = 120.0

#: A worker told to stop gives its runs this long; the supervisor allows it a little more.
DRAIN_SECONDS: Final = 15.0


@dataclass
class Ready:
    """The ready mark `state/worker.json`, replaced as a whole at each change."""

    path: Path

    def write(self, state: str, **more: Any) -> None:  # noqa: ANN401 - JSON values
        """Write the state of the worker: `starting` or `ready`, its pid, and what else is known."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".draft")
        draft.write_text(json.dumps({"state": state, "pid": os.getpid(), **more}), encoding="utf-8")
        draft.replace(self.path)

    def remove(self) -> None:
        """Take the mark away."""
        self.path.unlink(missing_ok=True)


def main(
    preload: Sequence[str] = PRELOAD,
    warm: Sequence[str] = WARM,
    later: Sequence[str] = LATER,
    folder: Path | None = None,
) -> int:
    """Run the worker until SIGTERM or SIGINT; return the exit code. For the arguments see `serve`."""
    try:
        settings, engine = load_settings(), home()
    except GptTraderError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    environment.adopt(environment.for_worker(settings, engine))
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each poll would be all there is
    return asyncio.run(serve(settings, engine, preload=preload, warm=warm, later=later, folder=folder))


async def serve(
    settings: Settings,
    engine: Home,
    *,
    preload: Sequence[str],
    warm: Sequence[str],
    later: Sequence[str],
    folder: Path | None,
) -> int:
    """Serve the work pool until a signal; return 0, or 1 if the template cannot be started.

    Args:
        settings: The engine's settings.
        engine: The engine's home.
        preload: Modules that the template imports.
        warm: `module:function` names that the template calls then.
        later: `module:function` names that it calls when it has nothing to do.
        folder: Whose `prefect.yaml` to register; None: the installation's.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    mark = Ready(engine.state / "worker.json")
    mark.write("starting")
    code = 0
    async with AsyncExitStack() as stack:
        stack.callback(mark.remove)
        forks = await stack.enter_async_context(ForkServer(preload, warm, os.environ, later))
        serving = asyncio.create_task(_serve(settings, engine, forks, mark, folder), name="serving")
        stopping = asyncio.create_task(stop.wait(), name="stop signal")
        await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not serving.done():
            serving.cancel()
        try:
            await serving
        except* asyncio.CancelledError:
            logger.info("Worker stopped")
        except* TemplateFailed as failed:
            logger.error("%s", failed.exceptions[0])  # noqa: TRY400 - its own output holds the traceback
            code = 1
        except* GptTraderError as refused:
            for error in refused.exceptions:
                logger.error("%s", error)  # noqa: TRY400 - its message says what to do
            code = GptTraderError.exit_code if isinstance(refused.exceptions[0], EngineUnreachable) else 2
    return code


async def _serve(
    settings: Settings, engine: Home, forks: ForkServer, mark: Ready, folder: Path | None
) -> None:
    """Get everything ready, then poll until cancelled; end the runs under way then."""
    await asyncio.to_thread(_import_prefect)  # beside the template's own imports
    from prefect.client.orchestration import get_client

    from flows import deployments
    from flows.sweep import sweep
    from flows.warm import WarmWorker

    await asyncio.to_thread(_database_up, settings, engine)
    claims = Claims(engine)
    async with get_client() as client:
        await _server_up(client)
        registered = await deployments.register(client, folder or deployments.INSTALLATION)
        logger.info("Deployments: %s", registered)
        for flow_run in await sweep(client, claims):
            await _record(flow_run)
    worker = WarmWorker(
        work_pool_name=deployments.WORK_POOL,
        name=f"gpt-trader-{os.uname().nodename}-{os.getpid()}",
        limit=settings.worker_limit,
        forks=forks,
        claims=claims,
        concluded=_record,
    )
    async with worker, asyncio.TaskGroup() as group:
        group.create_task(_mark_ready(forks, mark))
        group.create_task(_sweep_inherited(worker.client, claims))
        group.create_task(_keep_clean())
        group.create_task(_sync(worker))
        pace = Pace(app_url(settings, engine), settings.worker_poll_seconds)
        listening = group.create_task(pace.listen())
        try:
            await _poll(worker, pace)
        finally:
            listening.cancel()
            await _drain(worker)


async def _drain(worker: WarmWorker) -> None:
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            await worker.drain()
    except TimeoutError:  # the server is away as well: the claims stay, and the next start settles the runs
        logger.warning("Stopped before every run's end could be reported; the next start does it")


def _database_up(settings: Settings, engine: Home) -> None:
    """Wait for our database, which starts beside us, and bring it to this version (whoever comes first does)."""
    wait_ready(settings, engine, _DATABASE_SECONDS)
    ensure_databases(settings, engine)
    migrate(database_engine(settings, engine))


def _import_prefect() -> None:
    """Import what `_serve` needs, in a thread: the loop keeps listening to the template and to signals."""
    import flows.deployments
    import flows.hooks
    import flows.warm  # noqa: F401


async def _server_up(client: PrefectClient) -> None:
    """Wait quietly until Prefect's server answers: it starts side by side with us."""
    while await client.api_healthcheck() is not None:  # noqa: ASYNC110 - another process: no event to await
        await asyncio.sleep(0.1)


async def _mark_ready(forks: ForkServer, mark: Ready) -> None:
    """Keep the mark true: ready while the template is warm."""
    while True:
        await forks.ready()
        mark.write("ready", template_pid=forks.pid)
        logger.info("Ready: the template %s is warm", forks.pid)
        await forks.lost()
        mark.write("starting")


async def _sweep_inherited(client: PrefectClient, claims: Claims) -> None:
    """Settle the runs whose processes outlived their worker, as soon as they too are gone."""
    import httpx

    from flows.sweep import sweep

    while claims.inherited():
        await asyncio.sleep(_SWEEP_SECONDS)
        try:
            for flow_run in await sweep(client, claims):
                await _record(flow_run)
        except httpx.HTTPError as error:
            logger.debug("Cannot sweep yet: %s", error)


async def _keep_clean() -> None:
    """Remove what killed writers left and what is no longer kept, at the start and once a day."""
    from sqlalchemy.exc import InterfaceError, OperationalError

    from tasks.stores import stores

    while True:
        try:
            folders = await asyncio.to_thread(stores().runs.sweep_leftovers)
            expired = await asyncio.to_thread(
                stores().events.expire, timedelta(days=stores().settings.keep_events_days)
            )
        except (OperationalError, InterfaceError) as error:
            logger.debug("Cannot clean up now: %s", error)
        else:
            if folders or expired:
                logger.info("Removed %d unfinished run folders and %d old events", folders, expired)
        await asyncio.sleep(_CLEAN_SECONDS)


async def _poll(worker: WarmWorker, pace: Pace) -> None:
    """Ask for scheduled runs for ever; while the server is away, ask less often and say so once."""
    import httpx

    away = 0
    this = asyncio.current_task()
    assert this is not None
    while (
        not this.cancelling()
    ):  # a client that is connecting may take a cancellation for a failure of its own
        try:
            async with asyncio.timeout(_POLL_SECONDS):  # the client itself would try for minutes
                if await worker.get_and_submit_flow_runs():
                    pace.busy()
        except (httpx.HTTPError, TimeoutError) as error:
            away += 1
            if away == 1:
                logger.warning("Prefect's server does not answer (%s); waiting for it", type(error).__name__)
        else:
            if away:
                logger.info("Prefect's server answers again")
            away = 0
        await (asyncio.sleep(min(0.1 * 2**away, 2.0)) if away else pace.pause())
    raise asyncio.CancelledError


async def _sync(worker: WarmWorker) -> None:
    """Keep the worker's heartbeat and its copy of the work pool up to date."""
    import httpx

    while True:
        await asyncio.sleep(worker.heartbeat_interval_seconds)
        try:
            await worker.sync_with_backend()
        except httpx.HTTPError as error:
            logger.debug("Heartbeat failed: %s", error)


async def _record(flow_run: FlowRun | None) -> None:
    """Tell the event log a state that the run's own hooks may not have told."""
    from sqlalchemy.exc import InterfaceError, OperationalError

    from flows.hooks import state_event
    from gpt_trader.errors import EngineUnreachable
    from gpt_trader.runs import channel_of
    from tasks.stores import stores

    if flow_run is None or flow_run.state is None:
        return
    logger.info("Run %s: %s (%s)", flow_run.id, flow_run.state.name, flow_run.state.message)
    event = state_event(flow_run.state)
    try:
        await asyncio.to_thread(
            lambda: stores().events.append_many(channel_of(flow_run.id), [event])  # stores() may read files
        )
    except (OperationalError, InterfaceError, EngineUnreachable) as error:
        logger.warning("The event log does not have the end of run %s: %s", flow_run.id, error)


if __name__ == "__main__":
    sys.exit(main())
