"""The warm worker: Prefect's process worker whose processes are forked instead of started (ADR: warm worker).

Type `process`: the same work pool is served by this worker and by `prefect worker start --type process`. A deployment
that names its own `command` gets it, started as the stock worker starts it.

What differs on the way from a scheduled run to its process, each for latency and none for the result: the deployment
is read once (the stock worker: twice, one after the other) and a flow's record once a worker; the process id is noted
beside the run and for runs that last; the worker's labels and the intermediate state `Submitting` are left out.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import anyio
import anyio.abc
import httpx
from prefect.exceptions import Abort, ObjectNotFound
from prefect.settings import get_current_settings
from prefect.states import Pending
from prefect.utilities.engine import propose_state
from prefect.utilities.processutils import sanitize_subprocess_env
from prefect.workers.base import BaseWorker
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker, ProcessWorkerResult

from flows.claims import Claims
from flows.forkserver import ForkOrder, ForkServer
from flows.supervision import Supervision, handle_of
from flows.sweep import settle

if TYPE_CHECKING:
    from prefect.client.schemas.objects import Flow as FlowRecord
    from prefect.client.schemas.objects import FlowRun, State
    from prefect.client.schemas.responses import DeploymentResponse
    from prefect.runner._control_channel import ControlChannel
    from prefect.runner._process_manager import ProcessHandle

logger = logging.getLogger("gpt_trader.worker")

_WORKING_DIRECTORY_STEP: Final = "prefect.deployments.steps.set_working_directory"

#: A run that lasts longer gets its process id into the server's record, where the UI shows it.
_NOTE_AFTER_SECONDS: Final = 1.0

#: Hooks that run outside of their run's process may take this long.
_HOOK_SECONDS: Final = 60.0


class ForkStarter:
    """Prefect's `ProcessStarter`, by fork: what `EngineCommandStarter` gives a new interpreter, a child gets."""

    def __init__(
        self, forks: ForkServer, control: ControlChannel, configuration: ProcessJobConfiguration, cwd: Path
    ) -> None:
        self._forks = forks
        self._control = control
        self._configuration = configuration
        self._cwd = cwd

    async def start(
        self,
        flow_run: FlowRun,
        task_status: anyio.abc.TaskStatus[ProcessHandle] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Fork, report the handle, and return when the child is gone."""
        port, token = self._control.register(flow_run.id)
        control = {"PREFECT__CONTROL_PORT": str(port), "PREFECT__CONTROL_TOKEN": token}
        try:
            process = await self._forks.fork(
                order_for(flow_run, self._configuration, self._cwd, {**_RUN_ENVIRONMENT, **control})
            )
        except BaseException:
            self._control.unregister(flow_run.id)
            raise
        task_status.started(handle_of(process))
        await process.wait()


#: As the stock worker: states and hooks of a cancelled or crashed run are the worker's to report.
_RUN_ENVIRONMENT: Final = {"PREFECT__ENABLE_CANCELLATION_AND_CRASHED_HOOKS": "false"}


def order_for(
    flow_run: FlowRun,
    configuration: ProcessJobConfiguration,
    cwd: Path,
    extra: dict[str, str],
    **more: Any,  # noqa: ANN401 - fields of ForkOrder, passed through
) -> ForkOrder:
    """Return what a child must know to run (or run the hooks of) `flow_run` as its deployment says."""
    settings = get_current_settings().to_environment_variables(exclude_unset=True)
    environment = {
        **os.environ,
        **settings,
        **configuration.env,
        "PREFECT__FLOW_RUN_ID": str(flow_run.id),
        **extra,
    }
    deployment = configuration._related_objects.get("deployment")
    return ForkOrder(
        flow_run=flow_run.model_dump(mode="json"),
        env=sanitize_subprocess_env(environment),
        cwd=str(cwd),
        entrypoint=deployment.entrypoint if deployment else None,
        folder=_folder(deployment),
        stream_output=configuration.stream_output,
        **more,
    )


def _folder(deployment: DeploymentResponse | None) -> str | None:
    """Return the folder a deployment runs in if setting it is all that its pull steps do."""
    steps = (deployment.pull_steps or []) if deployment else []
    if len(steps) != 1 or list(steps[0]) != [_WORKING_DIRECTORY_STEP]:
        return None
    directory = steps[0][_WORKING_DIRECTORY_STEP].get("directory")
    return str(directory) if directory and "{{" not in directory else None


class ForkedHooks:
    """Runs a flow's cancellation and crash hooks in a child of their own: user code never runs in the worker."""

    def __init__(self, forks: ForkServer) -> None:
        self._forks = forks
        self.configurations: dict[UUID, ProcessJobConfiguration] = {}

    async def run_cancellation_hooks(self, flow_run: FlowRun, state: State) -> None:
        """Run `on_cancellation` hooks, with the server's Cancelling state (`state` is Prefect's stand-in for it)."""
        asked = flow_run.state
        await self._run(flow_run, asked if asked and asked.is_cancelling() else state)

    async def run_crashed_hooks(self, flow_run: FlowRun, state: State) -> None:
        """Run `on_crashed` hooks."""
        await self._run(flow_run, state)

    async def _run(self, flow_run: FlowRun, state: State) -> None:
        configuration = self.configurations[flow_run.id]
        with tempfile.TemporaryDirectory(prefix="gpt-trader-hooks-") as folder:
            order = order_for(
                flow_run, configuration, Path(folder), {}, hooks=True, state=state.model_dump(mode="json")
            )
            process = await self._forks.fork(order)
            try:
                code = await asyncio.wait_for(process.wait(), _HOOK_SECONDS)
            except TimeoutError:
                handle_of(process).hard_kill()
                raise
        if code != 0:
            logger.error("Hooks of run %s for %s ended with code %d", flow_run.id, state.name, code)


class NotOurs(Exception):
    """The server gives the run to somebody else: another worker has it, or it is to wait or has ended."""


class WarmWorker(ProcessWorker):
    """Polls the work pool and forks a child a run from `forks`; `concluded` is told each run's last state."""

    def __init__(
        self,
        *,
        work_pool_name: str,
        name: str,
        limit: int,
        forks: ForkServer,
        claims: Claims,
        concluded: Callable[[FlowRun | None], Awaitable[None]],
    ) -> None:
        super().__init__(
            work_pool_name=work_pool_name, name=name, limit=limit, create_pool_if_not_found=False
        )
        self._forks = forks
        self._claims = claims
        self._hooks = ForkedHooks(forks)
        self._concluded = concluded
        self._supervision: Supervision | None = None
        self._resources = AsyncExitStack()
        self._flows: dict[UUID, FlowRecord] = {}

    @classmethod
    def __dispatch_key__(cls) -> str:
        """Register beside the stock worker, not in its place."""
        return "gpt-trader-warm-process"

    async def __aenter__(self) -> WarmWorker:
        await BaseWorker.__aenter__(
            self
        )  # not ProcessWorker's: it enters a Runner, for ad-hoc submission only
        self._supervision = Supervision(self.name, self.client, self._hooks)
        await self._resources.enter_async_context(self._supervision)
        return self

    async def __aexit__(self, *exc_info: Any) -> None:  # noqa: ANN401 - as in the base class
        try:
            await self._resources.aclose()
        finally:
            await BaseWorker.__aexit__(self, *exc_info)

    @property
    def supervision(self) -> Supervision:
        """The shared supervision; only inside `async with`."""
        assert self._supervision is not None
        return self._supervision

    async def drain(self) -> None:
        """End every run and wait until each is reported: what a SIGTERM means to the stock worker too."""
        while self._submitting_flow_run_ids:
            await self.supervision.end_all()
            await asyncio.sleep(0.02)

    async def _submit_run(self, flow_run: FlowRun) -> None:
        """Take one run from the poll to its last state; nothing that goes wrong with it reaches the others."""
        self._claims.write(flow_run.id)
        ours = True
        try:
            configuration = await self._prepare(flow_run)
            if configuration is not None:
                self._hooks.configurations[flow_run.id] = configuration
                await self._run_and_report(flow_run, configuration)
        except NotOurs as refusal:
            ours = False
            logger.info("Run %s is left to whoever has it: %s", flow_run.id, refusal)
        except httpx.HTTPError as error:
            logger.warning("Lost the server while starting run %s: %r", flow_run.id, error)
        finally:
            if ours:
                await self._conclude(flow_run)
            else:
                self._claims.remove(flow_run.id)
            self._hooks.configurations.pop(flow_run.id, None)
            self._release_limit_slot(flow_run.id)
            self._submitting_flow_run_ids.discard(flow_run.id)

    async def _prepare(self, flow_run: FlowRun) -> ProcessJobConfiguration | None:
        """Propose Pending and read the deployment side by side; None if there is nothing left to run.

        Raises NotOurs where the server gives the run to somebody else.
        """
        reading = asyncio.create_task(self._deployment(flow_run))
        try:
            await self._take(flow_run)
        except BaseException:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            raise
        try:
            deployment = await reading
        except ObjectNotFound:
            message = f"Deployment {flow_run.deployment_id} no longer exists, cancelled run."
            await self._mark_flow_run_as_cancelled(flow_run, state_updates={"message": message})
            return None
        return await self._configuration(flow_run, deployment)

    async def _take(self, flow_run: FlowRun) -> None:
        """Propose Pending; from then on the run is ours to settle.

        The base class says no more than False where another worker was faster, the run was cancelled, or the server
        did not answer: here each of them needs an answer of its own.
        """
        try:
            state = await propose_state(self.client, Pending(), flow_run_id=flow_run.id)
        except Abort as refusal:
            raise NotOurs(str(refusal)) from None
        if not state.is_pending():
            raise NotOurs(f"the server made it {state.name}")

    async def _deployment(self, flow_run: FlowRun) -> DeploymentResponse | None:
        return await self.client.read_deployment(flow_run.deployment_id) if flow_run.deployment_id else None

    async def _configuration(
        self, flow_run: FlowRun, deployment: DeploymentResponse | None
    ) -> ProcessJobConfiguration:
        """Merge the job variables of pool, deployment and run, as `resolve_for_flow_run` does."""
        if flow_run.flow_id not in self._flows:  # a flow's record never changes
            self._flows[flow_run.flow_id] = await self.client.read_flow(flow_run.flow_id)
        job_variables = {**((deployment.job_variables or {}) if deployment else {})}
        own = dict(flow_run.job_variables or {})
        if isinstance(job_variables.get("env"), dict):
            job_variables["env"] = {**job_variables["env"], **own.pop("env", {})}
        configuration: ProcessJobConfiguration = await ProcessJobConfiguration.from_template_and_values(
            base_job_template=self.work_pool.base_job_template,
            values={**job_variables, **own},
            client=self.client,
        )
        configuration.prepare_for_flow_run(
            flow_run, deployment, self._flows[flow_run.flow_id], self.work_pool, self.name, self.backend_id
        )
        return configuration

    async def _run_and_report(self, flow_run: FlowRun, configuration: ProcessJobConfiguration) -> None:
        """Run the process; whatever goes wrong with it ends as the run's Crashed state."""
        submitted = self._emit_flow_run_submitted_event(configuration)
        try:
            result = await self.run(flow_run, configuration)
        except Exception as error:  # noqa: BLE001 - logged, and told as the run's own end
            self.get_flow_run_logger(flow_run).exception("The run's process could not be run.")
            message = f"Flow run could not be run: {type(error).__name__}: {error}"
            await self._propose_crashed_state(flow_run, message)
            return
        if submitted:
            self._emit_flow_run_executed_event(result, configuration, submitted)

    async def run(
        self,
        flow_run: FlowRun,
        configuration: ProcessJobConfiguration,
        task_status: anyio.abc.TaskStatus[int] | None = None,
    ) -> ProcessWorkerResult:
        """Run one flow run in a forked child and return its exit code; a configured command runs as usual."""
        if configuration._command_configured:
            return await super().run(flow_run, configuration, task_status)
        with _working_directory(configuration) as folder:
            starter = ForkStarter(self._forks, self.supervision.control_channel, configuration, folder)
            executor = self.supervision.executor(flow_run, starter)
            async with anyio.create_task_group() as beside:
                handle: asyncio.Future[ProcessHandle] = asyncio.get_running_loop().create_future()
                beside.start_soon(self._note_child, flow_run, handle)
                try:
                    execution = await executor.submit(task_status=_Started(handle))
                finally:
                    beside.cancel_scope.cancel()
        if execution is None or execution.status_code is None:
            raise RuntimeError("no process was started")
        return ProcessWorkerResult(status_code=execution.status_code, identifier=str(execution.handle.pid))

    async def _note_child(self, flow_run: FlowRun, handle: asyncio.Future[ProcessHandle]) -> None:
        """Write down who runs the run: at once in the claim, and in the server once the run has lasted a while."""
        await asyncio.wait([handle])
        if handle.cancelled():
            return
        pid = handle.result().pid
        assert pid is not None
        self._claims.write(flow_run.id, child=pid)
        await asyncio.sleep(_NOTE_AFTER_SECONDS)
        try:
            await self.client.update_flow_run(flow_run_id=flow_run.id, infrastructure_pid=str(pid))
        except (httpx.HTTPError, ObjectNotFound) as error:  # for the UI; our own claim is what counts
            logger.debug("Could not note the process of run %s: %s", flow_run.id, error)

    async def _conclude(self, flow_run: FlowRun) -> None:
        """Make sure that the run has a true state now that its process is gone, tell it, and give the claim up."""
        await self.supervision.settled(flow_run.id)
        if not self.supervision.reported_final(flow_run.id):
            await self._concluded(await self._settled(flow_run.id))
        self._claims.remove(flow_run.id)

    async def _settled(self, run_id: UUID) -> FlowRun | None:
        """Settle the run, waiting for a server that is away: its claim stays until then."""
        pause = 0.1
        while True:
            try:
                return await settle(self.client, run_id, "its process is gone")
            except httpx.HTTPError as error:
                logger.debug("Run %s cannot be settled yet: %s", run_id, error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, 2.0)


class _Started:
    """Hands the child's handle to whoever waits for it (anyio's TaskStatus, for one future)."""

    def __init__(self, future: asyncio.Future[ProcessHandle]) -> None:
        self._future = future

    def started(self, value: ProcessHandle | None = None) -> None:
        """Take the handle."""
        assert value is not None
        self._future.set_result(value)


@contextmanager
def _working_directory(configuration: ProcessJobConfiguration) -> Iterator[Path]:
    """Give the configured folder, or an empty one for the time of the run."""
    if configuration.working_dir:
        yield configuration.working_dir
        return
    with tempfile.TemporaryDirectory(prefix="gpt-trader-run-") as folder:
        yield Path(folder).resolve()
