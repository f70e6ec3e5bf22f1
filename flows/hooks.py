"""What a run tells the event log while it runs: its states, its log lines and its progress.

Everything goes through one queue, written by one thread in batches: the order is that in which it happened, and the
run does not wait for the database. The one exception is a final state: it is written before the hook returns, with all
that is queued before it, in one transaction, because the client waits for exactly that.

A flow takes part with `@flow(**HOOKS)`.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

from prefect import runtime
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow
from sqlalchemy.exc import InterfaceError, OperationalError

from gpt_trader.errors import EngineUnreachable
from gpt_trader.runs import channel_of
from storage.events import EventLog, NewEvent
from tasks.stores import stores

logger = logging.getLogger("gpt_trader.runs")

#: Log lines wait at most this long for others to be written with.
BATCH_SECONDS: Final = 0.2

#: Lines kept while the database is away; further ones are counted and dropped.
MOST_WAITING: Final = 10_000

#: Prefect's loggers of flow runs and task runs; `print` arrives there too.
RUN_LOGGERS: Final = ("prefect.flow_runs", "prefect.task_runs")

_LOST: Final = (OperationalError, InterfaceError, EngineUnreachable)


def state_event(state: State[Any]) -> NewEvent:
    """Return a state as an event; its key is Prefect's state id, so whoever tells it, it is told once."""
    told = {"state": state.type.value, "name": state.name, "message": state.message}
    return NewEvent("state", told, key=str(state.id))


class RunEvents:
    """The queue of one run and the thread that writes it.

    Args:
        run_id: The run.
        open_log: Returns the event log; called in the writing thread, because it connects to the database.
    """

    def __init__(self, run_id: UUID, open_log: Callable[[], EventLog]) -> None:
        self.run_id = run_id
        self._open_log = open_log
        self._waiting: list[NewEvent] = []
        self._dropped = 0
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._write_batches, name="run events", daemon=True)
        self._thread.start()

    def put(self, event: NewEvent, *, soon: bool = False) -> None:
        """Queue an event; `soon`: do not wait for others."""
        with self._lock:
            if len(self._waiting) < MOST_WAITING or event.type != "log":
                self._waiting.append(event)
            else:
                self._dropped += 1
        if soon:
            self._wake.set()

    def flush(self) -> None:
        """Write all that is queued, now; raise what the database raises and keep the events then."""
        with self._writing:
            with self._lock:
                batch, self._waiting = self._waiting, []
                dropped, self._dropped = self._dropped, 0
            if dropped:
                message = f"{dropped} log lines were dropped: the database did not answer"
                batch.append(NewEvent("log", {"level": "WARNING", "message": message}))
            try:
                self._open_log().append_many(channel_of(self.run_id), batch)
            except BaseException:
                with self._lock:
                    self._waiting[:0] = batch
                raise

    def _write_batches(self) -> None:
        while True:
            self._wake.wait(BATCH_SECONDS)
            self._wake.clear()
            if self._waiting:
                try:
                    self.flush()
                except _LOST as error:  # they stay queued; the next batch takes them along
                    logger.debug("Event log away: %s", error)


class RunLogHandler(logging.Handler):
    """Queues the log lines of a run."""

    def __init__(self, events: RunEvents) -> None:
        super().__init__(logging.INFO)
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        """Queue one line if it is this run's."""
        run_id = getattr(record, "flow_run_id", None)
        if run_id is not None and str(run_id) == str(self._events.run_id):
            line = {"level": record.levelname, "message": self.format(record)}
            self._events.put(NewEvent("log", line))


_current: RunEvents | None = None


def _events_of(run_id: UUID) -> RunEvents:
    """Return the queue of the run that this process is, opened when it is first needed."""
    global _current  # noqa: PLW0603 - a process is one run; its log handler is global too
    if _current is None or _current.run_id != run_id:
        _current = RunEvents(run_id, lambda: stores().events)
        for name in RUN_LOGGERS:
            run_logger = logging.getLogger(name)
            run_logger.handlers = [
                each for each in run_logger.handlers if not isinstance(each, RunLogHandler)
            ]
            run_logger.addHandler(RunLogHandler(_current))
    return _current


def progress(stage: str, done: int, total: int, message: str = "") -> None:
    """Tell how far the current run is: `done` of `total` steps, in `stage` now. Outside of a run it does nothing."""
    run_id = runtime.flow_run.id
    if run_id:
        told = {"stage": stage, "done": done, "total": total, "message": message}
        _events_of(UUID(str(run_id))).put(NewEvent("progress", told), soon=True)


def tell_state(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """State hook: append the state to the run's channel; a final one is durable when this returns."""
    events = _events_of(flow_run.id)
    events.put(state_event(state), soon=not state.is_final())
    if state.is_final():
        events.flush()


@atexit.register
def _flush_at_exit() -> None:
    """Write the last lines (`Finished in state …`, a traceback) when the process ends."""
    if _current is not None:
        try:
            _current.flush()
        except _LOST as error:
            logger.warning("The last events of run %s were not written: %s", _current.run_id, error)


HOOKS: Final[dict[str, Any]] = {
    "on_running": [tell_state],
    "on_completion": [tell_state],
    "on_failure": [tell_state],
    "on_cancellation": [tell_state],
    "on_crashed": [tell_state],
}
