"""What one snapshot holds that another does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from storage.manifest import Entry, Manifest


@dataclass(frozen=True)
class SeriesChange:
    """A series that is another one now: how many bars it has and had; None: it is not there, or was not."""

    symbol: str
    timeframe: str
    rows: int | None
    rows_before: int | None


@dataclass(frozen=True)
class Changes:
    """What became of a snapshot's parent: series in order of name, symbols whose facts or actions are others now."""

    added: tuple[SeriesChange, ...]
    changed: tuple[SeriesChange, ...]
    removed: tuple[SeriesChange, ...]
    instruments: tuple[str, ...]
    actions: tuple[str, ...]


def changes(before: Manifest, after: Manifest) -> Changes:
    """Return what is different in `after`; a new instrument is told by its series alone."""
    old, new = before.entries, after.entries
    return Changes(
        added=tuple(_series(None, new[name]) for name in sorted(new.keys() - old.keys())),
        changed=tuple(
            _series(old[name], new[name])
            for name in sorted(new.keys() & old.keys())
            if new[name].logical_hash != old[name].logical_hash
        ),
        removed=tuple(_series(old[name], None) for name in sorted(old.keys() - new.keys())),
        instruments=_edited(before.instruments, after.instruments),
        actions=tuple(
            symbol
            for symbol in sorted(before.actions.keys() | after.actions.keys())
            if _hash(before, symbol) != _hash(after, symbol)
        ),
    )


def _series(before: Entry | None, after: Entry | None) -> SeriesChange:
    known = after or before
    assert known is not None
    return SeriesChange(
        known.symbol, known.timeframe, after.rows if after else None, before.rows if before else None
    )


def _edited(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(symbol for symbol in sorted(before.keys() & after.keys()) if before[symbol] != after[symbol])


def _hash(manifest: Manifest, symbol: str) -> str | None:
    file = manifest.actions.get(symbol)
    return file.logical_hash if file else None
