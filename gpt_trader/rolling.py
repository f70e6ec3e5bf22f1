"""Compiled sums over rolling windows; each depends on its own window alone (see `gpt_trader.indicators`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from gpt_trader.compiling import compiled

if TYPE_CHECKING:
    from gpt_trader.bars import Floats

#: So many sums are added up side by side: they stay in the processor's nearest cache.
_TOGETHER: Final = 256


@compiled(nogil=True)
def window_sums(values: Floats, period: int, found: Floats) -> None:
    """Write the sum of every full window of values (n,) to `found` (n − period + 1,), added oldest to newest."""
    total = np.empty(_TOGETHER)
    for first in range(0, len(found), _TOGETHER):
        sums = total[: min(_TOGETHER, len(found) - first)]
        sums[:] = values[first : first + len(sums)]
        for offset in range(1, period):
            added = values[first + offset : first + offset + len(sums)]
            for k in range(len(sums)):  # from 0 on: several are added at once
                sums[k] += added[k]
        found[first : first + len(sums)] = sums
