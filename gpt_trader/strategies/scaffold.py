"""A strategy file to begin with, and its test: text, from a name."""

from __future__ import annotations

import keyword
import re
import sys
import unicodedata
from dataclasses import dataclass
from importlib.util import find_spec
from string import Template
from typing import Final

from gpt_trader.errors import Problem, Refused
from gpt_trader.strategies.registry import strategy_names

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_LONGEST: Final = 40
_ALLOWED: Final = "lower-case letters, digits and - or _ between them, beginning with a letter; e.g. my-trend"


@dataclass(frozen=True)
class Scaffold:
    """Two files and the name of the class in the first."""

    name: str
    class_name: str
    source: str
    test: str

    @property
    def file(self) -> str:
        """The strategy's file name."""
        return f"{self.name}.py"

    @property
    def test_file(self) -> str:
        """The test's file name, as pytest looks for it."""
        return f"test_{self.name}.py"


def scaffold(name: str) -> Scaffold:
    """Return the files of a new strategy called `name` (`my-trend` and `my_trend` are the same).

    Raises Refused, with the nearest valid name, for one that is no name of a module, is a registered strategy's, or
    would stand in the way of a module that Python or a package has.
    """
    spelled = name.replace("-", "_")
    if reason := _reason(spelled):
        nearest = _nearest(spelled)
        raise Refused.of(Problem("name", name, reason, allowed=_ALLOWED, nearest=nearest.replace("_", "-")))
    class_name = "".join(part.capitalize() for part in spelled.split("_"))
    values = {"name": spelled, "class_name": class_name}
    return Scaffold(spelled, class_name, _STRATEGY.substitute(values), _TEST.substitute(values))


def _reason(name: str) -> str | None:
    """Return why a module cannot be called `name`; None where it can."""
    if not _NAME.fullmatch(name):
        return "is no name for a strategy" if name else "is empty"
    reasons = (
        (len(name) > _LONGEST, f"has {len(name)} characters, at most {_LONGEST} are allowed"),
        (name in strategy_names(), "is a registered strategy's name"),
        (keyword.iskeyword(name) or keyword.issoftkeyword(name), "is a word of the Python language"),
        (name.startswith("test_"), "is what a test is called"),
        (
            name in sys.stdlib_module_names or find_spec(name) is not None,
            "is the name of a Python module, which a file of that name would hide",
        ),
    )
    return next((reason for holds, reason in reasons if holds), None)


def _nearest(name: str) -> str:
    """Return a valid name near to one that is none."""
    ascii_ = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", ascii_).lower()
    plain = re.sub(r"[^a-z0-9]+", "_", snake).strip("_").removeprefix("test_")
    plain = re.sub(r"^[0-9_]+", "", plain)[:_LONGEST].rstrip("_") or "strategy"
    return plain if _reason(plain) is None else f"my_{plain}"[:_LONGEST].rstrip("_")


_STRATEGY: Final = Template('''\
"""A strategy of mine. docs/how-to/write-a-strategy.md explains every part of it."""

from pydantic import Field

from gpt_trader.strategies.base import Strategy


class $class_name(Strategy):
    """Long while the close is above its average of `period` bars."""

    name = "$name"
    summary = "Long while the close is above its average"
    # What `gpt-trader optimize` tries, parameter by parameter.
    search_space = {"period": (20, 50, 100, 150, 200)}

    # Each field is a parameter: --param period=50
    period: int = Field(default=100, ge=2, le=1000, description="Bars in the average.")

    @property
    def warmup(self):
        """Bars that must have been seen, the deciding one included, before a decision means anything."""
        return self.period

    def targets(self, bars, first=0):
        """Return the position wanted at each bar's close: 1 all in, 0 flat, -1 all short.

        `bars` has the arrays time, open, high, low, close and volume. The target of bar i may depend on bars up to and
        including i only; it is filled at the open of bar i + 1. Bars before `first` are history to warm up on.
        """
        import numpy as np

        from gpt_trader.indicators import sma

        average = sma(bars.close, self.period)  # undefined (NaN) for the first bars, and NaN compares as False
        wanted = np.zeros(len(bars))
        if self.direction != "short":
            wanted[bars.close > average] = 1.0
        if self.direction != "long":
            wanted[bars.close < average] = -1.0
        wanted[:first] = 0.0
        return wanted
''')

_TEST: Final = Template('''\
"""Tests of $name.py: python -m pytest test_$name.py"""

from pathlib import Path

from gpt_trader.testing import assert_sound, bars_of, load_strategy, sample_bars

$class_name = load_strategy(Path(__file__).with_name("$name.py"), "$class_name")


def test_it_does_not_look_ahead_and_warms_up_long_enough():
    # Fails with the bar, the column and the reason; zero trades fail as well.
    assert_sound($class_name(), sample_bars("AAPL"))


def test_it_is_in_while_prices_rise_and_out_while_they_fall():
    rising, falling = list(range(100, 110)), list(range(110, 100, -1))
    targets = $class_name(period=3).targets(bars_of(rising + falling))
    assert targets[9] == 1
    assert targets[-1] == 0
''')
