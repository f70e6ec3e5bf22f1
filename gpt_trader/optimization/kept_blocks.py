"""Where a search keeps the sums by block of time of its trials: in memory, and of many in a file.

They are most of what is known of a trial, and are read twice: all of them for the result's hash, and those that are
drawn for cross-validation. So a file serves, read where they are asked for (`pread`): what is mapped into memory would
count as a process's own. It has no name, so that it goes with the process.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gpt_trader.bars import Floats
from gpt_trader.errors import GptTraderError
from gpt_trader.simulation.kernel import BLOCKS

#: Sums of a trial.
WIDTH: Final = 4 * BLOCKS
_BYTES: Final = 8 * WIDTH

#: So many trials are kept in memory: 2.5 MB.
IN_MEMORY: Final = 5_000


class Blocks:
    """Sums by block of time of trials, (m, WIDTH), added in order and never changed. For one thread at a time."""

    def __init__(self) -> None:
        self._many = 0
        self._held: list[Floats] = []
        self._file: int | None = None

    @classmethod
    def of(cls, sums: Floats) -> Blocks:
        """Return the blocks of trials (m, WIDTH) whose array is kept."""
        found = cls()
        found._held, found._many = [sums], len(sums)
        return found

    def __len__(self) -> int:
        """How many trials there are."""
        return self._many

    def __getstate__(self) -> dict[str, Any]:
        """Pickle what is in a file, too."""
        return {"_many": self._many, "_held": [self.at(np.arange(self._many))], "_file": None}

    def add(self, others: Blocks) -> None:
        """Add those of more trials; raise GptTraderError where the temporary folder does not take them."""
        sums = others.at(np.arange(len(others)))
        self._held.append(sums)
        self._many += len(sums)
        if self._file is not None or self._many > IN_MEMORY:
            self._write()

    def at(self, places: NDArray[np.intp]) -> Floats:
        """Return those of the trials at these places, (k, WIDTH)."""
        if self._file is None:
            if len(self._held) != 1:
                self._held = [np.concatenate(self._held) if self._held else np.empty((0, WIDTH))]
            return self._held[0][places]
        found = np.empty((len(places), WIDTH))
        starts = np.flatnonzero(np.diff(places, prepend=-2) != 1).tolist()  # of runs of neighbors
        for start, stop in pairwise([*starts, len(places)]):
            found[start:stop] = _read(self._file, int(places[start]) * _BYTES, stop - start)
        return found

    def _write(self) -> None:
        """Put what is held into the file."""
        if self._file is None:
            self._file = _unnamed()
            weakref.finalize(self, os.close, self._file)
        held, self._held = self._held, []
        at = (self._many - sum(map(len, held))) * _BYTES
        for sums in held:
            at += _written(self._file, sums.tobytes(), at)


def _unnamed() -> int:
    """Return the descriptor of a file without a name."""
    descriptor, path = tempfile.mkstemp(prefix="gpt-trader-trials-")
    Path(path).unlink()
    return descriptor


def _written(file: int, data: bytes, at: int) -> int:
    """Write all of the bytes; return how many they are."""
    done = 0
    try:
        while done < len(data):
            done += os.pwrite(file, data[done:], at + done)
    except OSError as error:
        raise GptTraderError(
            f"trials cannot be kept in {tempfile.gettempdir()}: {error.strerror}. Each takes {_BYTES} bytes there; the "
            "environment variable TMPDIR names another folder"
        ) from error
    return done


def _read(file: int, at: int, trials: int) -> Floats:
    """Return the sums of so many trials from a place on, (trials, WIDTH)."""
    parts, left = [], trials * _BYTES
    while left:
        parts.append(os.pread(file, left, at))
        if not parts[-1]:
            raise GptTraderError("trials that were kept are gone from their file")
        left, at = left - len(parts[-1]), at + len(parts[-1])
    return np.frombuffer(b"".join(parts)).reshape(trials, WIDTH)
