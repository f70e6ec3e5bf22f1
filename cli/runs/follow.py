"""Follows a run to its end: events as they come, resumed after a cut, by polling where no stream is to be had."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

from cli.client.api import Client, Json
from cli.client.sse import Event
from cli.terminal.failures import Interrupted
from cli.terminal.held import held
from cli.terminal.options import detail, say
from gpt_trader import errors
from gpt_trader.errors import Denied, EngineUnreachable, GptTraderError, NotFound, RunFailed
from gpt_trader.runs import FINAL_STATES

Show = Callable[[Event], None]

#: Seconds an unreachable server is waited for while a run goes on (a restart of the API takes a few).
PATIENCE: Final = 60.0
#: Seconds a cancelled run is given to stop.
CANCEL_PATIENCE: Final = 30.0
#: Prefect's words for an exception that ended a flow: the name of its class, then what it says.
_RAISED: Final = re.compile(r"exception:? (?P<type>\w+): (?P<detail>.*)", re.DOTALL)
_REFUSALS: Final = {
    kind.__name__: kind
    for kind in (errors.BadBars, errors.NotEnoughBars, errors.NotFound, errors.Refused, errors.UnknownName)
}
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 2.0


def follow(client: Client, run_id: str, show: Show) -> Json:
    """Show a run's events until its final state and return that state (`state`, `message`, …).

    A cut is resumed after the last event seen, with growing pauses, for at most `PATIENCE` seconds of silence.

    Raises:
        EngineUnreachable: the server stayed away; the run itself goes on.
    """
    watch = _Watch(client, run_id, show)
    pause, since = _FIRST_PAUSE, time.monotonic()
    while True:
        try:
            final = watch.stream() if watch.streams else watch.poll()
            if final is not None:
                return final
            pause = _FIRST_PAUSE if watch.moved else pause
            since = time.monotonic()
        except EngineUnreachable as error:
            detail(f"{error.detail}; trying again")
            client.close()
            if watch.moved:
                pause, since = _FIRST_PAUSE, time.monotonic()
            if time.monotonic() - since > PATIENCE:
                raise EngineUnreachable(
                    f"{error.detail}. The run {run_id} may go on: gpt-trader workflow show {run_id}"
                ) from error
        watch.moved = False
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


class _Watch:
    """What is known of a run that is being followed."""

    def __init__(self, client: Client, run_id: str, show: Show) -> None:
        self._client = client
        self._run_id = run_id
        self._show = show
        self._last_id: str | None = None
        self._last_state = ""
        self.streams = True
        self.moved = False

    def stream(self) -> Json | None:
        """Show what the stream brings; return the final state, or None where it ended without one."""
        try:
            with closing(self._client.events(self._run_id, self._last_id)) as events:
                for event in events:
                    self.moved = True
                    self._last_id = event.id or self._last_id
                    self._show(event)
                    if event.type == "state" and event.data.get("state") in FINAL_STATES:
                        return event.data
        except (EngineUnreachable, Denied):
            raise
        except GptTraderError as error:
            if isinstance(error, NotFound):
                self._client.run(self._run_id)  # no such run: says so; a server without the stream: poll
            detail(f"no event stream ({error.detail}): asking from time to time instead")
            self.streams = False
        return self.poll()

    def poll(self) -> Json | None:
        """Ask once for the run's state; show it where it is another; return it if it is final."""
        run = self._client.run(self._run_id)
        state = str(run.get("state", ""))
        if state != self._last_state:
            self._last_state, self.moved = state, True
            event = Event("state", {"state": state, "message": _message(run), **_error(run)})
            if state in FINAL_STATES or not self.streams:
                self._show(event)
        return {**run, "message": _message(run)} if state in FINAL_STATES else None


def cancelled_by_interrupt(client: Client, run_id: str) -> Interrupted:
    """Cancel a run after Ctrl-C, wait until it has stopped, and return the error that says so."""
    say(f"cancelling run {run_id} (Ctrl-C again: leave at once)")
    return Interrupted(_cancelled(client, run_id))


def cancel_and_wait(client: Client, run_id: str, patience: float = CANCEL_PATIENCE) -> str:
    """Cancel a run and return the state it is in once that is final, or after `patience` seconds."""
    client.close()  # the stream that was being read stands in the way
    client.cancel(run_id)
    end = time.monotonic() + patience
    pause = _FIRST_PAUSE
    while True:
        state = str(client.run(run_id).get("state", ""))
        if state in FINAL_STATES or time.monotonic() > end:
            return state
        time.sleep(pause)
        pause = min(pause * 1.5, 1.0)


def _cancelled(client: Client, run_id: str) -> str:
    try:
        state = cancel_and_wait(client, run_id)
    except KeyboardInterrupt:
        return f"left at once; the run {run_id} is being cancelled"
    except GptTraderError as error:
        return f"the run {run_id} could not be cancelled: {error.detail}"
    if state == "CANCELLED":
        return f"run {run_id} was cancelled"
    if state in FINAL_STATES:
        return f"run {run_id} had already ended: {state}"
    return f"run {run_id} is still {state} after {CANCEL_PATIENCE:g} s: gpt-trader workflow show {run_id}"


def demand_completed(run_id: str, final: Json) -> None:
    """Return if the run completed; otherwise raise, with its own message and where its log is.

    Raises:
        Refused, NotFound or BadBars: the run refused its input, as its message says by naming the error.
        RunFailed: anything else.
    """
    state = str(final.get("state", ""))
    if state == "COMPLETED":
        return
    message = _message(final) or "without a message"
    kind: type[GptTraderError] = RunFailed
    raised = _RAISED.search(message)
    if (
        raised and raised["type"] in _REFUSALS
    ):  # what the input has done in the run is still the input's fault
        kind, message = _REFUSALS[raised["type"]], raised["detail"]
    raise kind(f"run {run_id} ended {state}: {message}; its log: gpt-trader workflow logs {run_id}")


@contextmanager
def interrupt_deferred() -> Iterator[None]:
    """Hold back a first Ctrl-C until the block is done: a run being submitted is one whose id must be known.

    A second one ends the block at once.
    """
    with held(signal.SIGINT) as received:
        yield
    if received:
        raise KeyboardInterrupt


def _message(run: Json) -> str:
    return str(run.get("message") or "")


def _error(run: Json) -> dict[str, Any]:
    return {"error": run["error"]} if run.get("error") else {}
