"""The worker's side of the template: start it, order forks, learn how children end, start it again when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from flows.child import GRACE_SECONDS
from flows.template import SINGLE_THREADED

logger = logging.getLogger("gpt_trader.worker")

#: A template that dies this many times before it was ever ready will not get better by itself.
MAX_FAILED_STARTS: Final = 3


class TemplateFailed(RuntimeError):
    """The template cannot be started: what it imports or warms up fails each time (its output says how)."""


@dataclass(frozen=True)
class ForkOrder:
    """What a child is told: who it is and what it runs.

    Attributes:
        flow_run: The flow run, JSON.
        env: The child's whole environment.
        cwd: Its working directory.
        entrypoint: The deployment's entrypoint, `path/to/file.py:flow`, or None.
        folder: The folder the deployment's only pull step sets, or None if it has other steps.
        stream_output: Whether output goes to the worker's own; else it is discarded.
        hooks: Whether to run the flow's hooks of `state` instead of the flow.
        state: The state whose hooks run, JSON.
        order: Identifies the order in the template's answers.
    """

    flow_run: dict[str, Any]
    env: dict[str, str]
    cwd: str
    entrypoint: str | None = None
    folder: str | None = None
    stream_output: bool = True
    hooks: bool = False
    state: dict[str, Any] | None = None
    order: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass
class ForkedProcess:
    """A forked child, with the few things that Prefect asks of an anyio process."""

    pid: int
    returncode: int | None = None
    exited: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait(self) -> int:
        """Return the child's exit code once it has one; negative: the signal that killed it."""
        await self.exited.wait()
        assert self.returncode is not None
        return self.returncode

    def ended(self, returncode: int) -> None:
        """Note that the child is gone."""
        self.returncode = returncode
        self.exited.set()


class ForkServer:
    """Keeps one warm template alive. `async with` starts it; `fork` waits until it is ready."""

    def __init__(
        self, preload: Sequence[str], warm: Sequence[str], env: Mapping[str, str], later: Sequence[str] = ()
    ) -> None:
        self._arguments = [
            *(f"--preload={name}" for name in preload),
            *(f"--warm={name}" for name in warm),
            *(f"--later={name}" for name in later),
        ]
        self._env = {**SINGLE_THREADED, **env}
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._ready = asyncio.Event()
        self._lost = asyncio.Event()
        self._failed: TemplateFailed | None = None
        self._orders: dict[str, asyncio.Future[ForkedProcess]] = {}
        self._children: dict[int, ForkedProcess] = {}
        self._keeper: asyncio.Task[None] | None = None
        self._farewells: set[asyncio.Task[None]] = set()

    @property
    def pid(self) -> int | None:
        """The template's process id, or None while there is none."""
        return self._process.pid if self._process else None

    async def __aenter__(self) -> ForkServer:
        self._keeper = asyncio.create_task(self._keep(), name="template keeper")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the template's socket: it ends its children and itself; kill it if it does not."""
        assert self._keeper is not None
        self._keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._keeper
        if self._process is None:
            return
        try:
            await asyncio.to_thread(self._process.wait, GRACE_SECONDS + 2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)

    async def ready(self) -> None:
        """Wait until the template is warm; raise TemplateFailed if it never will be."""
        await self._ready.wait()
        if self._failed is not None:
            raise self._failed

    async def lost(self) -> None:
        """Wait until the template that is ready now is gone."""
        await self._lost.wait()

    async def fork(self, order: ForkOrder) -> ForkedProcess:
        """Fork a child that carries out `order`; waits for a template that is starting (again)."""
        while True:
            await self.ready()
            answer: asyncio.Future[ForkedProcess] = asyncio.get_running_loop().create_future()
            self._orders[order.order] = answer
            try:
                assert self._writer is not None
                self._writer.write(json.dumps(asdict(order)).encode() + b"\n")
                return await answer
            except TemplateDied:  # before it forked: nothing ran, so the order may be given again
                continue
            finally:
                self._orders.pop(order.order, None)

    async def _keep(self) -> None:
        failures = 0
        while failures < MAX_FAILED_STARTS:
            was_ready = await self._one_life()
            failures = 0 if was_ready else failures + 1
            logger.warning(
                "The template ended with code %s%s; starting another one",
                self._process.returncode if self._process else None,
                "" if was_ready else f" before it was ready ({failures} of {MAX_FAILED_STARTS})",
            )
        self._failed = TemplateFailed(
            f"the worker's template failed to start {MAX_FAILED_STARTS} times; its output above says why"
        )
        self._ready.set()

    async def _one_life(self) -> bool:
        """Start a template and serve its answers until it is gone; return whether it was ever ready."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - forks once a life; no other start waits for it
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "flows.template",
                    f"--socket={theirs.fileno()}",
                    *self._arguments,
                ],
                pass_fds=[theirs.fileno()],
                env=self._env,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C in the terminal or a killpg is for the worker to handle
            )
        reader, self._writer = await asyncio.open_unix_connection(sock=ours, limit=1 << 20)
        was_ready = False
        try:
            while line := await self._line(reader):
                was_ready = self._answered(json.loads(line)) or was_ready
        finally:
            self._ready.clear()
            self._lost.set()
            self._writer.close()
        await asyncio.to_thread(self._process.wait)
        self._lose_children()
        return was_ready

    async def _line(self, reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.readline()
        except ConnectionError:
            return b""

    def _answered(self, message: dict[str, Any]) -> bool:
        match message["event"]:
            case "ready":
                self._lost.clear()
                self._ready.set()
                return True
            case "forked":
                child = self._children[message["pid"]] = ForkedProcess(message["pid"])
                answer = self._orders.get(message["order"])
                if answer is not None and not answer.done():
                    answer.set_result(child)
            case "exited":
                self._children.pop(message["pid"]).ended(message["returncode"])
        return False

    def _lose_children(self) -> None:
        """After the template's death: refuse open orders, and watch its children, which end by themselves."""
        for answer in self._orders.values():
            if not answer.done():
                answer.set_exception(TemplateDied())
        orphans, self._children = self._children, {}
        for pid, child in orphans.items():
            watch = asyncio.create_task(_await_end(pid, child))
            self._farewells.add(watch)  # the loop itself holds no reference to its tasks
            watch.add_done_callback(self._farewells.discard)


class TemplateDied(Exception):
    """The template was gone before it answered an order."""


async def _await_end(pid: int, child: ForkedProcess) -> None:
    """Watch a child that nobody can wait for any more; its exit code is lost, so it counts as killed."""
    for _ in range(int((GRACE_SECONDS + 5) / 0.05)):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            break
        await asyncio.sleep(0.05)
    child.ended(-signal.SIGKILL)
