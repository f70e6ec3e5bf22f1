"""How new bars meet stored ones: the newer row wins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpt_trader.raw_bars import VALUES, RawBars


@dataclass(frozen=True)
class Merge:
    """Stored and new rows as one, and how many of the new ones were added, changed a stored one, or did not."""

    rows: RawBars
    added: int
    restated: int
    unchanged: int


def merge(stored: RawBars, new: RawBars) -> Merge:
    """Return stored and new rows as one; both sorted by time and unique, a new row replaces a stored one."""
    if not len(stored) or not len(new) or new.time[0] > stored.time[-1]:
        return Merge(RawBars.joined(stored, new), len(new), 0, 0)
    place = np.minimum(np.searchsorted(stored.time, new.time), len(stored) - 1)
    known = stored.time[place] == new.time
    differs = np.zeros(len(new), np.bool_)
    for name in VALUES:
        differs |= getattr(stored, name)[place] != getattr(new, name)
    kept = np.ones(len(stored), np.bool_)
    kept[place[known]] = False
    rows = RawBars.joined(stored[kept], new)
    rows = rows[np.argsort(rows.time, kind="stable")]
    restated = int(np.count_nonzero(known & differs))
    return Merge(rows, int(np.count_nonzero(~known)), restated, int(np.count_nonzero(known)) - restated)
