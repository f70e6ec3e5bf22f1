"""What watches over the worker's children: one shared supervision for all runs.

The stock worker enters a `FlowRunExecutorContext` for each run: a websocket, a control channel, a cancellation manager,
thrown away seconds later. Ours lives as long as the worker, so it is built from the same parts with two changes:

* requests to cancel are found by asking the server twice a second while runs are under way. Prefect's observer
  listens on a websocket and, once that fails, polls for ever and gives up for good after a few errors: fit for one run,
  not for a worker that outlives restarts of the server;
* a process that is told to end is awaited, not looked at every three seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable
from types import TracebackType
from typing import Final
from uuid import UUID

import httpx
from prefect._internal.attempt_control import AttemptConclusion, EngineOutcomeReceipt
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import Flow as FlowRecord
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.runner._cancellation_manager import CancellationManager
from prefect.runner._control_channel import ControlChannel
from prefect.runner._event_emitter import EventEmitter
from prefect.runner._flow_run_executor import FlowRunExecutor, ProcessStarter
from prefect.runner._hook_runner import FlowRunHookRunner
from prefect.runner._process_manager import ProcessHandle, ProcessManager
from prefect.runner._state_proposer import StateProposer

from flows.forkserver import ForkedProcess
from gpt_trader.runs import FINAL_STATES

logger = logging.getLogger("gpt_trader.worker")

#: How often the server is asked whether a run under way shall be cancelled.
CANCEL_POLL_SECONDS: Final = 0.5


#: How long a child may take from its fork to the moment in which it can take a cancellation for what it is.
CONNECT_SECONDS: Final = 5.0

#: How long a child may take to end after SIGTERM (its `finally` blocks, its last report) before it is killed.
END_SECONDS: Final = 10.0


class GroupScope:
    """Signals to the child's process group, which holds what it started itself as well."""

    wait_after_graceful_kill = True

    def is_alive(self, pid: int) -> bool:
        """Return whether anything of the group is left."""
        try:
            os.killpg(pid, 0)
        except ProcessLookupError:
            return False
        return True

    def graceful_kill(self, pid: int) -> None:
        """Ask the group to end."""
        self._signal(pid, signal.SIGTERM)

    def hard_kill(self, pid: int) -> None:
        """End the group."""
        self._signal(pid, signal.SIGKILL)

    def close(self) -> None:
        """Nothing is held."""

    @staticmethod
    def _signal(pid: int, number: signal.Signals) -> None:
        try:
            os.killpg(pid, number)
        except ProcessLookupError:  # not leader of its group yet: forked a moment ago
            os.kill(pid, number)


class PromptProcesses(ProcessManager):
    """Prefect's process table, with an end that is awaited instead of polled for."""

    async def kill(
        self, flow_run_id: UUID, grace_seconds: float = END_SECONDS, *, force: bool = False
    ) -> None:
        """End a run's process: SIGTERM, at most `grace_seconds`, then SIGKILL to what is left of its group."""
        handle = self.get(flow_run_id)
        if handle is None:
            return
        process = handle.raw_process
        assert isinstance(process, ForkedProcess)
        with contextlib.suppress(ProcessLookupError):
            if not force:
                handle.graceful_kill()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), min(grace_seconds, END_SECONDS))
            handle.hard_kill()


class OnDemandEmitter(EventEmitter):
    """Opens its websocket for the one event it sends; a held one would have to survive the server's restarts."""

    async def emit_flow_run_cancelled(
        self, flow_run: FlowRun, flow: FlowRecord | None, deployment: DeploymentResponse | None
    ) -> None:
        """Tell the server's event stream that the run was cancelled."""
        async with EventEmitter(runner_name=self._runner_name, client=self._client) as emitter:
            await emitter.emit_flow_run_cancelled(flow_run, flow, deployment)


class Supervision:
    """Executors, cancellation and shutdown for every run of one worker."""

    def __init__(self, name: str, client: PrefectClient, hook_runner: FlowRunHookRunner) -> None:
        self.control_channel = ControlChannel()
        self.processes = PromptProcesses(on_remove=self._forget)
        self._client = client
        self._hook_runner = hook_runner
        self._proposer = StateProposer(client=client)
        self._canceller = CancellationManager(
            process_manager=self.processes,
            hook_runner=hook_runner,
            state_proposer=self._proposer,
            event_emitter=OnDemandEmitter(runner_name=name, client=client),
            client=client,
            control_channel=self.control_channel,
        )
        self._conclusions: dict[UUID, AttemptConclusion] = {}
        self._cancelling: dict[UUID, asyncio.Task[None]] = {}
        self._watcher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Supervision:
        await self.control_channel.__aenter__()
        await self.processes.__aenter__()
        self._watcher = asyncio.create_task(self._watch(), name="cancellation watch")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._watcher is not None
        self._watcher.cancel()
        await asyncio.gather(self._watcher, *self._cancelling.values(), return_exceptions=True)
        await self.processes.__aexit__(kind, error, trace)
        await self.control_channel.__aexit__(kind, error, trace)

    def executor(self, flow_run: FlowRun, starter: ProcessStarter) -> FlowRunExecutor:
        """Return Prefect's executor for one run, wired to the shared parts."""
        return FlowRunExecutor(
            flow_run=flow_run,
            starter=starter,
            process_manager=self.processes,
            state_proposer=self._proposer,
            hook_runner=self._hook_runner,
            get_attempt_conclusion=self._conclusion_of,
            propose_submitting=False,
        )

    async def end_all(self) -> None:
        """End every child at once, each with the same grace."""
        await asyncio.gather(*(self.processes.kill(run_id) for run_id in self.processes.flow_run_ids()))

    def reported_final(self, run_id: UUID) -> bool:
        """Return whether the run's own engine has reported a final state (asked once, after the run)."""
        conclusion = self._conclusions.pop(run_id, None)
        return isinstance(conclusion, EngineOutcomeReceipt) and conclusion.state_type in FINAL_STATES

    async def settled(self, run_id: UUID) -> None:
        """Wait until a cancellation of this run that is under way has said its last word."""
        if (cancelling := self._cancelling.get(run_id)) is not None:
            await cancelling

    def _conclusion_of(self, run_id: UUID) -> AttemptConclusion | None:
        conclusion = self.control_channel.get_conclusion(run_id)
        if conclusion is not None:
            self._conclusions[run_id] = conclusion
        return conclusion

    async def _forget(self, run_id: UUID) -> None:
        self.control_channel.unregister(run_id)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(CANCEL_POLL_SECONDS)
            under_way = self.processes.flow_run_ids() - self._cancelling.keys()
            if not under_way:
                continue
            try:
                for flow_run in await self._asked_to_cancel(under_way):
                    self._cancel(flow_run)
            except httpx.HTTPError as error:  # the server is restarting: the question is asked again
                logger.debug("Could not ask for runs to cancel: %s", error)

    async def _asked_to_cancel(self, run_ids: set[UUID]) -> list[FlowRun]:
        return await self._client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                id=FlowRunFilterId(any_=list(run_ids)),
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.CANCELLING])),
            )
        )

    def _cancel(self, flow_run: FlowRun) -> None:
        task = asyncio.create_task(self._cancel_connected(flow_run), name=f"cancel {flow_run.id}")
        self._cancelling[flow_run.id] = task
        task.add_done_callback(self._cancelled(flow_run.id))

    async def _cancel_connected(self, flow_run: FlowRun) -> None:
        """Cancel once the child listens: a SIGTERM before that would be told as a crash, by the child itself."""
        registration = self.control_channel._registrations.get(flow_run.id)
        if registration is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(registration.connected.wait(), CONNECT_SECONDS)
        await self._canceller.cancel(flow_run)

    def _cancelled(self, run_id: UUID) -> Callable[[asyncio.Task[None]], None]:
        def done(task: asyncio.Task[None]) -> None:
            self._cancelling.pop(run_id, None)
            if not task.cancelled() and (error := task.exception()):
                logger.error("Cancelling run %s failed; it will be tried again", run_id, exc_info=error)

        return done


def handle_of(process: ForkedProcess) -> ProcessHandle:
    """Wrap a forked child as the handle that Prefect's executor and canceller know."""
    return ProcessHandle(process, termination_scope=GroupScope())  # type: ignore[arg-type]  # duck-typed there
