"""What a strategy is: declared parameters and one pure, causal function from bars to positions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from gpt_trader.bars import Bars, Floats

Direction = Literal["long", "short", "both"]


class CompiledTargets(NamedTuple):
    """A compiled function that writes targets, and what it takes of one variant on its bars.

    Attributes:
        write: `write(*inputs, first, found)` writes the targets of the bars from `first` on to `found`, (n − first,)
            float64, or int8 where they are `whole`; compiled by numba, so that a sweep spends no Python on them.
        inputs: Indicators, (n,) each, which variants may share (`gpt_trader.indicators.shared`), and plain numbers.
        whole: Each target is −1, 0 or 1: a byte a bar, instead of eight, is faster to write and to search for changes.
    """

    write: Callable[..., None]
    inputs: tuple[Any, ...]
    whole: bool = False

    def of(self, bars: int, first: int) -> Floats:
        """Return the targets of all bars, (bars,): 0 before `first`."""
        import numpy as np

        found = np.zeros(bars, np.int8 if self.whole else np.float64)
        self.write(*self.inputs, first, found[first:])
        return found.astype(np.float64, copy=False)


class Strategy(BaseModel, ABC):
    """Base of all strategies: its pydantic fields are the parameters, `targets` is the whole logic.

    An instance is a frozen value: `Momentum(lookback=10)`. Unknown or invalid parameters are refused by name.
    Import numpy and the like inside `targets`, so that the parameters load fast.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: The name used by CLI, REST and flows; snake_case.
    name: ClassVar[str]
    #: One sentence for lists.
    summary: ClassVar[str] = ""
    #: Values an optimization tries by default, parameter by parameter.
    search_space: ClassVar[Mapping[str, Sequence[float | int]]] = {}

    #: Which sides it may take: not a parameter but part of the request; `both` mirrors the long rule.
    direction: Direction = Field(default="long", exclude=True)

    @property
    def warmup(self) -> int:
        """Bars that must have been seen, the deciding one included, before a first decision is defined."""
        return 1

    @abstractmethod
    def targets(self, bars: Bars, first: int = 0) -> Floats:
        """Return the position wanted at each bar's close: +1 all in, −1 all short, 0 flat.

        Shape (len(bars),), float64, within [−1, 1]. `targets[i]` may depend on bars up to and including `i`
        only; it is filled at the open of bar `i + 1`. Bars before `first` are warm-up: their targets are 0,
        and state (a holding period, a stop) starts flat at `first`. Where an indicator is undefined, 0.

        Law, proven for every registered strategy: `targets(bars, f)[:t] == targets(bars[:t], f)`.
        """

    def compiled(self, bars: Bars) -> CompiledTargets | None:
        """Return `targets` in a compiled form, for sweeps; None, as here: there is none, and `targets` is called.

        Law: `compiled(bars).of(len(bars), first)` is `targets(bars, first)` to the bit. A strategy that has both should
        have `targets` return that.
        """
        return None

    def params(self) -> dict[str, Any]:
        """Return the parameters as JSON-ready values (without `direction`)."""
        return self.model_dump(mode="json")
