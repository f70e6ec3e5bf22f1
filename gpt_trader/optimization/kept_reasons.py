"""Why trials were not run, of many trials in little room: most reasons differ in their numbers alone."""

from __future__ import annotations

import json
import zlib
from collections.abc import ItemsView, Iterator, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

#: So many are packed together.
_TOGETHER: Final = 500


class KeptReasons(Mapping[int, str]):
    """Reasons by combination number, in the order they were added; packed, and unpacked where they are asked for."""

    def __init__(self) -> None:
        self._packed: list[tuple[NDArray[np.int64], bytes]] = []
        self._new: dict[int, str] = {}

    def add(self, reasons: Mapping[int, str]) -> None:
        """Add reasons of other trials."""
        self._new.update(reasons)
        if len(self._new) >= _TOGETHER:
            said = zlib.compress(json.dumps(list(self._new.values())).encode(), 1)
            self._packed.append((np.array(list(self._new), np.int64), said))
            self._new = {}

    def items(self) -> ItemsView[int, str]:
        """Return numbers with their reasons, without a search for each."""
        return _Items(self)

    def pairs(self) -> Iterator[tuple[int, str]]:
        """Yield numbers with their reasons."""
        for numbers, said in self._packed:
            yield from zip(numbers.tolist(), _unpacked(said), strict=True)
        yield from self._new.items()

    def __getitem__(self, number: int) -> str:
        """Return why the trial of this number was not run."""
        if number in self._new:
            return self._new[number]
        for numbers, said in self._packed:
            at = np.flatnonzero(numbers == number)
            if len(at):
                return _unpacked(said)[int(at[0])]
        raise KeyError(number)

    def __iter__(self) -> Iterator[int]:
        """Yield the numbers."""
        for numbers, _ in self._packed:
            yield from numbers.tolist()
        yield from self._new

    def __len__(self) -> int:
        """How many there are."""
        return sum(len(numbers) for numbers, _ in self._packed) + len(self._new)


class _Items(ItemsView[int, str]):
    def __init__(self, reasons: KeptReasons) -> None:
        super().__init__(reasons)
        self._reasons = reasons

    def __iter__(self) -> Iterator[tuple[int, str]]:
        return self._reasons.pairs()


def _unpacked(said: bytes) -> list[str]:
    found: list[str] = json.loads(zlib.decompress(said))
    return found
