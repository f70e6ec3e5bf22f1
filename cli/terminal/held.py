"""Signals that wait for a good moment: an exception out of nowhere could leave a screen or a run half-done."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def held(*numbers: signal.Signals) -> Iterator[list[signal.Signals]]:
    """Hold back the first of these signals for the block; yield the list that it is written to.

    A second one raises KeyboardInterrupt at once, wherever the program is. Outside the main thread, whose signals
    are another's business, nothing is held.
    """
    received: list[signal.Signals] = []

    def hold(number: int, _frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(signal.Signals(number))

    try:
        before = {number: signal.signal(number, hold) for number in numbers}
    except ValueError:  # not the main thread
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
