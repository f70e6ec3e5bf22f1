"""Calls in processes of their own: Python code in them runs side by side, and one that is killed takes no other along.

Not `concurrent.futures`: its pool is broken as a whole by the first process that dies, and cannot say which call
killed it. Here a thread has its process to itself, so a lost one is replaced and its call is made again, a few times.

A process imports this module and what a call needs, but not Prefect; it ends with its parent, however that ends.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final, TypeVar

from gpt_trader.errors import GptTraderError

Found = TypeVar("Found")

#: How often a call is made whose process is lost each time.
ATTEMPTS: Final = 3

#: Where the machine runs out of memory, Linux should end one of these, and not the run that starts another.
_OOM_SCORE: Final = "500"


class Processes:
    """A place (`tasks.places`) of as many processes as there are calls at once, started when they are needed.

    Args:
        warn: Told of each process that was lost, in a sentence.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._stopped = False

    def call(self, what: str, function: Callable[..., Found], shared: object, *rest: object) -> Found:
        """Return `function(shared, *rest)`; raise GptTraderError if each process that tried is lost."""
        order = pickle.dumps((function, (shared, *rest)), protocol=pickle.HIGHEST_PROTOCOL)
        said = ""
        for attempt in range(1, ATTEMPTS + 1):
            worker = self._taken()
            try:
                succeeded, found = worker.do(order)
            except (EOFError, OSError):  # its end of the pipe is closed: it is gone
                said = self._lost(worker, what, attempt)
                continue
            with self._lock:
                self._idle.append(worker)
            if not succeeded:
                raise found
            return found  # type: ignore[no-any-return]  # unpickled
        raise GptTraderError(
            f"{said}. Is it memory? Then fewer at once may help (gpt-trader config set optimize_workers 1), "
            "or leave out what is in it"
        )

    def stop(self) -> None:
        """End every process at once; calls under way raise `Stopped`."""
        with self._lock:
            self._stopped = True
            workers, self._all, self._idle = self._all, set(), []
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.join()

    def pids(self) -> list[int]:
        """Return the ids of the processes there are."""
        with self._lock:
            return [pid for worker in self._all if (pid := worker.process.pid) is not None]

    def _taken(self) -> _Worker:
        with self._lock:  # `multiprocessing` starts one at a time
            if self._stopped:
                raise Stopped
            if self._idle:
                return self._idle.pop()
            worker = _Worker()
            self._all.add(worker)
            return worker

    def _lost(self, worker: _Worker, what: str, attempt: int) -> str:
        """Tell that a worker was lost and forget it; return what was said."""
        worker.process.join()
        worker.connection.close()
        with self._lock:
            self._all.discard(worker)
            if self._stopped:
                raise Stopped
        times = "" if attempt == 1 else f" for the {('second', 'third')[attempt - 2]} time"
        said = f"{what} lost the process that computed it{times} ({_ended(worker.process.exitcode)})"
        self._warn(said)
        return said


class Stopped(GptTraderError):
    """The run ended while this was computed."""

    def __init__(self) -> None:
        super().__init__("the run ended first")


class _Worker:
    """One process and our end of the pipe to it."""

    def __init__(self) -> None:
        context = multiprocessing.get_context(
            "spawn"
        )  # our own process has threads: a fork could inherit a lock
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs,), name="computing", daemon=True)
        self.process.start()
        theirs.close()

    def do(self, order: bytes) -> tuple[bool, Any]:
        """Have a call made; return whether it returned, and what it returned or raised."""
        self.connection.send_bytes(order)
        answer: tuple[bool, Any] = pickle.loads(self.connection.recv_bytes())  # noqa: S301 - our own child's
        return answer


def serve(connection: Connection) -> None:
    """Make calls until the other end of the pipe is closed: the whole life of a process of `Processes`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C in the terminal is the run's to answer
    threading.Thread(target=_end_with_parent, name="parent watch", daemon=True).start()
    with contextlib.suppress(OSError):  # no Linux
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")
    while True:
        try:
            order = connection.recv_bytes()
        except EOFError:
            return
        connection.send_bytes(_answer(order))


def _answer(order: bytes) -> bytes:
    try:
        function, arguments = pickle.loads(order)  # noqa: S301 - our parent's
        return pickle.dumps((True, function(*arguments)), protocol=pickle.HIGHEST_PROTOCOL)
    except BaseException as error:  # noqa: BLE001 - raised anew where the call was made
        return pickle.dumps((False, _sendable(error)))


def _sendable(error: BaseException) -> BaseException:
    """Return the error with its traceback as a note; one that cannot be pickled in words."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - just made
    except Exception:  # noqa: BLE001 - whatever its class does when it is copied
        return GptTraderError(f"{type(error).__name__}: {error}")
    return error


def _end_with_parent() -> None:
    """Wait until the parent is gone, and go too: nobody would read what is computed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _ended(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return signal.Signals(-exit_code).name
    return f"exit code {exit_code}"
