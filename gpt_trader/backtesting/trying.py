"""Calls a strategy that may do anything, and turns what goes wrong into a finding with the line of its file."""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING

import numpy as np

from gpt_trader.backtesting.findings import Finding
from gpt_trader.backtesting.result import iso

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpt_trader.bars import Bars, Floats
    from gpt_trader.strategies.base import Strategy

#: Of a message that somebody else has written, so much is shown.
_SHOWN = 300


class Broken(Exception):
    """The strategy gave no targets at all: why, as a finding."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


def targets_of(strategy: Strategy, bars: Bars, first: int) -> Floats:
    """Return the strategy's targets as float64, shape (len(bars),), not the array that it may still hold.

    Raises Broken where it raises, gives something that is no number a bar, or changes the bars it was given.
    """
    before = _content(bars)
    given = guarded(strategy, lambda: strategy.targets(bars, first), bars=bars)
    if _content(bars) != before:
        message = "targets() changes the bars that it is given: work on a copy, e.g. bars.close.copy()"
        raise Broken(Finding(check="determinism", severity="error", message=message))
    try:
        targets = np.array([] if given is None else given, dtype=np.float64)
    except (TypeError, ValueError):
        raise Broken(_no_targets(f"targets() returned {type(given).__name__}, not numbers")) from None
    if targets.shape != (len(bars),):
        returned = "None" if given is None else f"shape {targets.shape}"
        raise Broken(_no_targets(f"targets() returned {returned} for {len(bars)} bars"))
    return targets


def guarded(strategy: Strategy, asked: Callable[[], object], *, bars: Bars | None = None) -> object:
    """Return what `asked` does; raise Broken, with the last line of the strategy's own file, where it raises."""
    try:
        return asked()
    except (Exception, SystemExit) as error:
        history = f", with {len(bars)} bars of history" if bars is not None else ""
        last = iso(bars.time[-1]) if bars is not None and len(bars) else None
        message = f"{_place(strategy, error)}{type(error).__name__}: {str(error)[:_SHOWN]}{history}"
        raise Broken(Finding(check="runs", severity="error", bar=last, message=message)) from error


def _place(strategy: Strategy, error: BaseException) -> str:
    """Return where in the strategy's own file it happened: the last of the traceback's frames that is there."""
    module = sys.modules.get(type(strategy).__module__)
    file = getattr(module, "__file__", None)
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if not own:
        return ""
    code = f": `{own[-1].line[:_SHOWN]}`" if own[-1].line else ""
    return f"line {own[-1].lineno}, in {own[-1].name}{code}: "


def _no_targets(message: str) -> Finding:
    return Finding(
        check="targets", severity="error", message=f"{message}; one number of [-1, 1] a bar is due"
    )


def _content(bars: Bars) -> tuple[bytes, ...]:
    # The views are read-only, but whoever wants to finds the array behind them.
    return tuple(getattr(bars, name).tobytes() for name in ("open", "high", "low", "close", "volume"))
