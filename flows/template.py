"""The template: a process that has everything imported and warm, and forks one child a flow run.

It is a process of its own, started by `flows.forkserver` with one end of a socket pair. One thread, no database
connection, no DuckDB, no event loop before a fork: a child inherits memory, never a lock or a socket in use.

The chain that leaves no orphan, whichever process is killed, holds without any signal being delivered:

* the worker's end of the socket closes → the template terminates its children, then itself;
* the template dies → the lifeline (a pipe whose only writer is the template) closes → each child terminates itself.

Terminating is a SIGTERM first: Prefect's engine then runs `finally` blocks, reports the run as Crashed and runs its
hooks. What is still alive after `GRACE_SECONDS` is killed with its whole process group.

Messages are JSON, one a line. In: orders to fork (`flows.forkserver.ForkOrder`). Out: `ready`, `forked` (order → pid),
`exited` (pid → return code, negative for a signal, as in subprocess).
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from flows.child import GRACE_SECONDS, live

#: A Ctrl-C in the terminal and a `kill` of the group are the worker's business; a child unblocks them.
BLOCKED: Final = frozenset({signal.SIGINT, signal.SIGTERM})

#: After so long without an order the template does what makes the next runs faster.
IDLE_SECONDS: Final = 1.0

#: A thread that is ending already (matplotlib's timer, when it has built its font cache) may take this long.
_SETTLE_SECONDS: Final = 2.0

#: Thread pools of native libraries start a thread at import or first use; a fork must find none of them, and
#: `worker_limit` runs side by side need no more than a core each.
SINGLE_THREADED: Final = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",  # pyarrow's jemalloc purges from a thread of its own
}


def main(argv: Sequence[str] | None = None) -> None:
    """Import and warm what the arguments name, then fork children until the worker's socket closes."""
    parser = argparse.ArgumentParser(prog="flows.template")
    parser.add_argument("--socket", type=int, required=True, help="inherited descriptor of our end")
    parser.add_argument("--preload", action="append", default=[], help="module to import, in order")
    parser.add_argument("--warm", action="append", default=[], help="module:function to call after imports")
    parser.add_argument("--later", action="append", default=[], help="module:function to call when idle")
    options = parser.parse_args(argv)
    channel = socket.socket(fileno=options.socket)
    os.set_inheritable(options.socket, False)
    preload(options.preload, options.warm)
    Template(channel, options.later).serve()


def preload(modules: Sequence[str], warm: Sequence[str]) -> None:
    """Import `modules`, call the `warm` functions, freeze the heap; nothing that fails is passed over."""
    gc.disable()  # thousands of classes are built and none dies: collecting meanwhile costs ~10 % of the time
    for module in modules:
        import_module(module)
    for name in warm:
        _call(name)
    gc.enable()
    _settle()


def _call(name: str) -> None:
    module, _, function = name.partition(":")
    getattr(import_module(module), function)()


def _settle() -> None:
    gc.collect()
    gc.freeze()  # children never touch (and so never copy) the pages of what is here already
    assert_forkable()


def assert_forkable() -> None:
    """Raise RuntimeError if this process has a second thread: a fork could inherit a lock that nobody releases."""
    import threading

    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        # No /proc on macOS: there Python's own threads are all that can be seen.
        native = [name.read_text().strip() for name in Path("/proc/self/task").glob("*/comm")]
        names = [thread.name for thread in threading.enumerate()]
        if (len(native) <= 1 and len(names) == 1) or time.monotonic() > deadline:
            break
        time.sleep(0.01)
    if len(native) > 1 or len(names) > 1:
        raise RuntimeError(
            f"the template must have one thread before it forks, it has {', '.join(native or names)}: "
            "a module started one when it was imported or warmed up"
        )


class Template:
    """The fork loop: orders in, children out, return codes back."""

    def __init__(self, channel: socket.socket, later: Sequence[str] = ()) -> None:
        self._channel = channel
        self._later = list(later)
        self._children: dict[int, str] = {}
        self._lifeline, self._lifeline_writer = os.pipe()
        self._wakeup, wakeup_writer = socket.socketpair()
        wakeup_writer.setblocking(False)
        self._wakeup.setblocking(False)
        self._wakeup_writer = wakeup_writer
        self._pending = b""

    def serve(self) -> None:
        """Fork on order and reap until the worker's end closes; then end every child and return."""
        signal.signal(
            signal.SIGCHLD, lambda *_: None
        )  # the wakeup descriptor needs a handler to be installed
        signal.set_wakeup_fd(self._wakeup_writer.fileno())
        # Blocked, not ignored: a SIGTERM that reaches a child before it has found itself stays pending, unlost.
        signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
        self._send({"event": "ready", "pid": os.getpid()})
        with selectors.DefaultSelector() as selector:
            selector.register(self._channel, selectors.EVENT_READ)
            selector.register(self._wakeup, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select(self._patience())}
                if not ready:
                    self._warm_up_more()
                if self._wakeup in ready:
                    self._wakeup.recv(4096)
                    self._reap()
                if self._channel in ready and not self._receive(selector):
                    break
        self._end_children()

    def _patience(self) -> float | None:
        """Return how long to wait for an order: for ever, unless something can be done meanwhile."""
        return IDLE_SECONDS if self._later and not self._children else None

    def _warm_up_more(self) -> None:
        """Call the next of what makes runs faster but was not worth waiting for at the start."""
        _call(self._later.pop(0))
        _settle()

    def _receive(self, selector: selectors.BaseSelector) -> bool:
        try:
            received = self._channel.recv(1 << 16)
        except ConnectionError:
            return False
        if not received:
            return False
        *lines, self._pending = (self._pending + received).split(b"\n")
        for line in lines:
            self._fork(json.loads(line), selector)
        return True

    def _fork(self, order: dict[str, Any], selector: selectors.BaseSelector) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            selector.close()
            os.close(self._lifeline_writer)
            self._channel.close()
            signal.set_wakeup_fd(-1)
            self._wakeup.close()
            self._wakeup_writer.close()
            live(order, self._lifeline)
        self._children[pid] = order["order"]
        self._send({"event": "forked", "order": order["order"], "pid": pid})

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            self._children.pop(pid, None)
            self._send({"event": "exited", "pid": pid, "returncode": os.waitstatus_to_exitcode(status)})

    def _send(self, message: dict[str, Any]) -> None:
        # A worker that is gone is told nothing; the next read of the channel sees its end.
        with contextlib.suppress(ConnectionError):
            self._channel.sendall(json.dumps(message).encode() + b"\n")

    def _end_children(self) -> None:
        deadline = time.monotonic() + GRACE_SECONDS
        self._signal_children(signal.SIGTERM)
        with selectors.DefaultSelector() as selector:
            selector.register(self._wakeup, selectors.EVENT_READ)
            self._reap()
            while self._children and (left := deadline - time.monotonic()) > 0:
                if selector.select(left):
                    self._wakeup.recv(4096)
                self._reap()
        self._signal_children(signal.SIGKILL)

    def _signal_children(self, number: signal.Signals) -> None:
        for pid in self._children:
            try:
                os.killpg(pid, number)
            except ProcessLookupError:  # forked a moment ago and not yet leader of its group
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)


if __name__ == "__main__":
    main()
