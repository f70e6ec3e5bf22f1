"""Which snapshots there are, which one is current, and how a new one takes over.

`CURRENT` is one sealed JSON file with the whole history, newest last: replacing it is the commit. Content lives in
`manifests/ID.json`, immutable. A lake that returns to earlier content gets the earlier id again, with a new time.
Of snapshots that were collected it keeps since when there are none: a time then must not show an older one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock
from itertools import pairwise
from pathlib import Path
from typing import Final

from gpt_trader.crash_points import crash_point
from gpt_trader.errors import CorruptLake, NotFound, Problem, Refused
from storage.durable import write_file
from storage.manifest import Manifest, seal, unseal

#: What a user is told of a snapshot that is gone.
BY_COLLECTION: Final = "old snapshots that no run names are removed by `gpt-trader data collect`"

_ID: Final = re.compile(r"[0-9a-f]{1,64}")
_SHORTEST_PREFIX: Final = 6

_FileVersion = tuple[int, int, int]
#: What tells one commit from another without reading either.
Mark = _FileVersion | None


@dataclass(frozen=True)
class Snapshot:
    """One version of the lake: its content id, when it became current (UTC), and the id before it."""

    id: str
    created_at: datetime
    parent: str | None


@dataclass(frozen=True)
class _History:
    """The snapshots that there are, oldest first, and since when some that followed one of them are gone."""

    snapshots: tuple[Snapshot, ...] = ()
    gone_since: tuple[datetime, ...] = ()

    def at(self, moment: datetime) -> Snapshot:
        """Return the snapshot that was the newest then; raise NotFound if there was none, or it is gone."""
        for snapshot in reversed(self.snapshots):
            if snapshot.created_at <= moment:
                if any(snapshot.created_at < since <= moment for since in self.gone_since):
                    break
                return snapshot
        raise NotFound(f"no snapshot at {_said(moment)}: {self.what_there_is()}")

    def without(self, doomed: set[str]) -> _History:
        """Return the history without some snapshots; the newest stays whatever `doomed` says."""
        *older, newest = self.snapshots
        kept = (*(s for s in older if s.id not in doomed), newest)
        gone = {*self.gone_since, *(s.created_at for s in older if s.id in doomed)}
        times = sorted(gone | {s.created_at for s in kept})
        first_gone = [now for before, now in pairwise([None, *times]) if now in gone and before not in gone]
        return _History(kept, tuple(first_gone))

    def what_there_is(self, shown: int = 5) -> str:
        """Say it to a user who asked for something else."""
        if not self.snapshots:
            return "the lake is empty; fill it with gpt-trader data ingest"
        newest = ", ".join(f"{s.id[:12]} of {_said(s.created_at)}" for s in reversed(self.snapshots[-shown:]))
        gone = f" ({BY_COLLECTION})" if self.gone_since else ""
        oldest = _said(self.snapshots[0].created_at)
        return f"there are {len(self.snapshots)}, since {oldest}; the newest: {newest}{gone}"


class Catalog:
    """The snapshots of one lake. Reading is safe at any time; `commit` belongs to the holder of the lock."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._current = root / "CURRENT"
        self._temporary = root / "tmp"
        self._read: tuple[_FileVersion, _History] | None = None
        self._manifests: dict[tuple[str, _FileVersion], Manifest] = {}

    def snapshots(self) -> tuple[Snapshot, ...]:
        """Return every snapshot, oldest first; an empty lake has none."""
        return self._history().snapshots

    def mark(self) -> Mark:
        """Return what changes whenever the history does; None while there is none."""
        try:
            return _version(self._current)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CorruptLake(f"{self._current} cannot be read: {error.strerror}") from None

    def resolve(self, wanted: str | date | None) -> Snapshot | None:
        """Return the snapshot meant by an id, a prefix of one, or a time (the newest at that time).

        None means the newest, and gives None for an empty lake. Raises NotFound if nothing matches, Refused if a
        prefix is too short or matches several, or a time has no zone.
        """
        history = self._history()
        if wanted is None:
            return history.snapshots[-1] if history.snapshots else None
        if isinstance(wanted, str) and _ID.fullmatch(wanted.strip().lower()):
            return _by_prefix(wanted.strip().lower(), history)
        return history.at(_moment(wanted))

    def manifest(self, snapshot: Snapshot | None) -> Manifest:
        """Return the content of a snapshot (None: an empty lake's); raise CorruptLake if it is damaged."""
        if snapshot is None:
            return Manifest()
        path = self.path(snapshot.id)
        try:
            version = _version(path)
            known = self._manifests.get((snapshot.id, version))
            if known is not None:
                return known
            manifest = Manifest.from_bytes(path.read_bytes(), str(path))
        except OSError as error:
            raise CorruptLake(
                f"{path} cannot be read ({error.strerror}): restore it from a backup, or ingest into a new home"
            ) from None
        if manifest.id != snapshot.id:
            raise CorruptLake(f"{path} holds snapshot {manifest.id}, not the one of its name")
        self._remember(manifest, version)
        return manifest

    def holds(self, snapshot: Snapshot) -> bool:
        """Return whether the snapshot is in the history as it is on disk now."""
        return any(known.id == snapshot.id for known in self.snapshots())

    def forget(self, doomed: set[str]) -> None:
        """Take snapshots out of the history, durably; the newest stays whatever `doomed` says."""
        self._write(self._history().without(doomed))

    def commit(self, manifest: Manifest) -> Snapshot:
        """Make `manifest` the current snapshot, durably; until CURRENT is replaced readers see the old one.

        A manifest whose content is the current snapshot's (a damaged file was written anew) makes no new one.
        """
        history = self._history()
        snapshots = history.snapshots
        now = datetime.now(UTC)
        if snapshots:  # a clock set back must not make the newest snapshot look older than its parent
            now = max(now, snapshots[-1].created_at + timedelta(microseconds=1))
        snapshot = Snapshot(manifest.id, now, snapshots[-1].id if snapshots else None)
        write_file(
            self.path(manifest.id),
            manifest.to_bytes(),
            temporary=self._temporary,
            crash_point=lambda: crash_point("lake.before_manifest"),
        )
        self._remember(manifest, _version(self.path(manifest.id)))
        crash_point("lake.after_manifest")
        if snapshots and snapshots[-1].id == manifest.id:
            return snapshots[-1]
        self._write(replace(history, snapshots=(*snapshots, snapshot)))
        crash_point("lake.committed")
        return snapshot

    def _history(self) -> _History:
        try:
            version = _version(self._current)
            known = self._read
            if known and known[0] == version:
                return known[1]
            values = unseal(self._current.read_bytes(), str(self._current))
        except FileNotFoundError:
            return _History()
        except OSError as error:
            raise CorruptLake(f"{self._current} cannot be read: {error.strerror}") from None
        found, parent = [], None
        for identity, created_at in values["history"]:
            found.append(Snapshot(identity, datetime.fromisoformat(created_at), parent))
            parent = identity
        gone = (datetime.fromisoformat(since) for since in values.get("gone_since", ()))
        history = _History(tuple(found), tuple(gone))
        self._read = (version, history)
        return history

    def _write(self, history: _History) -> None:
        values = {
            "snapshot": history.snapshots[-1].id,
            "history": [(s.id, s.created_at.isoformat()) for s in history.snapshots],
            "gone_since": [since.isoformat() for since in history.gone_since],
        }
        write_file(
            self._current,
            seal(values),
            temporary=self._temporary,
            crash_point=lambda: crash_point("lake.before_current"),
        )

    def path(self, identity: str) -> Path:
        """Return where the content of a snapshot is kept."""
        return self._root / "manifests" / f"{identity}.json"

    def _remember(self, manifest: Manifest, version: _FileVersion) -> None:
        """Keep the manifests read last: parsing one of 500 symbols takes longer than reading a symbol's bars."""
        recent = list(self._manifests.items())[-7:]
        self._manifests = {**dict(recent), (manifest.id, version): manifest}


def _version(path: Path) -> _FileVersion:
    """Return what changes when a file is replaced: inode, time and size."""
    state = path.stat()
    return state.st_ino, state.st_mtime_ns, state.st_size


def _by_prefix(prefix: str, history: _History) -> Snapshot:
    matching = {s.id: s for s in history.snapshots if s.id.startswith(prefix)}
    if prefix in matching:
        return matching[prefix]
    if len(prefix) < _SHORTEST_PREFIX:
        raise Refused.of(
            Problem("snapshot", prefix, f"give at least {_SHORTEST_PREFIX} digits of an id, or a time")
        )
    if not matching:
        raise NotFound(f"no snapshot {prefix}: {history.what_there_is()}")
    if len(matching) > 1:
        raise Refused.of(Problem("snapshot", prefix, "several ids start so", allowed=", ".join(matching)))
    return next(iter(matching.values()))


def _moment(wanted: str | date) -> datetime:
    """Return the time meant: a time with its zone, UTC for a string that names none, the end of a bare date."""
    value: date | str = wanted
    if isinstance(value, str):
        try:
            text = value.strip()
            value = date.fromisoformat(text) if len(text) == 10 else datetime.fromisoformat(text)
        except ValueError:
            raise Refused.of(
                Problem(
                    "snapshot",
                    wanted,
                    "is neither a snapshot id nor a time",
                    allowed="3f9c1a, 2026-01-31T12:00Z",
                )
            ) from None
        if isinstance(value, datetime) and value.tzinfo is None:
            value = value.replace(tzinfo=UTC)
    if not isinstance(value, datetime):
        return datetime.combine(value, clock.max, tzinfo=UTC)
    if value.tzinfo is None:
        raise Refused.of(Problem("snapshot", value, "is a time without a zone: give one with tzinfo"))
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise Refused.of(Problem("snapshot", wanted, "is before the year 1 or after 9999 in UTC")) from None


def _said(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
